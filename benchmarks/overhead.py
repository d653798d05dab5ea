"""What the framework around a training step costs.

    python -m benchmarks.overhead [--rounds 9] [--steps 200] [--json PATH]

Milliseconds a step of a real run (Trainer, guard, metrics to the CSV logger and the console, loader, schedule) minus
those of a bare loop with the same model, objective, optimizer and clipping on batches in memory. The model is tiny,
float32 and on one thread, so that the difference shows; no validation and no checkpoint falls into the timed steps. A
callback stops the run every --steps steps and runs as many of the bare loop: the two take turns. Processor time is
shown as well, and holds the loader's thread.
"""

from contextlib import redirect_stdout
from io import StringIO
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from benchmarks.bare import NEVER, Step, compose_run, make_step
from benchmarks.interleave import Timing, clocks
from benchmarks.report import Report, Row, make_parser

AIM = 1.0  # milliseconds a step, of wall time
SMALL = (
    *("model.width=64", "model.num_layers=2", "model.feedforward_width=192"),
    *("sequence_length=64", "global_batch_samples=2"),
    *("precision=32-true", "compile=false", "logger=csv", "tokenizer.sample_bytes=1048576"),
    *(f"validate_every_n_steps={NEVER}", f"checkpoint.every_n_steps={NEVER}", "validation_samples=8"),
)


class TakeTurns(Callback):
    """Times the run in blocks of steps, and between two blocks as many steps of the bare loop. The last callback."""

    def __init__(self, step: Step, block_steps: int) -> None:
        self.step, self.block_steps = step, block_steps
        self.mulligan, self.bare = Timing(), Timing()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._since = clocks()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step % self.block_steps:
            return
        self._since = self.mulligan.lap(self._since)
        for _ in range(self.block_steps):
            self.step()
        self._since = self.bare.lap(self._since)


def measure(report: Report, rounds: int, block_steps: int) -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # the console's lines are made, not shown
        run = compose_run(folder, *SMALL, f"max_steps={(rounds + 1) * block_steps}")
        turns = TakeTurns(make_step(run), block_steps)
        run.callbacks.append(turns)
        run.train(lambda *_: None, lambda _: None)
    rows: list[Row] = []
    overheads = {}
    for clock in ("seconds", "cpu_seconds"):
        # The first block of each is the warm-up.
        ours, bare = ([s / block_steps * 1e3 for s in getattr(t, clock)[1:]] for t in (turns.mulligan, turns.bare))
        overheads[clock] = median(mine - other for mine, other in zip(ours, bare, strict=True))
        row: Row = {"clock": clock, "mulligan ms": median(ours), "bare loop ms": median(bare)}
        rows.append(row | {"overhead ms": overheads[clock]})
    title = f"overhead a step: {rounds} rounds of {block_steps} steps, {run.model.num_parameters:,} parameters"
    report.add(title, rows)
    report.judge("overhead a step: Trainer, guard, loggers, loader", ours=overheads["seconds"], unit="ms", at_most=AIM)


def main() -> None:
    parser = make_parser(__doc__, rounds=9)
    parser.add_argument("--steps", type=int, default=200, help="steps of a round (default 200)")
    options = parser.parse_args()
    report = Report()
    measure(report, options.rounds, options.steps)
    report.write(options.json)


if __name__ == "__main__":
    main()
