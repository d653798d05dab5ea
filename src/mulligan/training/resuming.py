"""What a checkpoint must agree with, and what today's config puts in the place of what it says."""

import math
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


def change_of_rate(checkpoint: dict[str, Any], factor: float, peak: float | None) -> str:
    """What to say behind the step where a run goes on at another learning rate than it had come to: ``factor`` of
    today's ``peak``, if that is known. Nothing where it is the same.
    """
    group = checkpoint["optimizer_states"][0]["param_groups"][0]
    before, rate = float(group["lr"]), factor * (group["initial_lr"] if peak is None else peak)
    is_same = math.isclose(before, rate, rel_tol=1e-6)
    return "" if is_same else f"; the learning rate at this step was {before:.3g} and is {rate:.3g} now"


def take_recipe(checkpoint: dict[str, Any], fresh: Optimizer, rate_factor: float) -> None:
    """PyTorch restores rates and decay from the checkpoint; those that today's config gives a ``fresh`` optimizer go
    before. Raise ValueError where that has other groups of parameters.
    """
    for state in checkpoint["optimizer_states"]:
        saved, own = ([len(group["params"]) for group in one["param_groups"]] for one in (state, fresh.state_dict()))
        if saved != own:
            raise ValueError(
                f"the checkpoint's optimizer has groups of {saved} parameters, now {own}: bring the old optimizer "
                "back, or begin a run of another name"
            )
        for group, current in zip(state["param_groups"], fresh.param_groups, strict=True):
            group |= _settings(current) | {"lr": current["lr"] * rate_factor, "initial_lr": current["lr"]}
    for state in checkpoint["lr_schedulers"]:
        state["base_lrs"] = [group["lr"] for group in fresh.param_groups]


def hold_settings(optimizer: Optimizer) -> None:
    """Have its updates raise ValueError where one changes what a group of parameters says, but for the rate: neither
    checkpoints, which give way to the config, nor snapshots keep that.
    """
    made = [_settings(group) for group in optimizer.param_groups]

    def check(*_: Any) -> None:
        for number, (group, settings) in enumerate(zip(optimizer.param_groups, made, strict=True)):
            for key, value in settings.items():
                if key != "lr" and group[key] is not value and group[key] != value:
                    raise ValueError(
                        f"optimizer: its update has changed {key} of parameter group {number} from {value} to "
                        f"{group[key]}, which no snapshot and no resume keeps: it belongs in the state of a parameter"
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
