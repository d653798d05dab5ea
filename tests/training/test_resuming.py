"""What a checkpoint says gives way to today's config where a run may change."""

from pathlib import Path
from typing import Any

import pytest

from mulligan.training.checkpoints import load_checkpoint
from tests.training.conftest import MakeRun, silent
from tests.training.own_parts import NO_ADAMW, OWN
from tests.training.test_resume import CHECKPOINTS, assert_same, interrupted

RECIPE = ("optimizer.lr=5e-4", "optimizer.weight_decay=0.3", "optimizer.betas=[0.8,0.9]")


def test_a_recipe_that_was_changed_on_purpose_goes_before_the_saved_one(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("schedule=constant", "max_steps=4").train(silent, silent)
    run = make_run("schedule=constant", "max_steps=5", *RECIPE)
    groups: list[dict[str, Any]] = []

    def look(trainer: Any, *_: Any) -> None:
        groups.extend(dict(group) for group in trainer.optimizers[0].param_groups)

    monkeypatch.setattr(run.metrics, "on_train_batch_start", look)
    run.train(silent, silent)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all((group["lr"], group["betas"]) == (5e-4, (0.8, 0.9)) for group in groups)
    assert {group["initial_lr"] for group in groups} == {5e-4}  # what the schedule goes on from


@pytest.mark.parametrize("recipe", ["SlowRecipe", "OneGroupRecipe"])
def test_groups_of_an_own_optimizer_go_on_with_the_same_bits(make_run: MakeRun, recipe: str) -> None:
    own = (f"optimizer._target_={OWN}{recipe}", *NO_ADAMW)
    make_run("name=whole", *own).train(silent, silent)
    interrupted(make_run, 5, *own)
    make_run(*own).train(silent, silent)
    ended = (folder / "step_00000008.ckpt" for folder in (Path("runs/whole/checkpoints"), CHECKPOINTS))
    assert_same(*map(load_checkpoint, ended))


def test_other_groups_than_the_saved_ones_are_refused(make_run: MakeRun) -> None:
    make_run("max_steps=2", f"optimizer._target_={OWN}SlowRecipe", *NO_ADAMW).train(silent, silent)
    with pytest.raises(ValueError, match=r"has groups of \[1, 14, 9\] parameters, now \[24\]: bring the old optimizer"):
        make_run("max_steps=4", f"optimizer._target_={OWN}OneGroupRecipe", *NO_ADAMW).train(silent, silent)
