"""Save the run every so many steps and at its end, beside training; keep the last few and the milestones."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mulligan.distributed import barrier, patient_group
from mulligan.files import read_json, remove_temporaries
from mulligan.stability.ledger import Ledger
from mulligan.training.checkpoint_io import AtomicCheckpointIO, Lent
from mulligan.training.checkpoints import Checkpoint, checkpoint_path, listed
from mulligan.training.event_logger import event_loggers

WRITE_TIMEOUT = timedelta(hours=6)  # for a rank to write all that it has, or to evaluate it, while the others wait


class SaveCheckpoints(Callback):
    def __init__(
        self,
        *,
        folder: str,
        every_n_steps: int,
        keep_last: int = 2,
        milestone_every_n_steps: int | None = None,
        keep_abandoned: bool = False,
    ) -> None:
        """``keep_last`` newest ones stay, and for ever those at multiples of ``milestone_every_n_steps``.

        With ``keep_abandoned`` those of a lineage that a rewind gave up are moved to ``abandoned/`` instead of removed.
        """
        if every_n_steps < 1:
            raise ValueError(f"checkpoint.every_n_steps={every_n_steps} must be at least 1")
        if keep_last < 1:
            raise ValueError(f"checkpoint.keep_last={keep_last} must be at least 1, or there is nothing to resume from")
        if milestone_every_n_steps is not None and (
            milestone_every_n_steps < 1 or milestone_every_n_steps % every_n_steps
        ):
            raise ValueError(
                f"checkpoint.milestone_every_n_steps={milestone_every_n_steps} must be a multiple of "
                f"checkpoint.every_n_steps={every_n_steps}"
            )
        self.folder, self.every_n_steps, self.keep_last = Path(folder), every_n_steps, keep_last
        self.milestone_every_n_steps, self.keep_abandoned = milestone_every_n_steps, keep_abandoned
        self._saved_step = -1
        self._everyone: Any = None  # all ranks, where there are several

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero and self.folder.is_dir():
            remove_temporaries(self.folder)  # before any rank writes: a barrier follows this hook

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step  # the one it was restored from
        if trainer.is_global_zero:
            for found in listed(self.folder):
                if _ledger(trainer).abandons(found.step, found.ledger_lines):  # a kill came first
                    self._put_away(trainer, found)

    def on_before_optimizer_step(self, trainer: Trainer, *args: Any) -> None:
        _io(trainer).copies.wait()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)
        self.wait(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):  # raised on every rank after the same batch
            self.save(trainer)
            self.wait(trainer)
        elif not isinstance(exception, KeyboardInterrupt):  # a second Ctrl-C, which ends at once
            _io(trainer).end()

    def borrow(self, trainer: Trainer, lend: Callable[[], Lent | None]) -> None:
        """Write from what ``lend`` returns, where that is not None, and make no copy of the state then."""
        _io(trainer).lend = lend

    def abandon_after(self, trainer: Trainer, step: int) -> None:
        """Put away what lies after ``step``: no resume may find it, and new files take its names."""
        self.wait(trainer)
        is_there = trainer.strategy.broadcast(checkpoint_path(self.folder, step).exists())  # all save, or none
        self._saved_step = step if is_there else -1
        if not trainer.is_global_zero:
            return
        for found in listed(self.folder):
            if found.step > step:
                self._put_away(trainer, found)

    def save(self, trainer: Trainer, *, also_the_start: bool = False) -> None:
        """Copy the state and begin to write it. What went wrong with the one before is raised here, or by ``wait``."""
        step = trainer.global_step
        if step == self._saved_step or (step == 0 and not also_the_start):
            return
        self.wait(trainer)  # for the one before, which rank zero may be at when the others meet for this one
        options = {"milestone": self._is_milestone(step), "ledger_lines": len(_ledger(trainer).lines)}
        trainer.save_checkpoint(checkpoint_path(self.folder, step), storage_options=options)
        self._saved_step = step
        if trainer.is_global_zero:
            _io(trainer).background.then(partial(self._tell, trainer, step))
            _io(trainer).background.then(partial(self._remove_old, trainer, step))

    def wait(self, trainer: Trainer) -> None:
        """Return on every rank when all are here and all that was saved is on disk."""
        if self._everyone is None:
            self._everyone = patient_group(WRITE_TIMEOUT)
        _io(trainer).wait()
        barrier(self._everyone)

    def _put_away(self, trainer: Trainer, found: Checkpoint) -> None:
        if not self.keep_abandoned:
            trainer.strategy.remove_checkpoint(found.path)
            return
        for path in (found.path, found.path.with_suffix(".json")):
            kept = self.folder / "abandoned" / f"{path.stem}_{found.ledger_lines}{path.suffix}"
            kept.parent.mkdir(exist_ok=True)
            path.replace(kept)

    def _tell(self, trainer: Trainer, step: int) -> None:
        path = checkpoint_path(self.folder, step)
        for logger in event_loggers(trainer.loggers):
            logger.note_checkpoint(path, read_json(path.with_suffix(".json")))

    def _remove_old(self, trainer: Trainer, step: int) -> None:
        # Milestones may be wanted since a later start than the one that saved it.
        ordinary = [
            found
            for found in listed(self.folder)
            if not found.milestone and not self._is_milestone(found.step) and found.step <= step
        ]
        for checkpoint in ordinary[: -self.keep_last]:
            trainer.strategy.remove_checkpoint(checkpoint.path)

    def _is_milestone(self, step: int) -> bool:
        return self.milestone_every_n_steps is not None and step % self.milestone_every_n_steps == 0


def _ledger(trainer: Trainer) -> Ledger:
    ledger = trainer.lightning_module.ledger
    assert isinstance(ledger, Ledger)
    return ledger


def _io(trainer: Trainer) -> AtomicCheckpointIO:
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    return trainer.strategy.checkpoint_io
