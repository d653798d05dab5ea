"""A run played again with its ledger meets no spike and gives the same bits; where it does not, it says where."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mulligan.cli.compose import build
from mulligan.cli.record import write_record
from mulligan.cli.replay import Replay
from mulligan.stability.ledger import Ledger
from mulligan.training.replay import first_difference
from mulligan.training.run import TrainingRun
from tests.training.conftest import Compose, silent
from tests.training.test_rewind import WATCHED, sure_at
from tests.training.train_and_spoil import Spoil

FOLDER = Path("runs/default")


def train_recorded(content: dict[str, Any], prepare: Callable[[TrainingRun], None] = lambda run: None) -> None:
    run: TrainingRun = build(content)
    prepare(run)
    run.train(silent, silent, lambda: write_record(FOLDER, content))


def replayed(tmp_path: Path) -> Replay:
    replay = Replay(run=str(FOLDER))
    again = tmp_path / "again"
    again.mkdir()
    replay.again(again).train(silent, silent)
    return replay


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_a_rewound_run_with_a_lone_bad_gradient_is_bit_identical(
    composed: Compose, tmp_path: Path, precision: str
) -> None:
    """The bad gradient at update 5 came from outside, and does not come again: the ledger alone leaves it out."""

    def spoil(run: TrainingRun) -> None:
        run.callbacks.append(Spoil(0, [5]))
        sure_at(run, onset=9, step=10)

    train_recorded(composed(*WATCHED, f"precision={precision}"), spoil)
    assert [entry["kind"] for entry in Ledger(FOLDER / "ledger.jsonl").entries] == ["withheld", "rewind"]
    comparison = replayed(tmp_path).comparison
    assert comparison.difference is None
    assert comparison.same == [2, 4, 6, 8, 10, 12, 14]


def test_a_run_from_before_a_key_is_played_with_its_default(composed: Compose, tmp_path: Path) -> None:
    content = composed("max_steps=2")
    train_recorded(content)
    write_record(FOLDER, {key: node for key, node in content.items() if key != "activation_checkpointing"})
    assert replayed(tmp_path).comparison.difference is None
    write_record(FOLDER, {key: node for key, node in content.items() if key != "seed"})
    with pytest.raises(ValueError, match="seed is not set"):  # no default can be right
        Replay(run=str(FOLDER)).again(tmp_path)


def test_the_ledger_alone_says_which_updates_were_left_out(composed: Compose, tmp_path: Path) -> None:
    """The guard that the config names by now, or none, was not there when they were."""
    content = composed(*WATCHED)
    train_recorded(content, lambda run: run.callbacks.append(Spoil(0, [5])))
    write_record(FOLDER, content | {"stability": None})
    assert replayed(tmp_path).comparison.difference is None
    detector = content["stability"]["detector"] | {"norm_ratio": 1.001, "window": 8}
    write_record(FOLDER, content | {"stability": content["stability"] | {"detector": detector}})
    shutil.rmtree(tmp_path / "again")
    assert replayed(tmp_path).comparison.difference is None


def test_a_ledger_that_was_changed_is_named(composed: Compose, tmp_path: Path) -> None:
    train_recorded(composed(*WATCHED), lambda run: run.callbacks.append(Spoil(0, [5])))
    path = FOLDER / "ledger.jsonl"
    path.write_text(path.read_text().replace('"judged_step": 5', '"judged_step": 6'))
    with pytest.raises(ValueError, match="has another line 1, which the checkpoint of step 6 has a copy of"):
        replayed(tmp_path)


def test_another_seed_differs_at_the_first_checkpoint(composed: Compose, tmp_path: Path) -> None:
    content = composed("max_steps=4")
    train_recorded(content)
    write_record(FOLDER, content | {"seed": 1})
    difference = replayed(tmp_path).comparison.difference
    assert difference is not None
    assert difference.startswith("step 2: state_dict.model.embedding.weight is off by up to 0.")


def test_the_first_difference_is_that_of_bits() -> None:
    def state(**changes: object) -> dict[str, object]:
        return {"a": [torch.tensor([1.0, float("nan")])], "b": torch.tensor(0.0), "n": 1} | changes

    assert first_difference(state(), state()) is None
    assert first_difference(state(), state(b=torch.tensor(-0.0))) == "b is off by up to 0"
    assert first_difference(state(), state(a=[torch.tensor([1.5, 0.0])], n=2)) == "a.0 is off by up to nan"
    assert first_difference(state(), state(n=2)) == "n is 2, was 1"
    assert first_difference(state(), state(m=2)) == "m is missing in the first run"
    assert first_difference(state(), state(b=torch.zeros(2))) == "b has shape (2,), had ()"


def test_a_run_without_checkpoints_cannot_be_compared(composed: Compose) -> None:
    train_recorded(composed(*WATCHED, "stability.way=refit", "max_steps=2"))
    last = FOLDER / "checkpoints/step_00000002.ckpt"
    whole = last.read_bytes()
    last.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"step_00000002\.ckpt is not whole, its bytes differ from their sha256"):
        Replay(run=str(FOLDER))
    last.unlink()
    last.with_suffix(".json").unlink()
    assert list((FOLDER / "checkpoints").glob("*.ckpt")), "that of the start is there, and says nothing"
    with pytest.raises(ValueError, match="holds no whole checkpoint of the run to compare with"):
        Replay(run=str(FOLDER))
