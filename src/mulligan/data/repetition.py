"""OLMo 2's filter for documents that make a loss spike: a short span of tokens repeated many times in a row."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_SPAN = 13
MIN_REPEATS = 32


class Repetition(NamedTuple):
    """From token ``start`` on, a span of ``length`` tokens stands ``repeats`` times in a row."""

    start: int
    length: int
    repeats: int


def has_repeated_span(tokens: NDArray[np.uint32]) -> bool:
    """True if some span of 1 to 13 tokens stands 32 times or more in a row (OLMo 2, 2025, section 3.1).

    A span of p tokens repeated r times makes p(r - 1) neighbours with x[i] == x[i + p]: two in a row of any indices
    that lie half of that apart. So only those are looked at, and where two in a row agree, all around them.
    """
    for span in range(1, MAX_SPAN + 1):
        needed = span * (MIN_REPEATS - 1)
        apart = needed // 2
        agree = tokens[: max(0, len(tokens) - span) : apart] == tokens[span::apart]
        for first in (apart * np.flatnonzero(agree[:-1] & agree[1:])).tolist():
            start, stop = max(0, first - needed + 1), min(len(tokens) - span, first + needed)
            equal = tokens[start:stop] == tokens[start + span : stop + span]
            breaks = np.flatnonzero(np.concatenate(([True], ~equal, [True])))
            if np.diff(breaks).max() > needed:
                return True
    return False


def worst_repetition(tokens: NDArray[np.integer]) -> Repetition:
    """The span of 1 to 13 tokens that stands most often in a row, the longest of several; without any, one token."""
    worst = Repetition(0, 1, 1)
    for length in range(1, MAX_SPAN + 1):
        equal = tokens[:-length] == tokens[length:]
        breaks = np.flatnonzero(np.concatenate(([True], ~equal, [True])))
        runs = np.diff(breaks) - 1
        repeats = int(runs.max()) // length + 1
        if repeats >= max(2, worst.repeats):
            worst = Repetition(int(breaks[runs.argmax()]), length, repeats)
    return worst
