"""SIGTERM, SLURM's USR1 and Ctrl-C: after a step that all ranks agree on, save and end with 143, or 130."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mulligan.distributed import all_reduce_sum, world_size

INTERRUPTED, TERMINATED = 130, 143  # 128 and the signal's number, as a shell reports it


class StopOnSigterm(Callback):
    def __init__(self, *, every_n_steps: int) -> None:
        """One process stops after the step at hand; several ask each other only every ``every_n_steps``."""
        self.every_n_steps = every_n_steps
        self.exit_code = TERMINATED
        self._received = False
        self._step = -1
        self._former_interrupt: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's handlers broadcast and save from wherever the signal meets a rank, which can hang, and its loop
        # broadcasts and waits for the device at every batch (its issue 21487). The names read in Lightning 2.6.6.
        connector, loop = trainer._signal_connector, trainer.fit_loop.epoch_loop
        assert hasattr(connector, "_sigterm_notifier_fn")
        assert hasattr(connector, "_slurm_sigusr_handler_fn")
        assert hasattr(loop, "_broadcast_sigterm_tensor")
        connector._sigterm_notifier_fn = self._notice  # type: ignore[method-assign]  # meant: it takes its place
        connector._slurm_sigusr_handler_fn = self._notice  # type: ignore[method-assign]  # meant: it would requeue too
        # No teardown follows an exception: a second fit finds our own handler there, and keeps what was before.
        if self._former_interrupt is None and threading.current_thread() is threading.main_thread():
            self._former_interrupt = signal.signal(signal.SIGINT, self._notice_interrupt)
        loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]  # meant as well

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore_interrupt()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if step == self._step:
            return  # in the middle of an accumulation window
        self._step = step
        if (world_size() == 1 or step % self.every_n_steps == 0) and self._received_by_any(pl_module.device):
            if trainer.is_global_zero:
                told = "Ctrl-C" if self.exit_code == INTERRUPTED else "SIGTERM"
                print(f"{told}: step {step} is being saved; the same command goes on from there", flush=True)
            raise SIGTERMException  # SaveCheckpoints sees it on its way

    @property
    def was_asked(self) -> bool:
        """Also behind the last step, where this process had nothing more to save."""
        return self._received

    def _notice(self, signum: int, _: FrameType | None) -> None:
        self._received = True

    def _notice_interrupt(self, signum: int, frame: FrameType | None) -> None:
        self.exit_code = INTERRUPTED
        self._notice(signum, frame)
        self._restore_interrupt()  # a second one ends at once

    def _restore_interrupt(self) -> None:
        if self._former_interrupt is not None:
            signal.signal(signal.SIGINT, self._former_interrupt)
            self._former_interrupt = None

    def _received_by_any(self, device: torch.device) -> bool:
        if world_size() == 1:
            return self._received
        return bool(all_reduce_sum(torch.tensor(float(self._received), device=device)))
