"""What a training step costs: the framework around it, and the default run against plain PyTorch.

    python -m benchmarks.step [--only overhead speed] [--rounds 9] [--steps 200] [--json PATH]

overhead  milliseconds a step of a real run (Trainer, guard, metrics to the CSV logger and the console, loader,
          schedule) minus those of a bare loop with the same model, objective, optimizer and clipping on batches in
          memory. The model is tiny, float32 and on one thread, so that the difference shows; no validation and no
          checkpoint falls into the timed steps. A callback stops the run every --steps steps and runs as many of the
          bare loop: the two take turns. Processor time is shown as well, and holds the loader's thread.
speed     tokens a second of bare loops, each in a process of its own that waits while another's step is timed: the
          default config with and without compiled blocks, as launch/local.sh starts it, against the same model in
          plain float32, eager, with full logits, a logsumexp of its own for the z-loss and the default AdamW, as
          Python starts it; the steps between the two are shown as well. Random tokens.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, Trainer
from torch.nn.parallel import DistributedDataParallel

from benchmarks.interleave import Timing, clocks, interleave
from benchmarks.report import Report, Row, make_parser
from mulligan.cli.compose import CONF, build, plain
from mulligan.cli.train import quiet_lightning
from mulligan.model.transformer import Transformer
from mulligan.training.run import TrainingRun

OVERHEAD_AIM = 1.0  # milliseconds a step, of wall time
SPEED_AIM = 2.4  # times plain float32, where the processor has bf16 matrix instructions
NEVER = 10**9
DONE = b"done\n"
SMALL = (
    *(
        "model.width=64",
        "model.num_layers=2",
        "model.feedforward_width=192",
        "sequence_length=64",
        "global_batch_samples=2",
    ),
    *("precision=32-true", "compile=false", "logger=csv", "tokenizer.sample_bytes=1048576"),
    *(f"validate_every_n_steps={NEVER}", f"checkpoint.every_n_steps={NEVER}", "validation_samples=8"),
)
Step = Callable[[], object]


def compose_run(folder: str, *overrides: str) -> TrainingRun:
    quiet_lightning()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"folder={folder}/run", f"data.folder={folder}/prepared", *overrides])
    return build(plain(config))


def make_step(
    run: TrainingRun, *, default_precision: bool = False, compiled: bool = False, replicated: bool = False
) -> Step:
    """One update as the run does it, in float32 or its own precision, in a bare loop over batches in memory.

    ``replicated`` averages gradients over the ranks of the process group with PyTorch's DDP as it comes.
    """
    model = make_model(run, compiled=compiled)
    optimizer = run.optimizer.make(model)
    forward = DistributedDataParallel(model) if replicated else model
    batches = random_batches(run)
    bf16 = default_precision and run.precision == "bf16-mixed"
    softcap, clip_norm = run.model.logit_softcap, run.optimizer.clip_norm or float("inf")

    def step() -> None:
        tokens_BT = next(batches)
        head = partial(run.objective, targets_BT=tokens_BT[:, 1:], softcap=softcap, regularized=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            terms = forward(tokens_BT[:, :-1], head=head)
        (terms.loss_sum / tokens_BT[:, 1:].numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


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


def make_model(run: TrainingRun, *, compiled: bool = False) -> Transformer:
    with torch.device("meta"):
        model = Transformer(run.model)
    model.materialize("cpu", run.seed)
    if compiled:
        for block in model.blocks:
            block.compile()  # as the module does
    return model


def random_batches(run: TrainingRun) -> Any:
    shape = (run.global_batch, run.sequence_length + 1)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(run.model.vocab_size, shape, generator=generator) for _ in range(8)]
    while True:
        yield from batches


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


def measure_overhead(report: Report, rounds: int, block_steps: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # the console's lines are made, not shown
        run = compose_run(folder, *SMALL, f"max_steps={(rounds + 1) * block_steps}")
        turns = TakeTurns(make_step(run), block_steps)
        run.callbacks.append(turns)
        run.train(lambda *_: None, lambda _: None)
    torch.set_num_threads(threads)
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
    report.judge(
        "overhead a step: Trainer, guard, loggers, loader", ours=overheads["seconds"], unit="ms", at_most=OVERHEAD_AIM
    )


class Loop(NamedTuple):
    """A row of speed: how to make its step, and whether launch/environment.sh is in force."""

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
        command = f'exec "{sys.executable}" -m benchmarks.step --serve "{loop}"'
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


def measure_speed(report: Report, rounds: int, warmup_steps: int = 3) -> None:
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
        "speed of the default step",
        ours=run.tokens_per_step / timings[default].median,
        unit="tokens/s",
        peer="plain float32",
        theirs=run.tokens_per_step / first.median,
        ratio=1.0 / timings[default].ratio_to(first),
        at_least=SPEED_AIM if run.precision == "bf16-mixed" else None,
    )


def main() -> None:
    parser = make_parser(__doc__, rounds=9)
    parser.add_argument("--steps", type=int, default=200, help="steps of a round of overhead")
    parser.add_argument("--serve", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", choices=("overhead", "speed"), help="what to measure; default both")
    options = parser.parse_args()
    if options.serve:
        StepProcess.serve(options.serve)
        return
    chosen = options.only or ("overhead", "speed")
    report = Report()
    if "overhead" in chosen:
        measure_overhead(report, options.rounds, options.steps)
    if "speed" in chosen:
        measure_speed(report, options.rounds * 3)  # its rounds are single steps
    report.write(options.json)


if __name__ == "__main__":
    main()
