"""What Lightning's loop does at every batch for what no run here has, left out: it takes longer than what a run needs.

What is private was read in Lightning 2.6.6.
"""

from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import PassThroughProfiler

from mulligan.data.loader import MicroBatch

HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
PRIVATE = ("_on_before_batch_transfer", "_apply_batch_transfer_handler")
_NOTHING = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Lightning makes a context for every hook of every callback, some 60 a step: here it is always the same one."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # no generator
        return _NOTHING


class LeanModule(LightningModule):
    assert all(hasattr(LightningModule, name) for name in PRIVATE), f"Lightning has renamed one of {PRIVATE}"

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning notes the name of each hook here, 46 times a step, and torch first looks among parameters, buffers
        and modules, which takes 3 microseconds. What is in ``__dict__`` is none of them.
        """
        if (value is None or type(value) is str) and name in self.__dict__:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        return batch

    def _apply_batch_transfer_handler(
        self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0
    ) -> Any:
        """A batch's way to the device, without three hooks and a walk through it. It is a micro-batch or windows."""
        device = device or self.device
        if isinstance(batch, MicroBatch):
            return MicroBatch(batch.tokens_ST.to(device, non_blocking=True), batch.global_count)
        return batch.to(device, non_blocking=True)


def make_lean(trainer: Trainer, module: LeanModule) -> None:
    """Before ``fit``: Lightning then calls no hook that does nothing, reads the signature of ``training_step`` for no
    batch, and asks at none whether there is a validation.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set where mypy does not look
    for owner, base in ((module, LightningModule), *((callback, Callback) for callback in callbacks)):
        for hook in HOOKS:
            if getattr(getattr(owner, hook), "__func__", None) is getattr(base, hook):
                setattr(owner, hook, None)  # Lightning calls what is callable
    loop: Any = trainer.fit_loop.epoch_loop
    for name, replacement in (("_build_kwargs", _step_arguments), ("_should_check_val_epoch", lambda: True)):
        assert hasattr(loop, name), f"Lightning has renamed {name}"
        setattr(loop, name, replacement)


def _step_arguments(_: Any, batch: MicroBatch, batch_idx: int) -> OrderedDict[str, Any]:
    return OrderedDict(batch=batch, batch_idx=batch_idx)
