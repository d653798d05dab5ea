"""Of very many points those are drawn that stand out, and a single one is seen."""

import math

import numpy as np
from matplotlib.figure import Figure

from mulligan.report.lines import draw_line, standing_out


def test_of_a_million_points_about_two_thousand_are_drawn_and_every_spike() -> None:
    values = np.random.default_rng(0).normal(size=1_000_000)
    values[123_456], values[654_321], values[777_777] = 90.0, -90.0, math.nan
    shown = standing_out(values)
    assert 1900 < len(shown) < 2100
    assert {0, 123_456, 654_321, 777_777, 999_999} <= set(shown.tolist())
    assert shown.tolist() == sorted(set(shown.tolist()))
    assert len(standing_out(np.full(5000, math.nan))) == 1001, "nothing but gaps"


def test_of_a_short_curve_all_is_drawn() -> None:
    assert standing_out([1.0] * 2000).tolist() == list(range(2000))


def test_a_single_finite_point_is_a_dot_and_more_are_a_line() -> None:
    axes = Figure().subplots()
    draw_line(axes, [1], [3.0])
    draw_line(axes, [1, 2, 3], [math.nan, 3.0, math.inf])
    draw_line(axes, [1, 2], [3.0, 2.0])
    draw_line(axes, [1], [3.0], marker="s")
    assert [line.get_marker() for line in axes.lines] == ["o", "o", "None", "s"]
