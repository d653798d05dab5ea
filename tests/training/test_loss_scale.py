"""float16: the loss scale finds its size by itself, and its overflows are nobody else's business."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mulligan.stability.ledger import Ledger
from mulligan.training import loss_scale
from mulligan.training.checkpoints import load_checkpoint
from mulligan.training.faults import ScaledGradient
from mulligan.training.loss_scale import LossScale
from tests.conftest import Cli
from tests.training.conftest import MakeRun, silent
from tests.training.test_resume import assert_same, interrupted

HALF = ("precision=16-mixed", "checkpoint.every_n_steps=1", "checkpoint.keep_last=20")
START = 2.0**16


def saved(step: int, folder: str | Path = "runs/default") -> dict[str, Any]:
    return load_checkpoint(Path(folder, f"checkpoints/step_{step:08d}.ckpt"))


def scale_of(checkpoint: dict[str, Any]) -> tuple[float, int]:
    return checkpoint["state_dict"]["loss_scale.scale"].item(), checkpoint["state_dict"]["loss_scale.good_steps"].item()


def assert_moved_nothing(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, tensor in before["state_dict"].items():
        assert name.startswith("loss_scale.") or tensor.equal(after["state_dict"][name]), name
    assert_same(before["optimizer_states"][0]["state"], after["optimizer_states"][0]["state"])


def test_it_grows_after_so_many_good_steps_and_is_halved_down_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 3)
    scale, good, bad = LossScale(start=2.0), torch.tensor(1.0), torch.tensor(math.inf)
    seen = []
    for norm in (good, good, bad, bad, good, good, good, good):
        scale.update(norm, good)
        seen.append((scale.scale.item(), scale.good_steps.item()))
    assert seen == [(2.0, 1), (2.0, 2), (1.0, 0), (1.0, 1), (1.0, 2), (2.0, 0), (2.0, 1), (2.0, 2)]


@pytest.mark.parametrize("stability", ["heal", "none"])
def test_an_overflow_halves_the_scale_moves_nothing_and_is_no_intervention(make_run: MakeRun, stability: str) -> None:
    run = make_run(*HALF, f"stability={stability}")
    run.callbacks.append(ScaledGradient(at_step=4, factor=1e38))
    said: list[str] = []
    run.train(silent, said.append)
    assert [scale_of(saved(step)) for step in (3, 4, 8)] == [(START, 3), (START / 2, 0), (START / 2, 4)]
    assert_moved_nothing(saved(3), saved(4))
    assert not saved(4)["state_dict"]["model.embedding.weight"].equal(saved(5)["state_dict"]["model.embedding.weight"])
    assert (said, Ledger(Path("runs/default/ledger.jsonl")).entries) == ([], [])
    rows = list(csv.DictReader(Path("runs/default/metrics/version_0/metrics.csv").read_text().splitlines()))
    assert [float(row["loss_scale"]) for row in rows if row["loss"]] == [START] * 3 + [START / 2] * 5
    if run.guard is not None:
        state = run.guard.detector.state_dict()
        assert (len(state["losses"]), len(state["norms"])) == (8, 7)
        assert all(math.isfinite(norm) for norm in state["norms"])


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu_ddp", "cpu_fsdp"])
def test_one_ranks_overflow_is_that_of_all(mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path, trainer: str) -> None:
    fault = ("_target_=mulligan.training.faults.ScaledGradient", "at_step=4", "rank=1", "factor=1e38")
    added = (f"+callbacks.fault.{key}" for key in fault)
    done = mulligan("train", *tiny, *HALF, f"trainer={trainer}", "max_steps=5", *added)
    assert done.returncode == 0, done.stderr
    states = [saved(step, tmp_path / "runs/default") for step in (3, 4, 5)]
    assert [scale_of(state) for state in states] == [(START, 3), (START / 2, 0), (START / 2, 1)]
    assert_moved_nothing(*states[:2])
    assert all(tensor.isfinite().all() for tensor in states[2]["state_dict"].values())  # what both ranks go on with
    assert not Ledger(tmp_path / "runs/default/ledger.jsonl").entries


def test_stopped_it_goes_on_with_the_same_bits_and_scale(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "GROWTH_INTERVAL", 3)
    make_run(*HALF, "name=whole").train(silent, silent)
    interrupted(make_run, 5, *HALF)
    make_run(*HALF).train(silent, silent)
    assert scale_of(saved(8)) == (START * 4, 2)
    assert_same(saved(8, "runs/whole"), saved(8))


def test_under_another_precision_it_begins_afresh_or_ends(make_run: MakeRun) -> None:
    make_run(*HALF, "max_steps=2").train(silent, silent)
    make_run(*HALF, "max_steps=4", "precision=32-true").train(silent, silent)
    assert not [name for name in saved(4)["state_dict"] if name.startswith("loss_scale.")]
    make_run(*HALF, "max_steps=6").train(silent, silent)
    assert scale_of(saved(6)) == (START, 2)


def test_losses_are_those_of_float32(make_run: MakeRun) -> None:
    losses = []
    for precision in ("32-true", "16-mixed"):
        make_run(
            "max_steps=30", "optimizer.lr=1e-3", f"precision={precision}", f"name={precision}", "model.vocab_size=1200"
        ).train(silent, silent)
        text = Path(f"runs/{precision}/metrics/version_0/metrics.csv").read_text()
        losses.append([float(row["loss"]) for row in csv.DictReader(text.splitlines()) if row["loss"]])
    assert losses[0][-1] < losses[0][0] - 0.1
    assert losses[1][:10] == pytest.approx(losses[0][:10], rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)  # the difference grows; which data it is follows the folder
    assert losses[1] != losses[0]
