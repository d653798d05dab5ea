"""The band found again is the one that the run's own detector had."""

import math
import random
from pathlib import Path

import pytest

from mulligan.report.band import band_of
from mulligan.report.metrics import Column
from mulligan.stability.detector import Detector
from mulligan.stability.ledger import Ledger

RNG = random.Random(0)
LOSSES = [3.0 + RNG.gauss(0.0, 0.05) + 5.0 * (at >= 40) for at in range(44)]
AGAIN = [3.0 + RNG.gauss(0.0, 0.05) for _ in range(30)]


def detector() -> Detector:
    return Detector(window=16, warmup_steps=4)


def test_after_a_rewind_the_detector_is_what_it_was_then(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(
        "rewind", attempt=45, step=45, judged_step=44, target=30, skip=[0, 1], rate_factor=1.0, rate_steps=0
    )  # fmt: skip
    live, wanted = detector(), []
    for step, loss in enumerate(LOSSES, 1):
        if step == 31:
            state = live.state_dict()
        wanted.append(live.observe(step, loss, 1.0))
    live.load_state_dict(state)
    again = [live.observe(step, loss, 1.0) for step, loss in enumerate(AGAIN, 31)]
    attempts = [*range(1, 45), *range(46, 76)]  # the one in which it went back is not logged
    band = band_of(detector(), Column(attempts, [*LOSSES, *AGAIN]), ledger)
    assert band is not None
    assert band.attempts == list(range(1, 76))
    assert math.isnan(band.limits[44])
    assert (band.centres[43], band.limits[43]) == (wanted[-1].centre, wanted[-1].limit)
    assert band.centres[45:] == [judgement.centre for judgement in again]
    assert band.limits[45:] == [judgement.limit for judgement in again]


@pytest.mark.parametrize("attempts", [[25, 50, 75], [1, 2, 4]])
def test_without_every_judged_loss_there_is_none(attempts: list[int], tmp_path: Path) -> None:
    assert band_of(detector(), Column(attempts, [3.0] * 3), Ledger(tmp_path / "none.jsonl")) is None
