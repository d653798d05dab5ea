"""What a snapshot and a checkpoint cost the training loop, against a plain copy of the same bytes.

    python -m benchmarks.saving [--parameters 30M 124M] [--rounds 5] [--json PATH]

A real run (Trainer, guard, checkpoints, fused AdamW, float32) of so many parameters, stopped at the end of each step to
save weights and moments in every way, in turns:

plain copy          one ``copy_`` of all bytes, from one flat tensor into another that is kept: the yardstick.
snapshot            as the guard takes it in the run, and the wait before the next update, into buffers that are kept.
                    The first, which makes them, is shown apart.
checkpoint          what the loop waits for: the call of SaveCheckpoints to its return, and the wait before the next
                    update. Of a step that the guard has just taken a snapshot of, as the defaults have it, and of one
                    that it has not (alone). The first one alone, which makes buffers, is left out.
torch.save          of the same weights and optimizer state, to the same disk, not synced.
DCP async_save      until it returns: torch.distributed.checkpoint copies into buffers of its own, which are kept, and
                    writes in a thread. On a GPU also its stager with pinned memory, until its copy is done.

What is written in the background is waited for before the next one is timed. Beside it, a step while a checkpoint is
being written against the step before: seconds, and the processor's, which hold the writing.
"""

import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch import Callback, Trainer
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from benchmarks.bare import NEVER, compose_run
from benchmarks.interleave import Timing, clocks
from benchmarks.report import Report, Row, make_parser
from mulligan.training.callbacks.checkpoint import SaveCheckpoints
from mulligan.training.callbacks.stability import Guard
from mulligan.training.rewind import training_tensors

SNAPSHOT_TARGET, CHECKPOINT_TARGET = 1.2, 1.0  # times the plain copy
SHAPES = {
    "30M": ("model.width=512", "model.num_layers=9", "model.num_heads=8", "model.feedforward_width=1408"),
    "124M": ("model.width=768", "model.num_layers=15", "model.num_heads=12", "model.feedforward_width=2304"),
}
RUN = (
    *("global_batch_samples=1", "sequence_length=64", "precision=32-true", "compile=false", "logger=csv"),
    *("tokenizer.sample_bytes=1048576", "validation_samples=8", f"validate_every_n_steps={NEVER}"),
    *(f"checkpoint.every_n_steps={NEVER}", f"stability.snapshots.every_n_steps={NEVER}"),
    "stability.snapshots.keep=2",
)
YARDSTICK, SNAPSHOT, SHARED, ALONE, TORCH = (
    "plain copy", "snapshot", "checkpoint", "checkpoint alone", "torch.save"
)  # fmt: skip


class SavesByTurns(Callback):
    """Saves the state in every way after each step; every other step is one beside which a checkpoint is written."""

    def __init__(self, guard: Guard, checkpoint: SaveCheckpoints, folder: Path, *, rounds: int) -> None:
        self.guard, self.checkpoint, self.folder, self.rounds = guard, checkpoint, folder, rounds
        self.timings: dict[str, Timing] = {}
        self.quiet, self.beside = Timing(), Timing()
        self.first_snapshot = 0.0
        self._stagers: dict[str, DefaultStager] = {}

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._step_since = clocks()

    def on_train_batch_end(self, trainer: Trainer, module: Any, *args: Any) -> None:
        round_, is_second = divmod(trainer.global_step - 1, 2)  # two steps a round; the first round warms up
        if round_:
            (self.beside if is_second else self.quiet).lap(self._step_since)
        self.checkpoint.wait(trainer)
        if is_second:
            return
        if not round_:
            self._prepare(trainer, module)
        ways = self._ways(trainer, module)
        for name in reversed(list(ways)) if round_ % 2 else list(ways):
            before, save, after = ways[name]
            before()
            since = clocks()
            save()
            timing = Timing()
            timing.lap(since)
            after()
            if round_:
                kept = self.timings.setdefault(name, Timing())
                kept.seconds += timing.seconds
                kept.cpu_seconds += timing.cpu_seconds
            elif name == SNAPSHOT:
                self.first_snapshot = timing.seconds[0]
                self._snapshot(trainer, module)  # the second buffers of the ring
        if round_ == self.rounds:
            trainer.should_stop = True
            for stager in self._stagers.values():
                stager.close()
        self._save(trainer)  # beside the next step

    def _prepare(self, trainer: Trainer, module: Any) -> None:
        self.guard.snapshots.every_n_steps = 1  # from here on taken when asked for, by the name of the step
        tensors = training_tensors(module, trainer.optimizers[0])
        self.guard.snapshots.forget_after(-1)
        self._flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
        self._kept = torch.zeros_like(self._flat, device="cpu", pin_memory=self._flat.is_cuda)
        if self._flat.is_cuda:
            self._stagers["DCP async_save, pinned"] = DefaultStager(StagingOptions(use_shared_memory=False))
        self._stagers["DCP async_save"] = DefaultStager(StagingOptions(False, False, False, False))

    def _ways(self, trainer: Trainer, module: Any) -> dict[str, tuple[Callable[[], object], ...]]:
        def nothing() -> None:
            pass

        state = {"weights": module.state_dict(), "optimizer": trainer.optimizers[0].state_dict()}
        path = self.folder / "peer"

        def remove() -> None:
            shutil.rmtree(path, ignore_errors=True)
            path.with_suffix(".pt").unlink(missing_ok=True)

        def saved() -> None:
            self.checkpoint.wait(trainer)

        ways: dict[str, tuple[Callable[[], object], ...]] = {
            YARDSTICK: (nothing, self._plain_copy, nothing),
            SNAPSHOT: (nothing, lambda: self._snapshot(trainer, module), nothing),
            SHARED: (lambda: self._snapshot(trainer, module), lambda: self._save(trainer), saved),
            ALONE: (lambda: self.guard.snapshots.forget_after(-1), lambda: self._save(trainer), saved),
            TORCH: (remove, lambda: torch.save(state, path.with_suffix(".pt")), remove),
        }
        for name, stager in self._stagers.items():
            futures: list[Any] = []

            def stage(stager: DefaultStager = stager, futures: list[Any] = futures) -> None:
                futures.append(dcp.async_save(state, checkpoint_id=path, async_stager=stager, no_dist=True))
                if hasattr(futures[-1], "staging_completion"):
                    futures[-1].staging_completion.result()

            def written(futures: list[Any] = futures) -> None:
                getattr(futures[-1], "upload_completion", futures[-1]).result()
                remove()

            ways[name] = (remove, stage, written)
        return ways

    def _plain_copy(self) -> None:
        self._kept.copy_(self._flat)

    def _snapshot(self, trainer: Trainer, module: Any) -> None:
        self.guard.points.take(trainer, module, self.guard.judge.host_state)
        self.guard.snapshots.wait()
        _synchronize()

    def _save(self, trainer: Trainer) -> None:
        self.checkpoint._saved_step = -1  # the same step, once more
        self.checkpoint.save(trainer)
        self.checkpoint.on_before_optimizer_step(trainer)
        _synchronize()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(report: Report, name: str, rounds: int) -> None:
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # the console's lines are made, not shown
        trainer = "trainer=single_gpu" if torch.cuda.is_available() else "trainer=cpu"
        run = compose_run(folder, *SHAPES[name], *RUN, trainer, f"max_steps={2 * (rounds + 2)}")
        assert run.guard is not None
        turns = SavesByTurns(run.guard, run.checkpoint, Path(folder), rounds=rounds)
        run.callbacks.append(turns)
        run.train(lambda *_: None, lambda _: None)
    copy = turns.timings[YARDSTICK]
    gigabytes = turns._flat.nbytes / 1e9
    rows: list[Row] = []
    for way, timing in turns.timings.items():
        row = {"way": way, "seconds": timing.median, "cpu s": median(timing.cpu_seconds)}
        rows.append(row | {"GB/s": gigabytes / timing.median, "copies": timing.ratio_to(copy)})
    rows.append({"way": "first snapshot", "seconds": turns.first_snapshot, "cpu s": None, "GB/s": None, "copies": None})
    title = f"saving: {run.model.num_parameters:,} parameters, {gigabytes:.2f} GB"
    report.add(f"{title}, {rounds} rounds: what the loop waits for", rows)
    beside: list[Row] = []
    for clock in ("seconds", "cpu_seconds"):
        quiet, written = (median(getattr(timing, clock)) for timing in (turns.quiet, turns.beside))
        beside.append({"clock": clock, "step s": quiet, "beside a write s": written, "costs s": written - quiet})
    report.add("a step of 64 tokens", beside)
    for way, peer, target in (
        (SNAPSHOT, YARDSTICK, SNAPSHOT_TARGET),
        (SHARED, YARDSTICK, CHECKPOINT_TARGET),
        (ALONE, YARDSTICK, CHECKPOINT_TARGET),
        *((SHARED, peer, None) for peer in (TORCH, *turns._stagers)),
    ):
        ours, theirs = turns.timings[way], turns.timings[peer]
        what = f"{way}, {name}"
        ratio = ours.ratio_to(theirs)
        report.judge(what, ours=ours.median, unit="s", peer=peer, theirs=theirs.median, ratio=ratio, at_most=target)


def main() -> None:
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--parameters", nargs="+", choices=SHAPES, default=["30M"], help="sizes (default 30M)")
    options = parser.parse_args()
    report = Report()
    for name in options.parameters:
        measure(report, name, options.rounds)
    report.write(options.json)


if __name__ == "__main__":
    main()
