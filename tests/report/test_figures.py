"""What stands in the pictures, also where a curve has holes."""

import math
from functools import partial

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mulligan.report import figures
from mulligan.report.palette import GIVEN_UP, KEPT
from tests.report.conftest import REWIND, column

ENTRIES = [REWIND | {"kind": "rewind"}]
ATTEMPTS = list(range(1, 15))
GONE = column(ATTEMPTS, [math.nan] * 14)
RISING = column(ATTEMPTS, [float(at) for at in ATTEMPTS])


def labels(figure: Figure, number: int = 0) -> list[str]:
    return figure.axes[number].get_legend_handles_labels()[1]


def test_the_loss_has_its_band_its_validation_and_its_gaps() -> None:
    holed = column(ATTEMPTS, [math.inf if at == 5 else 3.0 for at in ATTEMPTS])
    figure, band = Figure(), (column(ATTEMPTS, [3.0] * 14), column(ATTEMPTS, [3.5] * 14))
    figures.loss(figure, holed, band, column([7, 8, 10, 14], [3.1, 3.0, 3.9, 2.9]), ENTRIES, last=16)
    assert labels(figure) == [
        "the detector's band", "held out", "held out, given up", "kept", "given up by a rewind", "not finite"
    ]  # fmt: skip
    validations = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    drawn = [list(line.get_xdata()) for line in validations]
    assert drawn == [[7, 8], [8, 10], [14]], "no line leads from what was given up to what was kept"
    assert [line.get_markevery() for line in validations] == [[0, 1], [1], [0]], "8 was kept"
    (marks,) = (line for line in figure.axes[0].lines if line.get_label() == "not finite")
    assert list(marks.get_xdata()) == [5]
    assert figure.axes[0].get_xlim()[1] > 16, "an intervention after the last line of the log is seen"
    assert figure.axes[0].texts[0].get_text().startswith("back to step 8")


def test_terms_that_are_zero_are_left_out() -> None:
    figure = Figure()
    zero = column(ATTEMPTS, [0.0] * 14)
    figures.terms(figure, {"cross_entropy": RISING, "z_loss": RISING, "label_smoothing": zero}, last=14)
    assert labels(figure) == ["cross entropy", "z loss"]
    assert figure.axes[0].get_yscale() == "log"


def test_a_column_without_a_number_is_drawn_as_such() -> None:
    figure = Figure()
    figures.norm(figure, GONE, [], last=14)
    figures.terms(Figure(), {"cross_entropy": GONE}, last=14)
    assert "not finite" in labels(figure)
    assert figure.axes[0].get_yscale() == "linear"


def test_mfu_has_the_axis_at_the_right() -> None:
    figure = Figure()
    figures.speed(
        figure, column([1, 2], [100.0, 200.0]), column([1, 2], [0.1, 0.2]), column([1, 2], [1.0, 1.0]), last=2
    )
    (right,) = figure.axes[0].child_axes
    figure.draw_without_rendering()
    assert right.get_ylim()[1] == pytest.approx(figure.axes[0].get_ylim()[1] / 10.0), "20 % at 200 tokens a second"


def test_samples_are_kept_given_up_and_left_out() -> None:
    figure = Figure()
    firsts = np.array([*range(0, 44, 4), *range(44, 60, 4)])
    figures.order(figure, firsts, ENTRIES, [(32, 44)])
    kept, given_up, after = figure.axes[0].lines
    assert [to_hex(line.get_color()) for line in (kept, given_up, after)] == [KEPT, GIVEN_UP, KEPT]
    assert list(given_up.get_xdata()) == [9, 10, 11]
    assert list(after.get_ydata()) == [44, 48, 52, 56]
    assert labels(figure) == ["left out for good", "read and kept", "read and given up"]


def test_two_runs_are_told_apart() -> None:
    figure = Figure()
    figures.comparison(figure, (RISING, RISING), (RISING, RISING))
    assert [axes.get_xlabel() for axes in figure.axes] == ["step", "tokens read and kept"]
    assert labels(figure) == ["the other run", "this run"]


def test_a_run_of_one_step_is_seen_at_whole_steps() -> None:
    one, figure = column([1], [3.0]), Figure()
    figures.comparison(figure, (one, one), (one, one))
    assert {line.get_marker() for axes in figure.axes for line in axes.lines} == {"o"}
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())
    for draw in (partial(figures.rate, rates=one, entries=[]), partial(figures.terms, columns={"cross_entropy": one})):
        draw(alone := Figure(), last=1)
        assert [line.get_marker() for line in alone.axes[0].lines] == ["o"]
