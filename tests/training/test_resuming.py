"""What a checkpoint says gives way to today's config where a run may change."""

from typing import Any

import pytest

from tests.training.conftest import MakeRun, silent

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
