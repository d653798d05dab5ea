"""Go back to an earlier step inside the running fit, at the end of a batch, or make ready to fit anew.

This file, lean_loop.py and callbacks/preemption.py alone touch Lightning's private members, read in Lightning 2.6.6.
Every counter of its loops is a function of the step and the accumulation, so none is kept: they are written anew. No
random state is kept either, since it is a function of the place in the run.
"""

from collections.abc import Container
from types import NoneType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mulligan.model.parts import local

_STATE_HOOKS = ("state_dict", "on_save_checkpoint")
_PLAIN = (int, float, str, NoneType)
_NOT_IN_PLACE = "snapshots do not hold it, set stability.way=refit"


def training_tensors(module: LightningModule, optimizer: Optimizer) -> dict[str, Tensor]:
    """Every tensor that an update changes, this rank's part of it, by name: weights and the optimizer's state."""
    names = _names(module)
    tensors = {name: local(parameter) for parameter, name in names.items()}
    for parameter, state in optimizer.state.items():
        kept = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        tensors |= {f"{names[parameter]}.{key}": local(value) for key, value in kept.items()}
    return tensors


def plain_state(module: LightningModule, optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """What the optimizer's state of each parameter, by name, has beside tensors. ValueError where a copy of a reference
    would not do.
    """
    names = _names(module)
    kept: dict[str, dict[str, Any]] = {}
    for parameter, state in optimizer.state.items():
        if parameter not in names:
            raise ValueError(f"optimizer has a state of {parameter!r}, which is no parameter: {_NOT_IN_PLACE}")
        kept[names[parameter]] = plain = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        for key, value in plain.items():
            if not isinstance(value, _PLAIN):
                raise ValueError(
                    f"optimizer keeps {key} of {names[parameter]} as a {type(value).__name__}, neither a tensor nor a "
                    f"number: {_NOT_IN_PLACE}"
                )
    return kept


def go_back_to_state(
    module: LightningModule, optimizer: Optimizer, kept: dict[str, dict[str, Any]], tensors: Container[str]
) -> None:
    """Undo what an update did to the state but to the contents of ``tensors``, which there were; what was made since
    goes, and is made anew as the first time.
    """
    names = _names(module)
    for parameter, state in optimizer.state.items():
        name = names[parameter]
        for key in [key for key in state if f"{name}.{key}" not in tensors]:
            del state[key]
        state |= kept.get(name, {})


def _names(module: LightningModule) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in module.named_parameters()}


def go_to_step(trainer: Trainer, step: int, accumulation: int) -> None:
    """Make the loops count as they did in this hook at the end of ``step``, and start the data anew from there.

    Called from ``on_train_batch_end``, whose batch Lightning counts as completed when the hooks are done.
    """
    loop = trainer.fit_loop.epoch_loop
    batches = step * accumulation
    for counts in (loop.batch_progress.total, loop.batch_progress.current):
        _set(counts, ready=batches, started=batches, processed=batches, completed=batches - 1)
    optimizer = loop.automatic_optimization.optim_progress.optimizer
    for progress in (optimizer.step, optimizer.zero_grad, loop.scheduler_progress):
        for counts in (progress.total, progress.current):
            _set(counts, **dict.fromkeys(vars(counts), step))
    loop._batches_that_stepped = step - 1  # raised behind the hooks
    assert hasattr(loop, "_skip_next_val"), "Lightning has renamed _skip_next_val"
    loop._skip_next_val = True  # of this batch, which counts as that of ``step`` now: it was validated there
    for config in trainer.lr_scheduler_configs:
        scheduler = config.scheduler
        assert isinstance(scheduler, LambdaLR)
        scheduler.last_epoch, scheduler._step_count = step, step + 1
        scheduler._last_lr = [
            rate * factor(step) for rate, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(scheduler.optimizer.param_groups, scheduler._last_lr, strict=True):
            group["lr"] = rate
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    fetcher.combined_loader.reset()  # ends the old workers before new ones start
    iter(fetcher)


def begin_anew(trainer: Trainer) -> None:
    """Give ``trainer`` loops that have counted nothing, as those of a new process: not all of a fit's state is in a
    checkpoint, and the start needs none.
    """
    old = trainer.fit_loop
    trainer.fit_loop = type(old)(trainer, min_epochs=old.min_epochs, max_epochs=old.max_epochs)
    trainer.fit_loop.epoch_loop = type(old.epoch_loop)(trainer, min_steps=old.min_steps, max_steps=old.max_steps)


def keeps_state(callback: Callback) -> bool:
    """Whether checkpoints hold something of it, which no snapshot does."""
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in _STATE_HOOKS)


def _set(counts: Any, **numbers: int) -> None:
    for name, number in numbers.items():
        assert hasattr(counts, name), f"Lightning has renamed {name}"
        setattr(counts, name, number)
