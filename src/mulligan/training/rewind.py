"""Go back to an earlier step inside the running fit, at the end of a batch.

This file, lean_loop.py and callbacks/preemption.py alone touch Lightning's private members, read in Lightning 2.6.6.
Every counter of its loops is a function of the step and the accumulation, so none is kept: they are written anew. No
random state is kept either, since it is a function of the place in the run.
"""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mulligan.model.parts import local


def training_tensors(module: LightningModule, optimizer: Optimizer) -> dict[str, Tensor]:
    """Every tensor that an update changes, this rank's part of it, by name: weights and the optimizer's state."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    tensors = {name: local(parameter) for parameter, name in names.items()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"{names[parameter]}.{key}": local(value) for key, value in state.items()}
    return tensors


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
    fetcher.fetched += batches


def _set(counts: Any, **numbers: int) -> None:
    for name, number in numbers.items():
        assert hasattr(counts, name), f"Lightning has renamed {name}"
        setattr(counts, name, number)
