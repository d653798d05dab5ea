"""Schedules: warm-up, peak, shape and end."""

from itertools import pairwise
from typing import get_args

import pytest

from mulligan.training.schedules import Kind, Schedule

KINDS: tuple[Kind, ...] = get_args(Kind)


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_is_linear_and_reaches_the_peak(kind: Kind) -> None:
    schedule = Schedule(kind=kind, warmup=0.1)
    factors = [schedule.factor(step, 100) for step in range(11)]
    assert factors == pytest.approx([(step + 1) / 11 for step in range(10)] + [1.0])


@pytest.mark.parametrize("kind", KINDS)
def test_it_never_rises_after_the_peak_and_ends_at_its_final_factor(kind: Kind) -> None:
    schedule = Schedule(kind=kind, warmup=0.0, final=0.1, decay=0.5)
    factors = [schedule.factor(step, 100) for step in range(101)]
    assert all(after <= before for before, after in pairwise(factors))
    assert factors[0] == 1.0
    assert factors[-1] == pytest.approx(1.0 if kind == "constant" else 0.1)


def test_middle_of_each_shape() -> None:
    middle = {kind: Schedule(kind=kind, warmup=0.0, final=0.0, decay=0.5).factor(50, 100) for kind in KINDS}
    assert middle == pytest.approx({"cosine": 0.5, "wsd": 1.0, "linear": 0.5, "constant": 1.0})
    assert Schedule(kind="wsd", warmup=0.0, final=0.0, decay=0.5).factor(75, 100) == pytest.approx(0.5)


def test_a_share_of_a_round_length_is_that_many_steps() -> None:
    for share, num_steps, steps in ((0.07, 100, 7), (0.07, 300, 21), (0.001, 100, 1), (0.02, 51, 2)):
        assert Schedule(kind="wsd", warmup=share, final=0.0, decay=share).warmup_steps(num_steps) == steps


def test_another_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"schedule\.kind=cosin must be one of cosine, wsd, linear, constant"):
        Schedule(kind="cosin")
