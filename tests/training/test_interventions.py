"""What is written down and told of a spike names what gave it away."""

import math

import pytest

from mulligan.stability.detector import Judgement, Reason
from mulligan.training.interventions import circumstances, described
from mulligan.training.judging import Verdict


@pytest.mark.parametrize(
    ("trigger", "loss", "norm", "said"),
    [
        ("loss", 5.9124, 1.0, "loss 5.912"),
        ("gradient", 3.0, 812.4, "loss 3.000, gradient norm 812"),
        ("not finite", math.nan, 1.0, "loss not finite"),
        ("not finite", 3.0, math.inf, "loss 3.000 but a gradient norm that is not"),
    ],
)
def test_a_spike_in_words(trigger: Reason, loss: float, norm: float, said: str) -> None:
    judgement = Judgement(step=10, loss=loss, centre=3.0, limit=3.5, onset=9, triggered=trigger)
    verdict = Verdict(judgement, norm, is_withheld=trigger == "gradient", is_spike=True)
    assert described(verdict) == f"step 10: spike ({trigger}, from step 9 on, {said})"


def test_the_ledger_has_what_was_judged_and_by_which_limit() -> None:
    judgement = Judgement(step=10, loss=5.9, centre=3.0, limit=3.5, onset=9, triggered="loss")
    line = circumstances(judgement, step=11, attempt=14, gradient_norm=1.5, recent=[[9.0, 5.8, 1.2]], fingerprints={})
    told = {"step": 11, "judged_step": 10, "attempt": 14, "loss": 5.9, "centre": 3.0, "limit": 3.5}
    assert told.items() <= line.items()
