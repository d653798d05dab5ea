"""What a checkpoint must agree with, and what today's config puts in the place of what it says."""

import math
from copy import deepcopy
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from mulligan.training.loss_scale import LossScale


def check_shapes(saved: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Raise ValueError where ``saved`` is of another model than ``own``."""
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    for name in sorted(shapes.keys() | saved.keys()):
        found = tuple(saved[name].shape) if name in saved else "nothing"
        if found != shapes.get(name, "nothing"):
            raise ValueError(
                f"the checkpoint holds another model ({name}: {found}, now {shapes.get(name, 'nothing')}): model.* "
                f"cannot change in a run; begin a run of another name"
            )


def take_loss_scale(checkpoint: dict[str, Any], loss_scale: LossScale | None) -> None:
    """After a change of the precision float16 begins with a fresh one, and the others have none."""
    own = {} if loss_scale is None else loss_scale.state_dict(prefix="loss_scale.")
    saved = checkpoint["state_dict"].items()
    kept = {name: tensor for name, tensor in saved if name in own or not name.startswith("loss_scale.")}
    checkpoint["state_dict"] = own | kept


def take_recipe(checkpoint: dict[str, Any], fresh: Optimizer, rate_factor: float) -> str | None:
    """PyTorch restores rates and decay from the checkpoint; those that today's config gives a ``fresh`` optimizer go
    before. Return what to say where a learning rate is another one then. Raise ValueError where that optimizer has
    other groups of parameters.
    """
    change = None
    for state in checkpoint["optimizer_states"]:
        saved, own = ([len(group["params"]) for group in one["param_groups"]] for one in (state, fresh.state_dict()))
        if saved != own:
            raise ValueError(
                f"the checkpoint's optimizer has groups of {saved} parameters, now {own}: bring the old optimizer "
                "back, or begin a run of another name"
            )
        for group, current in zip(state["param_groups"], fresh.param_groups, strict=True):
            before, rate = float(group["lr"]), current["lr"] * rate_factor
            if change is None and not math.isclose(before, rate, rel_tol=1e-6):
                change = f"the learning rate at step {checkpoint['global_step']} was {before:.3g} and is {rate:.3g} now"
            group |= _settings(current) | {"lr": rate, "initial_lr": current["lr"]}
    for state in checkpoint["lr_schedulers"]:
        state["base_lrs"] = [group["lr"] for group in fresh.param_groups]
    return change


def hold_settings(optimizer: Optimizer) -> None:
    """Have its updates raise ValueError where one changes what a group of parameters says, but for the rate: neither
    checkpoints, which give way to the config, nor snapshots keep that.
    """
    made = [deepcopy(_settings(group)) for group in optimizer.param_groups]
    for key, value in (pair for settings in made for pair in settings.items()):
        if isinstance(value, Tensor) and key != "lr":
            raise ValueError(f"optimizer: {key} of a parameter group is a tensor, and must be a plain value")

    def check(*_: Any) -> None:
        for number, (group, settings) in enumerate(zip(optimizer.param_groups, made, strict=True)):
            for key, value in settings.items():
                now = group.get(key)
                if key != "lr" and now is not value and (isinstance(now, Tensor) or now != value):
                    raise ValueError(
                        f"optimizer: its update has changed {key} of parameter group {number} from {value} to {now}, "
                        "which no snapshot and no resume keeps: it belongs in the state of a parameter"
                    )

    optimizer.register_step_post_hook(check)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def rescale_batch_progress(checkpoint: dict[str, Any], accumulation: int) -> None:
    """Lightning counts micro-batches: on another world size a step has another number of them."""
    if checkpoint["global_step"] == 0:  # of the start: Lightning takes it to be in the middle of a batch
        checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] = -1
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        unfinished = counts["processed"] - counts["completed"]  # 1 when saved from on_train_batch_end
        counts |= dict.fromkeys(("ready", "started", "processed"), checkpoint["global_step"] * accumulation)
        counts["completed"] = counts["processed"] - unfinished
