"""What the detector holds of the past, on flat curves where its numbers are reckoned by hand."""

import math

import pytest

from mulligan.stability.detector import Detector
from tests.stability.test_detector import clean_curve, first_trigger, judged


def calm() -> Detector:
    """A window full of 3.0: the limit is 3.15, by ``min_rise``, and full counts begin at 3.45."""
    detector = Detector()
    judged(detector, [3.0] * 200)
    return detector


@pytest.mark.parametrize(("window", "warmup_steps", "quiet_steps"), [(16, 50, 50), (128, 10, 64)])
def test_during_warm_up_and_half_a_window_only_the_not_finite_triggers(
    window: int, warmup_steps: int, quiet_steps: int
) -> None:
    detector = Detector(window=window, warmup_steps=warmup_steps)
    quiet = judged(detector, [8.0 + step for step in range(quiet_steps)])
    assert first_trigger(quiet) is None
    assert all(math.isnan(judgement.limit) for judgement in quiet)
    assert detector.observe(quiet_steps + 1, math.nan, 1.0).triggered == "not finite"
    assert math.isfinite(detector.observe(quiet_steps + 2, 8.0, 1.0).limit)


def test_a_value_that_is_not_finite_keeps_the_onset_of_its_rise_alone() -> None:
    detector = calm()
    assert [judgement.onset for judgement in judged(detector, [4.0, math.nan, math.nan], 201)] == [201] * 3
    assert [judgement.onset for judgement in judged(Detector(), [math.nan, 3.0, math.nan])] == [1, None, 3]


def test_a_small_rise_takes_longer_to_be_sure_of() -> None:
    """0.16 above the limit, of 0.3 for a full count."""
    assert [one.triggered for one in judged(calm(), [3.31] * 6, 201)] == [None] * 5 + ["loss"]


def test_the_centre_is_the_median_of_the_newest_quarter() -> None:
    """Of 32 values 16 are new after 16 steps, and more than half after 17."""
    limits = [judgement.limit for judgement in judged(calm(), [2.0] * 40, 201)]
    assert limits == pytest.approx([3.15] * 16 + [2.65] + [2.15] * 23)


def test_the_end_of_a_fall_makes_no_wider_band() -> None:
    """In the fall the centre is late by the same each step, and by nothing behind it."""
    losses = [6.0 - 0.02 * min(step, 200) for step in range(280)]
    assert judged(Detector(), losses)[-1].limit == pytest.approx(2.15)


def test_where_a_rise_is_expected_the_slack_is_twice_until_the_centre_is_new() -> None:
    detector, resumed = calm(), Detector()
    detector.expect_a_rise()
    resumed.load_state_dict(detector.state_dict())
    for one in (detector, resumed):
        assert [found.limit for found in judged(one, [3.0] * 40, 201)] == pytest.approx([3.3] * 32 + [3.15] * 8)


def test_where_a_rise_is_expected_the_lowest_centre_is_forgotten() -> None:
    """From 2.9 the centre follows to 3.05, and from 3.0 to 3.15: 3.25 is a rise above the first alone."""
    detector = Detector()
    judged(detector, [2.9] * 200 + [3.0] * 200)
    detector.expect_a_rise()
    assert first_trigger(judged(detector, [3.25] * 100, 401)) is None


def test_a_spike_that_is_over_is_not_learnt_and_a_small_rise_after_it_is() -> None:
    detector, resumed = calm(), Detector()
    judged(detector, [4.5] * 50, 201)
    resumed.load_state_dict(detector.state_dict())
    for one in (detector, resumed):
        judged(one, [3.0] * 10, 251)
        assert max(one.state_dict()["losses"]) == 3.0
        judged(one, [3.2, 3.0], 261)
        assert one.state_dict()["losses"].count(3.2) == 1
        judged(one, [4.5] * 200, 263)
        assert one.has_settled


def test_a_resumed_detector_judges_as_the_one_that_was_killed() -> None:
    losses = [*list(clean_curve(1000, 6)), *(4.0, 4.1), *([2.4] * 30), *([3.3] * 9)]
    whole = judged(Detector(), losses)
    for stop in (20, 70, 1001, 1010, 1035):
        killed, resumed = Detector(), Detector()
        judged(killed, losses[:stop])
        resumed.load_state_dict(killed.state_dict())
        assert judged(resumed, losses[stop:], stop + 1) == whole[stop:]


def test_a_fresh_window_forgets() -> None:
    detector = Detector()
    judged(detector, list(clean_curve(1000, 7)))
    detector.expect_a_rise()
    judged(detector, [9.0] * 5, 1001)
    detector.reset()
    assert detector.state_dict() == Detector().state_dict()
    assert first_trigger(judged(detector, [loss + 3.0 for loss in clean_curve(200, 8)], 1001)) is None


def test_the_norm_limit_is_a_multiple_of_the_median_of_accepted_norms() -> None:
    detector, resumed = Detector(window=16, warmup_steps=0, norm_ratio=10.0), Detector(window=16, norm_ratio=10.0)
    for step, norm in enumerate([1.0, 2.0, 9.0, 2.0, 1.0, 2.0, 9.0, 2.0], 1):
        assert detector.norm_limit == math.inf, "until half a window is full"
        detector.observe(step, 3.0, norm)
    assert detector.norm_limit == 20.0
    detector.observe(9, 3.0, math.inf)
    assert detector.norm_limit == 20.0
    judged(detector, [3.0] * 16, 10, norm=4.0)
    resumed.load_state_dict(detector.state_dict())
    assert (detector.norm_limit, resumed.norm_limit) == (40.0, 40.0)


def test_a_loss_without_a_norm_is_judged_and_the_norms_stay() -> None:
    detector = Detector(window=8, warmup_steps=0)
    judged(detector, [3.0] * 8)
    norms = detector.state_dict()["norms"]
    assert detector.observe(9, 3.0, None).triggered is None
    assert detector.state_dict()["norms"] == norms
    assert detector.observe(10, math.inf, None).triggered == "not finite"
    assert [detector.observe(step, 5.0, None).triggered for step in (11, 12, 13)][-1] == "loss"
