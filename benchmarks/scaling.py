"""What a second rank is worth on this machine: tokens a second of one rank, of two, and of two that send nothing.

    python -m benchmarks.scaling [--rounds 5] [--steps 4] [--json PATH]

Every rank is a process with one thread that launch/environment.sh has set up, and has the default config's batch and
model in float32: two ranks train on twice the global batch (weak scaling).

mulligan       the real run of one rank (trainer=cpu) and of two (cpu_ddp, cpu_fsdp): Trainer, loader, guard, metrics
bare DDP loop  the same model, objective, optimizer and clipping under PyTorch's DDP as it comes, on batches in memory
apart          two runs of one rank at once. They share the processor and its memory, and send nothing: where two cores
               are two threads of one, this ceiling is what a second rank could gain at most

All take turns in blocks of --steps steps: the processes of the others wait on pipes. A ratio is the median over rounds
of a block's tokens a second by those of one rank's in the same round. Validation and checkpoints fall into no block.
"""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch.distributed as dist
from lightning.pytorch import Callback, Trainer

from benchmarks.bare import DONE, NEVER, compose_run, make_step
from benchmarks.interleave import Timing, interleave
from benchmarks.report import Report, Row, make_parser

TWO_RANKS_AIM = 1.8  # times one rank
BARE = "bare"
SAMPLES_OF_RANK = 8
OPTIONS = (
    *("precision=32-true", "compile=false", "tokenizer.sample_bytes=1048576", "validation_samples=8", "data=files"),
    "data.workers=1",
    *(f"data.sources.files.paths=[{Path(os.__file__).parent}/*.py]", f"max_steps={NEVER}", "schedule=constant"),
    *(f"validate_every_n_steps={NEVER}", f"checkpoint.every_n_steps={NEVER}"),
    f"global_batch_samples={SAMPLES_OF_RANK}",
)


class Team(NamedTuple):
    """``size`` processes that each serve ``trainer``, and are ranks of one run where they are ``joined``."""

    trainer: str
    size: int
    joined: bool = True


ONE, DDP, APART = "mulligan, 1 rank", "mulligan, 2 ranks, DDP", "mulligan, 2 x 1 rank, apart"
TEAMS = {
    APART: Team("cpu", 2, joined=False),
    DDP: Team("cpu_ddp", 2),
    "mulligan, 2 ranks, FSDP2": Team("cpu_fsdp", 2),
    "bare DDP loop, 2 ranks": Team(BARE, 2),
}
SIZES = {ONE: 1} | {name: team.size for name, team in TEAMS.items()}


def started(team: Team, folder: str, block_steps: int) -> Iterator[subprocess.Popen[bytes]]:
    port = _free_port()
    for rank in range(team.size):
        variables = {"OMP_NUM_THREADS": "1"}
        run = team.trainer if team.joined else f"{team.trainer}_{rank}"
        if team.joined:  # as a launcher says it
            variables |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{team.size}", "NODE_RANK": "0"}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
        serve = f'"{sys.executable}" -m benchmarks.scaling --serve {team.trainer} --steps {block_steps}'
        yield subprocess.Popen(
            ["bash", "-c", f'source launch/environment.sh; exec {serve} --folder "{folder}" --run {run}'],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )


def take_turn(processes: list[subprocess.Popen[bytes]]) -> None:
    """Each does a block of steps, all at once."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == DONE, "a rank's process ended"


class WaitForTurns(Callback):
    """Does a block of steps for each line from the standard input. The last callback."""

    def __init__(self, block_steps: int, done: Any) -> None:
        self.block_steps, self.done = block_steps, done

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._wait()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step % self.block_steps == 0:
            self.done.write(DONE)
            self.done.flush()
            self._wait()

    @staticmethod
    def _wait() -> None:
        if not sys.stdin.readline():  # the benchmark has ended
            sys.exit()


def serve(trainer: str, folder: str, run_name: str, block_steps: int) -> None:
    size = int(os.environ.get("WORLD_SIZE", "1"))
    done = sys.stdout.buffer
    with redirect_stdout(sys.stderr):
        if trainer == BARE:
            run = compose_run(folder, *OPTIONS, f"trainer={'cpu_ddp' if size > 1 else 'cpu'}")  # of which the shapes
            if size > 1:
                dist.init_process_group("gloo")
            step = make_step(run, replicated=size > 1)
            for _ in sys.stdin:
                for _ in range(block_steps):
                    step()
                done.write(DONE)
                done.flush()
            return
        batch = f"global_batch_samples={size * SAMPLES_OF_RANK}"
        run = compose_run(folder, *OPTIONS, f"trainer={trainer}", batch, f"folder={folder}/{run_name}")
        run.callbacks.append(WaitForTurns(block_steps, done))
        run.train(lambda *_: None, lambda _: None)


def measure(report: Report, rounds: int, block_steps: int) -> None:
    teams: dict[str, list[subprocess.Popen[bytes]]] = {}
    with TemporaryDirectory() as folder:
        run = compose_run(folder, *OPTIONS)
        run.data.prepare(lambda *_: None)
        try:
            for name, team in TEAMS.items():
                teams[name] = []
                for process in started(team, folder, block_steps):
                    teams[name].append(process)
            turns = {ONE: partial(take_turn, teams[APART][:1])}
            turns |= {name: partial(take_turn, processes) for name, processes in teams.items()}
            everyone = [process.pid for processes in teams.values() for process in processes]
            timings = interleave(turns, rounds=rounds, processes=everyone)
        finally:
            for processes in teams.values():
                for process in processes:
                    process.kill()
                    process.communicate()
    block_tokens = block_steps * run.tokens_per_step
    rows: list[Row] = []
    for name, timing in timings.items():
        tokens = SIZES[name] * block_tokens
        row: Row = {"ranks": name, "ms a step": 1e3 * timing.median / block_steps, "tokens/s": tokens / timing.median}
        row |= {"times 1 rank": gain(timings, name, ONE), "of apart": gain(timings, name, APART)}
        rows.append(row | {"cpu ms a 1,000 tokens": 1e6 * median(timing.cpu_seconds) / tokens})
    shape = f"{run.model.num_parameters:,} parameters, {run.global_batch} samples of {run.sequence_length} a rank"
    report.add(f"scaling: {shape}, {rounds} rounds of {block_steps} steps", rows)
    judge(report, timings, block_tokens)


def gain(timings: dict[str, Timing], name: str, other: str) -> float:
    """Tokens a second of a team by another's of the same round."""
    mine, theirs = timings[name], timings[other]
    sizes = SIZES[name] / SIZES[other]
    return sizes * median(base / own for own, base in zip(mine.seconds, theirs.seconds, strict=True))


def judge(report: Report, timings: dict[str, Timing], block_tokens: int) -> None:
    speeds = {name: SIZES[name] * block_tokens / timing.median for name, timing in timings.items()}

    def row(what: str, name: str, other: str, **target: float) -> None:
        report.judge(
            what, ours=speeds[name], unit="tokens/s", peer=other, theirs=speeds[other],
            ratio=gain(timings, name, other), **target,
        )  # fmt: skip

    row("two DDP ranks", DDP, ONE, at_least=TWO_RANKS_AIM)
    row("their ceiling here", APART, ONE)
    row("two DDP ranks of the ceiling, 1 at most", DDP, APART)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=4, help="steps of a block (default 4)")
    for name in ("--serve", "--folder", "--run"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.folder, options.run, options.steps)
        return
    report = Report()
    measure(report, options.rounds, options.steps)
    report.write(options.json)


if __name__ == "__main__":
    main()
