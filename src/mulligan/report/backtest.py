"""What a detector would have caught, missed and falsely raised on a recorded curve.

Positions count recorded points; they are steps where every step was recorded.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import NamedTuple

from mulligan.report.curve import Curve
from mulligan.stability.detector import MAD_TO_DEVIATION
from mulligan.stability.ledger import Ledger
from mulligan.stability.rules import Rule

APART = 10  # points: what is no further apart is one alarm, or one spike
GRACE = 5  # points after a spike in which an alarm still counts for it
SHORTEST = 8  # points: a rise that does not last so long is noise
NOISE_WIDTH = 3.0  # in deviations: the level, a median of 15, wanders by 2 of them over ten thousand points


class Span(NamedTuple):
    """Half-open positions."""

    start: int
    stop: int


class Score(NamedTuple):
    """``delays``: steps from the start of each caught spike to the first alarm in it. ``alarmed_outside``: points that
    alarms cover beside the spikes, so that an alarm that never ends does not count as one.
    """

    alarms: list[Span]
    delays: list[int]
    missed: int
    false_alarms: int
    alarmed_outside: int
    num_points: int

    @property
    def median_delay(self) -> float | None:
        return median(self.delays) if self.delays else None

    @property
    def false_alarms_per_1000(self) -> float:
        return 1000.0 * self.false_alarms / self.num_points


def find_spikes(curve: Curve, *, min_rise: float = 0.2) -> list[Span]:
    """The spikes that hindsight sees.

    The level of a point is the median of the 15 points around it, 7 of them after it, so what lasts less than 8 is
    not in it. A spike is where the level lies ``min_rise`` nats, and three deviations of the curve's own noise, above
    the lowest level before; it ends when the level is back below that, and not before the end if it never is. Every
    value that is not finite is a spike.
    """
    if not 0.0 < min_rise < math.inf:
        raise ValueError(f"min_rise={min_rise} must be a number above 0")
    heights = [loss if math.isfinite(loss) else math.inf for loss in curve.losses]
    reach = SHORTEST - 1
    levels = [median(heights[max(0, at - reach) : at + reach + 1]) for at in range(len(heights))]
    around = [abs(loss - level) for loss, level in zip(heights, levels, strict=True) if loss < math.inf > level]
    noise = MAD_TO_DEVIATION * median(around) if around else 0.0
    rise = max(min_rise, NOISE_WIDTH * noise)
    lowest = accumulate(levels, min)
    return _spans(
        [height == math.inf or level - low >= rise for height, level, low in zip(heights, levels, lowest, strict=True)]
    )


def given_spikes(curve: Curve, spikes: Sequence[Sequence[int]]) -> list[Span]:
    """The positions of half-open ranges of steps, each of which must hold a recorded point."""
    spans = []
    for spike in spikes:
        if len(spike) != 2 or spike[0] >= spike[1]:
            raise ValueError(f"spikes: {list(spike)} must be a range [start, stop] of steps with start below stop")
        span = Span(*(bisect_left(curve.steps, step) for step in spike))
        if span.start == span.stop:
            raise ValueError(
                f"spikes: {list(spike)} holds no recorded step; the curve has {curve.steps[0]} to {curve.steps[-1]}"
            )
        spans.append(span)
    return spans


def recorded_spikes(ledger: Ledger) -> list[list[int]]:
    """Attempts from the onset to the last before each rewind: of these hindsight sees too little."""
    return [
        [entry["attempt"] - (entry["step"] - entry["onset"]), entry["attempt"] + 1]
        for entry in ledger.entries
        if "onset" in entry
    ]


def judge(rule: Rule, curve: Curve, spikes: Sequence[Span]) -> Score | None:
    """Run a fresh ``rule`` over the curve; None where it needs gradient norms and there are none.

    A spike is caught by an alarm in it or up to 5 points after. Alarms up to 10 points apart are one, which is false
    when it touches no spike.
    """
    if rule.needs_norms and curve.norms is None:
        return None
    norms: Sequence[float | None] = [None] * len(curve.steps) if curve.norms is None else curve.norms
    raised = [rule.observe(*point) for point in zip(curve.steps, curve.losses, norms, strict=True)]
    alarms, counted = _spans(raised), [Span(spike.start, spike.stop + GRACE) for spike in spikes]
    covered = _positions(counted)
    first = [next((at for at in range(*span) if at < len(raised) and raised[at]), None) for span in counted]
    return Score(
        alarms=alarms,
        delays=[
            curve.steps[at] - curve.steps[span.start] for at, span in zip(first, counted, strict=True) if at is not None
        ],
        missed=first.count(None),
        false_alarms=sum(covered.isdisjoint(range(*alarm)) for alarm in alarms),
        alarmed_outside=len(_positions(alarms) - covered),
        num_points=len(raised),
    )


def in_steps(curve: Curve, spans: Sequence[Span]) -> list[list[int]]:
    """The spans as half-open ranges of steps."""
    return [[curve.steps[span.start], curve.steps[span.stop - 1] + 1] for span in spans]


def _spans(flags: Sequence[bool]) -> list[Span]:
    spans: list[Span] = []
    for at, flag in enumerate(flags):
        if flag and spans and at - spans[-1].stop < APART:
            spans[-1] = Span(spans[-1].start, at + 1)
        elif flag:
            spans.append(Span(at, at + 1))
    return spans


def _positions(spans: Sequence[Span]) -> set[int]:
    return {at for span in spans for at in range(*span)}
