"""How a training program takes turns with others: its side of two pipes. No mulligan here.

At the end of every block of steps it writes a line of JSON and waits for a line. Its own standard output goes to
standard error, so that libraries may print.
"""

import json
import os
import sys

import torch
from torch import Tensor

from benchmarks.resident import peak_resident_bytes


class Turns:
    """Made before anything is printed; ``begin`` when the first step comes, ``step_done`` after each."""

    def __init__(self, block_steps: int) -> None:
        self._lines = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.block_steps, self.steps = block_steps, 0
        self._first_loss: Tensor | None = None

    def begin(self, num_parameters: int) -> None:
        self._report_and_wait({"num_parameters": num_parameters})

    def step_done(self, loss: Tensor) -> None:
        """``loss`` is the step's mean cross-entropy on the device; reading it at a block's end waits for a GPU."""
        if self._first_loss is None:
            self._first_loss = loss.detach().clone()
        self.steps += 1
        if self.steps % self.block_steps == 0:
            losses = {"first_loss": self._first_loss.item(), "loss": loss.item()}
            self._report_and_wait({**losses, "peak_bytes": peak_bytes()})

    def _report_and_wait(self, report: dict[str, float]) -> None:
        print(json.dumps(report), file=self._lines, flush=True)
        if not sys.stdin.readline():
            os._exit(0)  # measured enough: nothing is to be saved or summed up


def peak_bytes() -> int:
    """The most memory ever held: of the GPU, else what was resident of the process with its code."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_resident_bytes()
