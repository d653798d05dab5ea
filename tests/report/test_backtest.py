"""What hindsight calls a spike on made-up curves, and how alarms are scored against spikes."""

import math
from collections.abc import Container
from pathlib import Path
from typing import ClassVar

import pytest

from mulligan.report.backtest import Score, Span, find_spikes, given_spikes, in_steps, judge, recorded_spikes
from mulligan.report.curve import Curve
from mulligan.stability.ledger import Ledger
from tests.stability.test_detector import clean_curve


def curve(losses: list[float], first_step: int = 0, every: int = 1) -> Curve:
    return Curve([first_step + every * at for at in range(len(losses))], losses, None)


def raised(losses: list[float], start: int, stop: int, rise: float) -> list[float]:
    return [*losses[:start], *(loss + rise for loss in losses[start:stop]), *losses[stop:]]


def close(spans: list[Span], expected: list[tuple[int, int]], tolerance: int = 2) -> bool:
    return len(spans) == len(expected) and all(
        abs(edge - wanted) <= tolerance
        for span, pair in zip(spans, expected, strict=True)
        for edge, wanted in zip(span, pair, strict=True)
    )


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1, 0.3])
def test_a_falling_loss_with_noise_has_no_spike(noise: float) -> None:
    for seed in range(3):
        assert find_spikes(curve(list(clean_curve(5000, seed, noise)))) == []


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.1])
def test_a_rise_of_palms_size_is_found_where_it_is(noise: float) -> None:
    losses = raised(list(clean_curve(3000, 1, noise)), 2000, 2030, 0.4)
    assert close(find_spikes(curve(losses)), [(2000, 2030)])


def test_a_plateau_is_a_spike_to_the_end_and_a_spike_may_be_long() -> None:
    clean = list(clean_curve(3000, 2))
    assert close(find_spikes(curve(raised(clean, 2000, 3000, 1.0))), [(2000, 3000)])
    assert close(find_spikes(curve(raised(clean, 1500, 2500, 1.0))), [(1500, 2500)])


def test_each_value_that_is_not_finite_is_a_spike_and_lone_outliers_are_none() -> None:
    losses = list(clean_curve(2000, 3))
    losses[700], losses[1200], losses[1500] = math.nan, math.inf, 9.0
    assert find_spikes(curve(losses)) == [(700, 701), (1200, 1201)]
    assert find_spikes(curve([math.nan] * 30)) == [(0, 30)]


def test_a_rise_shorter_than_eight_points_or_lower_than_min_rise_is_none() -> None:
    flat = [2.5] * 500
    assert find_spikes(curve(raised(flat, 200, 207, 1.0))) == []
    assert find_spikes(curve(raised(flat, 200, 208, 1.0))) == [(200, 208)]
    assert find_spikes(curve(raised(flat, 200, 260, 0.3)), min_rise=0.31) == []
    assert find_spikes(curve(raised(flat, 200, 260, 0.3)), min_rise=0.29) == [(200, 260)]
    with pytest.raises(ValueError, match=r"min_rise=0\.0 must be a number above 0"):
        find_spikes(curve(flat), min_rise=0.0)


def test_given_spikes_are_half_open_ranges_of_steps() -> None:
    recorded = curve([2.5] * 40, first_step=25, every=25)
    assert given_spikes(recorded, [[100, 200], [1000, 1001]]) == [(3, 7), (39, 40)]
    assert in_steps(recorded, [Span(3, 7)]) == [[100, 176]]
    for wrong in ([200, 100], [100, 100], [100], [1, 2, 3]):
        with pytest.raises(ValueError, match=r"must be a range \[start, stop\] of steps"):
            given_spikes(recorded, [wrong])
    for outside in ([1001, 2000], [101, 125]):
        with pytest.raises(ValueError, match="holds no recorded step; the curve has 25 to 1000"):
            given_spikes(recorded, [outside])


class AlarmsAt:
    needs_norms: ClassVar[bool] = False

    def __init__(self, *steps: int) -> None:
        self.steps: Container[int] = steps

    def observe(self, step: int, loss: float, gradient_norm: float | None) -> bool:
        return step in self.steps


def scored(*steps: int) -> Score:
    score = judge(AlarmsAt(*steps), curve([2.5] * 500), [Span(100, 120), Span(300, 301)])
    assert score is not None
    return score


def test_the_first_alarm_in_a_spike_catches_it() -> None:
    score = scored(103, 104, 110, 301)
    assert (score.delays, score.median_delay, score.missed, score.false_alarms) == ([3, 1], 2.0, 0, 0)


def test_an_alarm_counts_until_five_points_after_the_spike() -> None:
    assert (scored(124).delays, scored(124).missed, scored(124).false_alarms) == ([24], 1, 0)
    assert (scored(125).delays, scored(125).missed, scored(125).false_alarms) == ([], 2, 1)
    assert (scored(99).missed, scored(99).median_delay) == (2, None)


def test_alarms_up_to_ten_points_apart_are_one() -> None:
    assert scored(200, 210, 220, 231).alarms == [(200, 221), (231, 232)]
    assert scored(200, 210, 220, 231).false_alarms == 2
    assert scored(200, 231).false_alarms_per_1000 == 4.0
    assert scored(99, 105, 120, 129).false_alarms == 0, "it touches the spike"


def test_points_under_alarm_outside_the_spikes_are_counted() -> None:
    assert scored(99, 105, 120, 129).alarmed_outside == 1 + (130 - 125)
    assert scored(*range(400, 500)).alarmed_outside == 100


def test_delays_are_steps_where_points_are_further_apart() -> None:
    score = judge(AlarmsAt(75), curve([2.5] * 40, every=25), [Span(2, 6)])
    assert score is not None
    assert score.delays == [25]


def test_a_rule_that_needs_norms_judges_no_curve_without() -> None:
    class NeedsNorms(AlarmsAt):
        needs_norms: ClassVar[bool] = True

    assert judge(NeedsNorms(1), curve([2.5] * 9), []) is None
    with_norms = judge(NeedsNorms(1), Curve([0, 1, 2], [2.5] * 3, [1.0] * 3), [])
    assert with_norms is not None
    assert with_norms.false_alarms == 1


def test_the_ledger_of_a_healed_run_knows_its_spikes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("withheld", attempt=5, step=5, judged_step=4)
    ledger.append("rewind", attempt=24, step=20, onset=18, target=10)
    assert recorded_spikes(ledger) == [[22, 25]]
