"""The repetition filter against its definition: some span of 1 to 13 tokens stands 32 times in a row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulligan.data.repetition import MIN_REPEATS, has_repeated_span, worst_repetition

TOKENS = st.integers(0, 2)


def by_definition(tokens: list[int]) -> bool:
    return any(
        tokens[start : start + 31 * span] == tokens[start + span : start + 32 * span]
        for span in range(1, 14)
        for start in range(len(tokens) - 32 * span + 1)
    )


def found(tokens: list[int]) -> bool:
    return has_repeated_span(np.array(tokens, dtype=np.uint32))


@given(
    before=st.lists(TOKENS, max_size=30),
    span=st.lists(TOKENS, min_size=1, max_size=15),
    repeats=st.integers(29, 34),
    part=st.integers(0, 14),
    after=st.lists(TOKENS, max_size=30),
)
def test_agrees_with_the_definition(
    before: list[int], span: list[int], repeats: int, part: int, after: list[int]
) -> None:
    tokens = before + span * repeats + span[:part] + after
    assert found(tokens) == by_definition(tokens) == (worst_repetition(np.array(tokens)).repeats >= MIN_REPEATS)


@given(length=st.integers(1, 13), before=st.integers(0, 900), after=st.integers(0, 900))
def test_the_edge_lies_between_31_and_32_repeats_wherever_the_span_stands(length: int, before: int, after: int) -> None:
    unique = list(range(100, 100 + before + after))
    span = list(range(length))
    for repeats, expected in ((31, False), (32, True)):
        assert found(unique[:before] + span * repeats + unique[before:]) is expected


def test_a_longer_span_and_a_broken_row_do_not_count() -> None:
    assert not found(list(range(14)) * 40)
    assert not found([7] * 31 + [8] + [7] * 31)


@pytest.mark.parametrize("length", [0, 1, 2, 31])
def test_short_documents_pass(length: int) -> None:
    assert not found([5] * length)


@pytest.mark.parametrize(
    ("tokens", "worst"),
    [
        ([1, 2, 3], (0, 1, 1)),
        ([4, 1, 2, 1, 2, 1, 2, 1, 9, 9], (1, 2, 3)),
        ([5, 5, 1, 2, 3, 1, 2, 3], (2, 3, 2)),
        ([*range(13), *range(13)], (0, 13, 2)),
        ([7] * 5, (0, 1, 5)),
        ([], (0, 1, 1)),
    ],
)
def test_the_worst_repetition_stands_most_often_in_a_row(tokens: list[int], worst: tuple[int, int, int]) -> None:
    assert worst_repetition(np.array(tokens, dtype=np.int64)) == worst
