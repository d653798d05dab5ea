"""What is drawn of a run, along its attempts up to the ``last``: these a rewind cannot turn back."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mulligan.data.sequencer import Indices
from mulligan.report.curve import Curve
from mulligan.report.lines import PARTS, Numbers, draw_line, standing_out
from mulligan.report.metrics import Column
from mulligan.report.palette import BAND, GIVEN_UP, INK, KEPT, WITHHELD
from mulligan.report.picture import draw_curve, draw_stretches, with_spikes
from mulligan.report.stretches import stretches

Entries = Sequence[dict[str, Any]]
FEW_DECADES = 30.0  # the greatest by the least
THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


def loss(
    figure: Figure,
    losses: Column,
    band: tuple[Column, Column] | None,
    validation: Column | None,
    entries: Entries,
    last: int,
) -> None:
    """``band`` are the detector's centre and limit."""
    axes = figure.subplots()
    if band is not None:
        (attempts, centres), (_, limits) = band
        shown = standing_out(limits)
        within = attempts[shown], centres[shown], limits[shown]
        axes.fill_between(*within, color=BAND, alpha=0.6, linewidth=0, label="the detector's band")
    if validation is not None:
        draw_stretches(
            axes, *validation, entries, labels=("held out", "held out, given up"), color=INK, marker="o",
            markerfacecolor="white", markersize=4, linewidth=0.7,
        )  # fmt: skip
    curve = with_spikes(Curve(losses.attempts.tolist(), losses.values.tolist(), None), entries)
    draw_curve(axes, curve, entries)
    _mark_what_is_not_finite(axes, curve.steps, curve.losses)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=6, borderaxespad=0.2)
    _count_attempts(axes, last)


def terms(figure: Figure, columns: dict[str, Column], last: int) -> None:
    """The parts of the objective on one logarithmic axis; a term that is 0 throughout is left out."""
    axes = figure.subplots()
    styles = {"cross_entropy": (KEPT, "-"), "z_loss": (WITHHELD, "--"), "label_smoothing": (GIVEN_UP, ":")}
    for name, (color, line) in styles.items():
        column = columns.get(name)
        if column is not None and (column.values > 0.0).any():
            draw_line(axes, *column, color=color, linestyle=line, linewidth=1.1, label=name.replace("_", " "))
    _make_logarithmic(axes)
    axes.set_ylabel("nats a token")
    if axes.lines:
        axes.legend(loc="center right")
    _count_attempts(axes, last)


def norm(figure: Figure, norms: Column, entries: Entries, last: int) -> None:
    axes = figure.subplots()
    draw_stretches(axes, norms.attempts, norms.values, entries)
    _make_logarithmic(axes)
    if marks := _mark_what_is_not_finite(axes, *norms):
        axes.legend(handles=marks, loc="upper left")
    axes.set_ylabel("gradient norm before clipping")
    _count_attempts(axes, last)


def rate(figure: Figure, rates: Column, entries: Entries, last: int) -> None:
    axes = figure.subplots()
    draw_stretches(axes, rates.attempts, rates.values, entries)
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0.0)
    axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    _count_attempts(axes, last)


def speed(figure: Figure, speeds: Column, mfu: Column | None, goodput: Column, last: int) -> None:
    above, below = figure.subplots(2, sharex=True, height_ratios=(2, 1))
    draw_line(above, *speeds, color=KEPT, linewidth=1.0)
    above.set_ylim(bottom=0.0)
    above.set_ylabel("tokens a second")
    above.yaxis.set_major_formatter(THOUSANDS)
    above.grid(axis="x", visible=False)
    if mfu is not None and speeds.last > 0.0:
        share = 100.0 * mfu.last / speeds.last  # one is a multiple of the other
        right = above.secondary_yaxis("right", functions=(lambda y: y * share, lambda y: y / share))
        right.set_ylabel("MFU, %")
    draw_line(below, *goodput, color=INK, linewidth=1.1)
    below.set_ylim(min(0.9, goodput.values.min()) - 0.02, 1.02)
    below.set_ylabel("goodput")
    _count_attempts(below, last)


def order(figure: Figure, firsts: Indices, entries: Entries, skips: Sequence[tuple[int, int]]) -> None:
    axes = figure.subplots()
    label: str | None = "left out for good"
    for start, stop in skips:
        axes.axhspan(start, stop, color=GIVEN_UP, alpha=0.14, linewidth=0, label=label)
        label = None
    attempts = np.arange(1, len(firsts) + 1)
    names = {True: "read and kept", False: "read and given up"}
    for stretch in stretches(entries, len(firsts)):
        shown = slice(stretch.after, stretch.last)
        color = KEPT if stretch.is_kept else GIVEN_UP
        draw_line(
            axes, attempts[shown], firsts[shown], color=color, linewidth=1.6, solid_capstyle="butt",
            label=names.pop(stretch.is_kept, None),
        )  # fmt: skip
    axes.set_ylabel("sample, in the run's order")
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(THOUSANDS)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    _count_attempts(axes, len(firsts))


def comparison(figure: Figure, ours: tuple[Column, Column], theirs: tuple[Column, Column]) -> None:
    """Each run as its kept losses by step and by tokens."""
    for axes, mine, other, label in zip(
        figure.subplots(1, 2, sharey=True), ours, theirs, ("step", "tokens read and kept"), strict=True
    ):
        draw_line(axes, *other, color=WITHHELD, linewidth=1.0, linestyle=(0, (4, 1)), label="the other run")
        draw_line(axes, *mine, color=KEPT, linewidth=1.2, label="this run")
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter(THOUSANDS)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))
    figure.axes[0].set_ylabel("cross-entropy, nats a token")
    figure.axes[0].legend(loc="upper right")


def _mark_what_is_not_finite(axes: Axes, attempts: Numbers, values: Numbers) -> list[Line2D]:
    gone = np.asarray(attempts)[~np.isfinite(values)]
    if not len(gone):
        return []
    gone = gone[:: 1 + len(gone) // (2 * PARTS)]
    top, above = [0.98] * len(gone), axes.get_xaxis_transform()
    return axes.plot(gone, top, "v", color=GIVEN_UP, transform=above, label="not finite", markersize=4)


def _make_logarithmic(axes: Axes) -> None:
    """The y axis, unless there is nothing on it; over few decades more than their bounds is labelled."""
    low, high = axes.dataLim.intervaly
    if not 0.0 < low <= high < math.inf:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > FEW_DECADES * low else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _count_attempts(axes: Axes, last: int) -> None:
    axes.set_xlabel("attempt")
    axes.set_xlim(-0.01 * last, 1.01 * last)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.grid(axis="x", visible=False)
    axes.grid(axis="y", alpha=1.0)
