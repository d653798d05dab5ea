"""What a checkpoint says gives way to today's config where a run may change, and is refused where it may not."""

from pathlib import Path
from typing import Any

import pytest

from mulligan.files import read_json, sha256_file, write_json
from mulligan.training.checkpoints import load_checkpoint
from tests.training.conftest import MakeRun, silent
from tests.training.own_parts import NO_ADAMW, OWN
from tests.training.test_resume import CHECKPOINTS, assert_same, interrupted

RECIPE = ("optimizer.lr=5e-4", "optimizer.weight_decay=0.3", "optimizer.betas=[0.8,0.9]")


def test_a_recipe_that_was_changed_on_purpose_goes_before_the_saved_one(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("schedule=constant", "max_steps=4").train(silent, silent)
    run = make_run("schedule=constant", "max_steps=7", *RECIPE)
    groups: list[dict[str, Any]] = []

    def look(trainer: Any, *_: Any) -> None:
        groups.extend(dict(group) for group in trainer.optimizers[0].param_groups)

    monkeypatch.setattr(run.metrics, "on_train_batch_start", look)
    run.train(silent, silent)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0] * 3
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


def test_a_run_made_shorter_than_it_has_come_is_refused(make_run: MakeRun) -> None:
    make_run("max_steps=6").train(silent, silent)
    with pytest.raises(ValueError, match=r"at step 6, which lies behind the 4 steps asked for: .* export .* step=4 "):
        make_run("max_steps=4").train(silent, silent)


def test_a_change_of_the_rate_where_a_run_goes_on_is_told(make_run: MakeRun) -> None:
    """A share of a longer run is more steps of warm-up: 8 of 16 are not over at step 6."""
    said: list[str] = []
    keys = ("schedule=constant", "schedule.warmup=0.5", "optimizer.lr=1e-2")
    interrupted(make_run, 6, *keys)
    make_run(*keys).train(silent, said.append)
    assert not any("learning rate" in line for line in said)
    make_run(*keys, "max_steps=16", "schedule.warmup=0.75").train(silent, said.append)
    assert "the learning rate at step 8 was 0.01 and is 0.00692 now" in said


def test_other_data_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run().train(silent, silent)
    with pytest.raises(ValueError, match="the checkpoint was trained on data"):
        make_run("data.split_seed=5", f"data.folder={tmp_path}/other").train(silent, silent)


def test_a_checkpoint_that_holds_something_else_is_named(make_run: MakeRun) -> None:
    make_run().train(silent, silent)
    path = CHECKPOINTS / "step_00000008.ckpt"
    path.write_bytes(b"hello" * 100)
    description = read_json(path.with_suffix(".json"))
    write_json(path.with_suffix(".json"), description | {"sha256": sha256_file(path), "num_bytes": 500})
    with pytest.raises(ValueError, match=r"step_00000008\.ckpt is no checkpoint"):
        make_run().train(silent, silent)
