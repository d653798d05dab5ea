"""Means and what is taken of them."""

import math
import statistics
from typing import Any

import pytest
import torch

from mulligan.evaluation.suites import Score, Subject, exp_score, mean_score, scores_of

VALUES = [1.0, 4.0, 2.5, 3.0]


def test_a_mean_and_its_standard_error() -> None:
    score = mean_score(VALUES)
    assert score.value == pytest.approx(statistics.mean(VALUES))
    assert score.standard_error == pytest.approx(statistics.stdev(VALUES) / 2.0)
    assert mean_score([3.0]) == Score(3.0, None)


def test_exp_carries_the_error_by_its_slope() -> None:
    assert exp_score(Score(2.0, 0.1)) == Score(math.exp(2.0), pytest.approx(0.1 * math.exp(2.0)))
    assert exp_score(Score(math.nan)).value == exp_score(Score(1e4, 1.0)).value == math.inf


class Own:
    """A suite of a user's."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def __call__(self, subject: Subject) -> Any:
        return self.found


def test_a_suite_may_return_bare_floats(subject: Subject) -> None:
    found = scores_of(Own({"loss": 0.5, "error": Score(2.0, 0.1), "texts": 3}), subject)
    assert found == {"loss": Score(0.5), "error": Score(2.0, 0.1), "texts": Score(3)}


@pytest.mark.parametrize("found", [{"loss": "low"}, {"loss": torch.tensor(0.5)}, None, [0.5]])
def test_a_suite_that_returns_something_else_is_told_what_to_return(found: Any, subject: Subject) -> None:
    with pytest.raises(ValueError, match=r"Own returned .*: it must return floats, or Scores, by name"):
        scores_of(Own(found), subject)
