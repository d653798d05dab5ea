"""A run that learns nothing says so once, whatever keeps it from learning."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mulligan.training.callbacks import standstill
from mulligan.training.callbacks.standstill import Standstill, unigram_entropy
from tests.training.conftest import MakeRun, silent

SOON = 72  # steps


def test_the_entropy_of_frequencies() -> None:
    tokens = np.random.default_rng(0).zipf(1.5, size=(50, 20)) % 300
    shares = torch.from_numpy(np.bincount(tokens.ravel()) / tokens.size)
    assert unigram_entropy(tokens) == pytest.approx(torch.distributions.Categorical(shares).entropy().item())
    assert unigram_entropy(np.full((3, 4), 7)) == 0.0


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        pytest.param("2e-2", False, id="sane"),
        pytest.param("1e-7", True, id="low"),
        pytest.param("30", True, id="high", marks=pytest.mark.slow),
    ],
)
def test_a_rate_that_learns_nothing_is_told_once(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, rate: str, says: bool
) -> None:
    monkeypatch.setattr(standstill, "PATIENCE_STEPS", SOON)
    told: list[str] = []
    run = make_run(f"optimizer.lr={rate}", "max_steps=100", "log_every_n_steps=5", "stability=none")
    run.train(silent, told.append)
    found = [line for line in told if "only how often" in line]
    assert len(found) == says
    for line in found:
        assert re.match(rf"step 75: .*optimizer\.lr={float(rate):g} too high, or too low\?$", line)


@pytest.mark.parametrize(("first_step", "says"), [(309, True), (310, False)])
def test_a_run_that_goes_on_behind_the_place_has_looked(
    monkeypatch: pytest.MonkeyPatch, first_step: int, says: bool
) -> None:
    monkeypatch.setattr(standstill, "_sampled", lambda trainer: np.full((1, 8), 7))  # of no entropy
    told: list[str] = []
    metrics: Any = SimpleNamespace(latest={})
    callback = Standstill(metrics=metrics, warmup_steps=10, say=told.append)
    optimizer = SimpleNamespace(param_groups=[{"initial_lr": 1.0}])
    trainer: Any = SimpleNamespace(global_step=first_step, is_global_zero=True, optimizers=[optimizer], loggers=[])
    callback.on_train_start(trainer, None)
    trainer.global_step, metrics.latest = 320, {"cross_entropy": 9.0}
    callback.on_train_batch_end(trainer, None)
    assert bool(told) == says
