"""Means and what is taken of them."""

import math
import statistics

import pytest

from mulligan.evaluation.suites import Score, exp_score, mean_score

VALUES = [1.0, 4.0, 2.5, 3.0]


def test_a_mean_and_its_standard_error() -> None:
    score = mean_score(VALUES)
    assert score.value == pytest.approx(statistics.mean(VALUES))
    assert score.standard_error == pytest.approx(statistics.stdev(VALUES) / 2.0)
    assert mean_score([3.0]) == Score(3.0, None)


def test_exp_carries_the_error_by_its_slope() -> None:
    assert exp_score(Score(2.0, 0.1)) == Score(math.exp(2.0), pytest.approx(0.1 * math.exp(2.0)))
    assert exp_score(Score(math.nan)).value == exp_score(Score(1e4, 1.0)).value == math.inf
