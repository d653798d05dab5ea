"""The default run's step against plain PyTorch.

    python -m benchmarks.speed [--rounds 27] [--json PATH]

Tokens a second of bare loops, each in a process of its own that waits while another's step is timed: the default config
with and without compiled blocks, as launch/local.sh starts it, against the same model in plain float32, eager, with
full logits, a logsumexp of its own for the z-loss and the default AdamW, as Python starts it; the steps between the two
are shown as well. Random tokens. What the framework adds to a step: benchmarks.overhead.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import torch.nn.functional as F

from benchmarks.bare import DONE, Step, compose_run, make_model, make_step, random_batches
from benchmarks.interleave import interleave
from benchmarks.report import Report, Row, make_parser
from mulligan.training.run import TrainingRun

AIM = 2.4  # times plain float32, where the processor has bf16 matrix instructions


def make_plain_step(run: TrainingRun) -> Step:
    """The same update as one would first write it: float32, full logits, PyTorch's default AdamW."""
    model = make_model(run)
    recipe = run.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay
    )
    batches = random_batches(run)

    def step() -> None:
        tokens_BT = next(batches)
        logits_NV = model(tokens_BT[:, :-1]).flatten(0, 1)
        loss = F.cross_entropy(logits_NV, tokens_BT[:, 1:].flatten())
        loss = loss + run.objective.z_loss * torch.logsumexp(logits_NV, dim=1).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()

    return step


class Loop(NamedTuple):
    """How to make its step, and whether launch/environment.sh is in force."""

    make: Callable[[TrainingRun], Step]
    launched: bool


LOOPS = {
    "plain float32": Loop(make_plain_step, launched=False),
    "chunked head, fused AdamW, float32": Loop(make_step, launched=False),
    "default precision": Loop(partial(make_step, default_precision=True), launched=False),
    "the same, launched": Loop(partial(make_step, default_precision=True), launched=True),
    "the same, compiled": Loop(partial(make_step, default_precision=True, compiled=True), launched=True),
}


class StepProcess:
    """A loop of ``LOOPS`` in a process of its own, which does a step when called."""

    def __init__(self, loop: str) -> None:
        command = f'exec "{sys.executable}" -m benchmarks.speed --serve "{loop}"'
        if LOOPS[loop].launched:
            command = f"source launch/environment.sh; {command}"
        self.process = subprocess.Popen(
            ["bash", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def __call__(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == DONE, "a loop's process ended"

    @staticmethod
    def serve(loop: str) -> None:
        with redirect_stdout(sys.stderr):
            step = LOOPS[loop].make(default_run())
        for _ in sys.stdin:
            step()
            sys.stdout.buffer.write(DONE)
            sys.stdout.buffer.flush()


def default_run() -> TrainingRun:
    with TemporaryDirectory() as folder:  # nothing is prepared: the tokens are random
        return compose_run(folder)


def measure(report: Report, rounds: int, warmup_steps: int = 3) -> None:
    run = default_run()
    loops = {name: StepProcess(name) for name in LOOPS}
    try:
        timings = interleave(
            loops,
            rounds=rounds,
            warmup_rounds=warmup_steps,
            processes=[loop.process.pid for loop in loops.values()],
        )
    finally:
        for loop in loops.values():
            loop.process.kill()
            loop.process.communicate()
    default = "the same, compiled" if run.compile else "the same, launched"
    first = timings["plain float32"]
    rows: list[Row] = []
    for name, timing in timings.items():
        faster = 1.0 / timing.ratio_to(first)
        row = {"loop": name, "ms a step": timing.median * 1e3, "tokens/s": run.tokens_per_step / timing.median}
        rows.append(row | {"times plain": faster, "by cpu s": 1.0 / timing.cpu_ratio_to(first)})
    title = f"speed: {run.model.num_parameters:,} parameters, {run.global_batch} samples of {run.sequence_length}"
    chosen = f"default precision is {run.precision}, compile {str(run.compile).lower()} for {run.num_steps:,} steps"
    report.add(f"{title}, {rounds} rounds of a step; {chosen}", rows)
    report.judge(
        "the default's step in a bare loop",
        ours=run.tokens_per_step / timings[default].median,
        unit="tokens/s",
        peer="plain float32",
        theirs=run.tokens_per_step / first.median,
        ratio=1.0 / timings[default].ratio_to(first),
        at_least=AIM if run.precision == "bf16-mixed" else None,
    )


def main() -> None:
    parser = make_parser(__doc__, rounds=27)
    parser.add_argument("--serve", choices=LOOPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        StepProcess.serve(options.serve)
        return
    report = Report()
    measure(report, options.rounds)
    report.write(options.json)


if __name__ == "__main__":
    main()
