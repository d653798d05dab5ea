"""The numbers of a draw against sums by hand."""

import math

import pytest
import torch

from mulligan.evaluation.explanation import explain
from mulligan.evaluation.rollout import Row
from mulligan.evaluation.sampler import Sampler


def row(logits: list[float], token: int, sampler: Sampler, **options: int) -> Row:
    made = Row([1], sampler, max_new_tokens=3, **options)
    made.draw(torch.tensor(logits))
    made.take(token)
    return made


def test_candidates_before_and_after_the_filters() -> None:
    logits = [math.log(share) for share in (0.1, 0.5, 0.25, 0.15)]
    one = explain(row(logits, 3, Sampler(top_k=2)), top=3)
    assert [candidate.token for candidate in one.candidates] == [1, 2, 3]
    assert [candidate.rank for candidate in one.candidates] == [1, 2, 3]
    assert [candidate.probability for candidate in one.candidates] == pytest.approx([0.5, 0.25, 0.15])
    assert [candidate.filtered for candidate in one.candidates] == pytest.approx([2 / 3, 1 / 3, 0.0])
    assert one.candidates[1].log_probability == pytest.approx(math.log(0.25))
    assert (one.drawn, one.num_left) == (3, 2)


def test_of_equal_tokens_the_choices_are_their_number() -> None:
    one = explain(row([0.0] * 8, 5, Sampler()), top=2)
    assert one.effective_choices == pytest.approx(8.0)
    assert one.entropy_bits == pytest.approx(3.0)
    assert one.candidates[-1].token == 5, "the drawn one is shown behind the likeliest"


def test_a_token_that_may_not_be_drawn_is_no_candidate() -> None:
    made = Row([1], Sampler(), max_new_tokens=3, allowed_V=torch.tensor([True, False, True]))
    made.draw(torch.tensor([0.0, 9.0, 0.0]))
    made.take(2)
    one = explain(made)
    assert {candidate.token for candidate in one.candidates} == {0, 2}
    assert one.effective_choices == pytest.approx(2.0)


def test_the_end_mark_is_explained_as_well() -> None:
    assert explain(row([0.0, 1.0, 2.0], 2, Sampler(), end_id=2)).drawn == 2
