"""The states that a run can go back to: snapshots in host memory, and checkpoints on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from mulligan.stability.ledger import Ledger
from mulligan.stability.snapshots import Snapshots
from mulligan.training.checkpoint_io import Lent
from mulligan.training.checkpoints import on_lineage
from mulligan.training.module import PretrainModule
from mulligan.training.rewind import go_back_to_state, go_to_step, plain_state, training_tensors


class RestorePoints:
    """``snapshots`` is None where a run keeps none; ``folder`` holds its checkpoints."""

    def __init__(self, *, snapshots: Snapshots | None, folder: Path, ledger: Ledger) -> None:
        self.snapshots, self.folder, self.ledger = snapshots, folder, ledger
        self._has_looked = False
        if snapshots is not None:
            snapshots.forget_after(-1)  # those of an earlier fit, which went back behind them

    def take(self, trainer: Trainer, module: PretrainModule, extra: Callable[[], dict[str, Any]]) -> None:
        """Copy the present state to memory, and what ``extra`` returns, every so many steps from the start on."""
        step, optimizer = trainer.global_step, trainer.optimizers[0]
        if self.snapshots is None:
            return
        if optimizer.state and not self._has_looked:  # after the first update: what cannot be kept is told then
            plain_state(module, optimizer)
            self._has_looked = True
        if step % self.snapshots.every_n_steps == 0:
            kept = extra() | {"optimizer": plain_state(module, optimizer)}
            self.snapshots.take(step, training_tensors(module, optimizer), kept)

    def lend(self, trainer: Trainer, module: PretrainModule) -> Lent | None:
        """The copy of the present state, if memory has it; ``is_lent`` is to be set back when it is read."""
        snapshot = None if self.snapshots is None else self.snapshots.newest(trainer.global_step)
        if snapshot is None or snapshot.step != trainer.global_step:
            return None
        snapshot.is_lent = True
        return Lent(snapshot, training_tensors(module, trainer.optimizers[0]))

    def find(self, trainer: Trainer, latest: int, onset: int) -> int | None:
        """The step to go back to, the same on every rank: of all good states the nearest to ``latest``.

        One that is not as deep counts as further away by the distance of two snapshots. The state right before the
        onset is not a good one: its loss was what rose there. A run can always begin anew, and may have to while there
        are not two checkpoints.
        """
        in_memory, between = ([], 0) if self.snapshots is None else (self.snapshots.steps, self.snapshots.every_n_steps)

        def distance(step: int) -> tuple[int, int]:
            return abs(step - latest) + (between if step > latest else 0), step

        on_disk = self.on_disk(trainer)
        start = [0] if len(on_disk) < 2 else []
        good = (step for step in (*in_memory, *on_disk, *start) if step < max(1, onset - 1))
        return min(good, key=distance, default=None)

    def on_disk(self, trainer: Trainer) -> list[int]:
        """Steps of the present lineage's checkpoints, the same on every rank."""
        return trainer.strategy.broadcast([found.step for found in on_lineage(self.folder, self.ledger)])

    def restore(self, trainer: Trainer, module: PretrainModule, step: int) -> dict[str, Any] | None:
        """Put the state of ``step`` in place, begin the data anew behind it, and return what was kept with it; None
        where memory does not have it.
        """
        snapshot = None if self.snapshots is None else self.snapshots.newest(step)
        if self.snapshots is None or snapshot is None or snapshot.step != step:
            return None
        optimizer = trainer.optimizers[0]
        go_back_to_state(module, optimizer, snapshot.extra["optimizer"], snapshot.tensors)
        self.snapshots.restore(snapshot, training_tensors(module, optimizer))
        go_to_step(trainer, step, module.accumulation)
        module.sums.forget()
        return snapshot.extra
