"""Whether what a run keeps reaches as far back as its guard may have to go, and holds all that it has to bring back."""

from typing import Literal

from lightning.pytorch import Callback

from mulligan.stability.policy import Policy
from mulligan.stability.snapshots import Snapshots
from mulligan.training.callbacks.checkpoint import SaveCheckpoints
from mulligan.training.rewind import keeps_state

Way = Literal["in_place", "refit", "watch"]


def check_snapshots(way: Way, policy: Policy, snapshots: Snapshots) -> None:
    if way == "in_place" and not snapshots.keep:
        raise ValueError("stability.snapshots.keep=0 leaves no state for stability.way=in_place: keep some, or refit")
    reach = (snapshots.keep - 1) * snapshots.every_n_steps  # right after one is taken
    if way == "in_place" and reach < policy.depth_steps:
        raise ValueError(
            f"stability.policy.depth_steps={policy.depth_steps} is further back than (stability.snapshots.keep "
            f"- 1) x every_n_steps={reach} reaches: keep more of them, or rewind less far"
        )


def check_checkpoints(way: Way, policy: Policy, checkpoint: SaveCheckpoints) -> None:
    """Raise ValueError where ``checkpoint`` keeps nothing as far back as fitting again has to go, or only the state
    that a run is resumed from.
    """
    if way != "watch" and checkpoint.milestone_every_n_steps is None and checkpoint.keep_last < 2:
        raise ValueError(
            f"checkpoint.keep_last=1 leaves a run that was stopped nothing to go back to with "
            f"stability.way={way}: keep 2 or more, or milestones"
        )
    reach = (checkpoint.keep_last - 1) * checkpoint.every_n_steps
    if way == "refit" and checkpoint.milestone_every_n_steps is None and reach < policy.depth_steps:
        raise ValueError(
            f"stability.policy.depth_steps={policy.depth_steps} is further back than (checkpoint.keep_last - "
            f"1) x every_n_steps={reach} reaches with stability.way=refit: keep more of them, or rewind less far"
        )


def check_callbacks(way: Way, callbacks: dict[str, Callback]) -> None:
    """Raise ValueError where one of them, by its key in the config, has a state that no snapshot holds."""
    for key, callback in callbacks.items():
        if way == "in_place" and keeps_state(callback):
            raise ValueError(
                f"callbacks.{key} ({type(callback).__name__}) keeps a state, which is in checkpoints and not in "
                "snapshots: set stability.way=refit"
            )
