"""Which checkpoints stay, and which one a run goes on from."""

import shutil
from pathlib import Path

import pytest

from mulligan.files import read_json, remove, write_json
from mulligan.stability.ledger import Ledger
from mulligan.training.checkpoints import checkpoint_path, listed, newest_whole
from tests.training.conftest import MakeRun, silent
from tests.training.test_resume import CHECKPOINTS
from tests.training.test_rewind import WATCHED, sure_at

MILESTONES = ("checkpoint.milestone_every_n_steps=3",)


def test_a_broken_checkpoint_is_named_and_passed_over(make_run: MakeRun) -> None:
    whole = make_run().fit(silent, silent)
    with (CHECKPOINTS / "step_00000008.ckpt").open("r+b") as file:
        file.seek(2000)
        file.write(b"broken")
    (CHECKPOINTS / "step_00000010.ckpt").write_bytes(b"half")
    said: list[str] = []
    found = newest_whole(CHECKPOINTS, Ledger(Path("runs/default/ledger.jsonl")), said.append)
    assert found is not None
    assert found.step == 6
    assert "step_00000010.ckpt is passed over: it has no whole description" in said[0]
    assert "step_00000008.ckpt is passed over: its bytes differ" in said[1]
    resumed = make_run().fit(silent, silent)
    assert whole is not None
    assert resumed is not None
    assert resumed["weights_sha256"] == whole["weights_sha256"]


def test_a_first_checkpoint_that_was_whole_once_is_not_written_over(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, 2)
    path.write_bytes(b"half")
    assert newest_whole(tmp_path, Ledger(tmp_path / "ledger.jsonl"), silent) is None, "a kill while it was written"
    write_json(path.with_suffix(".json"), {"step": 2, "sha256": "of a whole one", "num_bytes": 8})
    with pytest.raises(ValueError, match=r"none of its checkpoints is whole \(step_00000002\.ckpt: its "):
        newest_whole(tmp_path, Ledger(tmp_path / "ledger.jsonl"), silent)


def test_last_two_and_milestones_stay(make_run: MakeRun) -> None:
    make_run("checkpoint.every_n_steps=1", "checkpoint.milestone_every_n_steps=3").train(silent, silent)
    assert sorted(path.name for path in CHECKPOINTS.glob("*.ckpt")) == [
        f"step_{step:08d}.ckpt" for step in (3, 6, 7, 8)
    ]


@pytest.mark.parametrize(("first", "then", "there"), [((), MILESTONES, [3, 6, 7, 8]), (MILESTONES, (), [3, 7, 8])])
def test_a_milestone_stays_whichever_start_wanted_it(
    make_run: MakeRun, first: tuple[str, ...], then: tuple[str, ...], there: list[int]
) -> None:
    make_run("checkpoint.every_n_steps=1", "max_steps=4", *first).train(silent, silent)
    make_run("checkpoint.every_n_steps=1", *then).train(silent, silent)
    assert [checkpoint.step for checkpoint in listed(CHECKPOINTS)] == there


def test_checkpoints_that_a_kill_left_behind_are_put_away(make_run: MakeRun) -> None:
    runs = [make_run(*WATCHED, "checkpoint.keep_abandoned=true") for _ in range(2)]
    sure_at(runs[0], onset=9, step=10)
    runs[0].train(silent, silent)
    folder = Path("runs/default/checkpoints")
    for suffix in (".ckpt", ".json"):
        shutil.copy(folder / f"abandoned/step_00000008_0{suffix}", folder / f"step_00000009{suffix}")
    for path in folder.glob("step_0000001*"):
        remove(path)
    description = read_json(folder / "step_00000009.json")
    write_json(folder / "step_00000009.json", description | {"step": 9})
    runs[1].train(silent, silent)
    assert not (folder / "step_00000009.ckpt").exists()
    assert (folder / "abandoned/step_00000009_0.ckpt").exists()


@pytest.mark.parametrize(("every_n_steps", "there"), [(10, [6, 10, 14]), (5, [5, 10, 14])])
def test_a_step_that_was_given_up_is_saved_when_it_comes_again(
    make_run: MakeRun, every_n_steps: int, there: list[int]
) -> None:
    """And the state that was gone back to, where the only checkpoint was given up."""
    run = make_run(*WATCHED, f"checkpoint.every_n_steps={every_n_steps}")
    sure_at(run, onset=9, step=10)
    run.train(silent, silent)
    assert [found.step for found in listed(Path("runs/default/checkpoints"))] == there
