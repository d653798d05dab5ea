"""What a checkpoint must agree with, and what today's config puts in the place of what it says."""

import math
from typing import Any

from torch import Tensor

from mulligan.training.loss_scale import LossScale
from mulligan.training.optimizers import AdamWRecipe


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


def change_of_rate(checkpoint: dict[str, Any], rate: float) -> str:
    """What to say behind the step where a run goes on at another learning rate than it had come to; else nothing."""
    before = float(checkpoint["optimizer_states"][0]["param_groups"][0]["lr"])
    is_same = math.isclose(before, rate, rel_tol=1e-6)
    return "" if is_same else f"; the learning rate at this step was {before:.3g} and is {rate:.3g} now"


def take_recipe(checkpoint: dict[str, Any], recipe: AdamWRecipe, rate_factor: float) -> None:
    """PyTorch restores rates and decay from the checkpoint; a config that was changed on purpose goes before."""
    current = {"lr": recipe.lr * rate_factor, "initial_lr": recipe.lr, "betas": recipe.betas, "eps": recipe.eps}
    for state in checkpoint["optimizer_states"]:
        for group, weight_decay in zip(state["param_groups"], (recipe.weight_decay, 0.0), strict=True):
            group |= current | {"weight_decay": weight_decay}
    for state in checkpoint["lr_schedulers"]:
        state["base_lrs"] = [recipe.lr] * len(state["base_lrs"])


def rescale_batch_progress(checkpoint: dict[str, Any], accumulation: int) -> None:
    """Lightning counts micro-batches: on another world size a step has another number of them."""
    if checkpoint["global_step"] == 0:  # of the start: Lightning takes it to be in the middle of a batch
        checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] = -1
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        unfinished = counts["processed"] - counts["completed"]  # 1 when saved from on_train_batch_end
        counts |= dict.fromkeys(("ready", "started", "processed"), checkpoint["global_step"] * accumulation)
        counts["completed"] = counts["processed"] - unfinished
