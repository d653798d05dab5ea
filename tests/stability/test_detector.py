"""The detector on made-up curves: what it must see, and what it must not."""

import math
import random
from collections.abc import Iterator

import pytest

from mulligan.stability.detector import Detector, Judgement


def clean_curve(steps: int, seed: int, noise: float = 0.05) -> Iterator[float]:
    """A loss that falls as losses do, to about 2.5 nats, with normal noise."""
    rng = random.Random(seed)
    for step in range(steps):
        yield 2.3 + 4.5 * math.exp(-step / 60) + 2.0 * (1 + step / 200) ** -1 + rng.gauss(0.0, noise)


def steep_curve(steps: int, seed: int, noise: float) -> list[float]:
    """Down by 0.02 nats a step, and flat from step 200 on."""
    rng = random.Random(seed)
    return [2.5 + max(0.0, 0.02 * (200 - step)) + rng.gauss(0.0, noise) for step in range(steps)]


def correlated_curve(steps: int, seed: int, noise: float, correlation: float) -> list[float]:
    rng, strays = random.Random(seed), [0.0]
    for _ in range(steps):
        strays.append(correlation * strays[-1] + rng.gauss(0.0, noise * math.sqrt(1.0 - correlation**2)))
    return [2.5 + stray for stray in strays[1:]]


def judged(detector: Detector, losses: list[float], first_step: int = 1, norm: float = 1.0) -> list[Judgement]:
    return [detector.observe(step, loss, norm) for step, loss in enumerate(losses, first_step)]


def first_trigger(judgements: list[Judgement]) -> Judgement | None:
    return next((judgement for judgement in judgements if judgement.triggered), None)


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_clean_curves_raise_no_alarm(noise: float) -> None:
    for seed in range(2):
        assert first_trigger(judged(Detector(), list(clean_curve(10_000, seed, noise)))) is None


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_the_bend_at_the_end_of_a_steep_fall_is_no_spike(noise: float) -> None:
    for seed in range(10):
        assert first_trigger(judged(Detector(), steep_curve(600, seed, noise))) is None


@pytest.mark.parametrize("shape", [4.0, 2.0])
def test_noise_with_a_long_upper_tail_is_no_spike(shape: float) -> None:
    rng = random.Random(1)
    losses = [2.5 + 0.2 * (rng.gammavariate(shape, 1.0) - shape) / math.sqrt(shape) for _ in range(20_000)]
    assert first_trigger(judged(Detector(), losses)) is None


def test_noise_that_strays_for_a_while_is_no_spike() -> None:
    for seed in range(2):
        assert first_trigger(judged(Detector(), correlated_curve(10_000, seed, 0.2, correlation=0.7))) is None


def test_a_sure_rise_below_the_smallest_is_no_spike() -> None:
    losses = list(clean_curve(1500, 0, noise=0.01))
    assert first_trigger(judged(Detector(), [loss + 0.1 * (at >= 1000) for at, loss in enumerate(losses)])) is None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("noise", "within"), [(0.05, 10), (0.1, 30)])
def test_a_rise_of_palms_size_is_caught_and_its_onset_named(noise: float, within: int, seed: int) -> None:
    losses = list(clean_curve(1200, seed, noise))
    raised = [*losses[:1000], *(loss + 0.4 for loss in losses[1000:])]
    found = first_trigger(judged(Detector(), raised))
    assert found is not None
    assert 1001 <= found.step <= 1000 + within
    assert 1001 <= found.onset <= 1003
    assert found.triggered == "loss"


def test_a_lone_outlier_is_no_spike() -> None:
    losses = list(clean_curve(1200, 0))
    losses[800] += 5.0
    assert first_trigger(judged(Detector(), losses)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_triggers_at_once_and_blinds_nothing(bad: float) -> None:
    losses = list(clean_curve(1000, 1))
    detector, other = Detector(), Detector()
    judged(detector, losses)
    judged(other, losses)
    assert detector.observe(1001, bad, 1.0).triggered == "not finite"
    assert detector.observe(1001, 2.5, bad).triggered == "not finite"
    after = list(clean_curve(1100, 2))[1000:]
    assert [one.limit for one in judged(detector, after, 1002)] == [one.limit for one in judged(other, after, 1002)]
    assert detector.observe(1200, 3.5, 1.0).onset == 1200


def test_a_plateau_is_not_learnt_as_normal() -> None:
    losses = list(clean_curve(1000, 3))
    detector = Detector()
    judged(detector, losses)
    plateau = judged(detector, [loss + 1.0 for loss in clean_curve(2000, 4)][1000:], 1001)
    assert all(judgement.triggered == "loss" for judgement in plateau[2:])
    assert plateau[-1].onset == 1001
    assert max(judgement.limit for judgement in plateau) < 3.0


def test_a_spike_that_could_not_be_taken_back_is_soon_forgotten() -> None:
    detector, losses = Detector(), list(clean_curve(1600, 3))
    judged(detector, [loss + (at >= 1000) for at, loss in enumerate(losses[:1500])])
    assert all(judgement.onset is None for judgement in judged(detector, losses[1510:], 1511)[10:])


def test_a_rise_that_is_taken_for_normal_hides_no_later_one() -> None:
    detector, losses = Detector(), list(clean_curve(2000, 3))
    raised = [loss + 0.5 * (at >= 1000) for at, loss in enumerate(losses)]
    judged(detector, raised[:1100])
    assert not detector.has_settled
    judged(detector, raised[1100:1200], 1101)
    assert detector.has_settled
    detector.settle()
    assert first_trigger(judged(detector, raised[1200:], 1201)) is None
    assert first_trigger(judged(detector, [3.5] * 10, 2001)).onset == 2001


def test_where_a_rise_is_expected_a_small_one_is_normal_and_a_large_one_is_not() -> None:
    losses = list(clean_curve(1200, 9))
    for rise, is_spike in ((0.25, False), (1.0, True)):
        detector = Detector()
        judged(detector, losses[:1000])
        detector.expect_a_rise()
        assert bool(first_trigger(judged(detector, [loss + rise for loss in losses[1000:]], 1001))) == is_spike
    detector = Detector()
    judged(detector, losses[:1000])
    assert first_trigger(judged(detector, [loss + 0.25 for loss in losses[1000:]], 1001)), "unless it is expected"


def test_a_creeping_rise_is_caught() -> None:
    losses = [loss + max(0, step - 1500) * 5e-4 for step, loss in enumerate(clean_curve(4000, 5))]
    found = first_trigger(judged(Detector(), losses))
    assert found is not None
    assert 1500 < found.onset < found.step <= 2600


@pytest.mark.parametrize(
    "options",
    [{"window": 4}, {"patience": 0}, {"warmup_steps": -1}, {"width": 0.0}, {"min_rise": math.nan}, {"norm_ratio": 1.0}],
)
def test_wrong_options_are_named(options: dict) -> None:
    with pytest.raises(ValueError, match=rf"stability\.detector\.{next(iter(options))}="):
        Detector(**options)
