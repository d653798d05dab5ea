"""The picture of a run: its loss against every update ever tried, with what its ledger gave up and why."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mulligan.report.curve import Curve, read_curve
from mulligan.report.lines import Numbers, draw_points, standing_out
from mulligan.report.palette import GIVEN_UP, KEPT, WITHHELD
from mulligan.report.stretches import stretches
from mulligan.stability.ledger import Ledger

NOTE_ROWS, NOTE_STEP, NOTE_HEIGHT = 3, 0.1, 0.15  # notes of rewinds that lie close together stand below each other
NOTE_WIDTH = 0.2  # of the picture's
NARROW = 0.75  # of the width: notes behind it stand to the left of their line


def draw_run(folder: Path, picture: Path) -> None:
    """Draw the metrics and the ledger in a run's ``folder`` to ``picture``, a PNG. Needs a CSV logger's metrics."""
    entries = Ledger(folder / "ledger.jsonl", writes=False).entries
    curve = with_spikes(read_curve(folder), entries)
    figure = Figure(figsize=(10.0, 4.8), layout="constrained")
    axes = figure.subplots()
    draw_curve(axes, curve, entries)
    axes.set_title(folder.name, loc="left")
    figure.savefig(picture, dpi=110)


def with_spikes(curve: Curve, entries: Sequence[dict[str, Any]]) -> Curve:
    """``curve``, by attempt, with each rise that is in the ledger and not in the log: the mean that would have shown it
    is dropped by the rewind.
    """
    spikes = {
        entry["attempt"] - entry["step"] + step: math.nan if loss is None else loss
        for entry in entries
        if "onset" in entry
        for step, loss, _ in entry.get("values", ())
        if step >= entry["onset"] - 1
    }
    if not spikes:
        return curve
    points = spikes | dict(zip(curve.steps, curve.losses, strict=True))
    return Curve(sorted(points), [points[at] for at in sorted(points)], None)


def draw_curve(axes: Axes, curve: Curve, entries: Sequence[dict[str, Any]]) -> None:
    """``curve`` is by attempt; ``entries`` are the ledger's."""
    draw_stretches(axes, curve.steps, curve.losses, entries)
    withheld: str | None = "update withheld"
    for entry in entries:
        if entry["kind"] == "withheld":
            axes.axvline(entry["attempt"], color=WITHHELD, label=withheld, linewidth=0.8, linestyle=":")
            withheld = None
        else:
            axes.axvline(entry["attempt"], color=GIVEN_UP, linewidth=0.8, linestyle="--")
    notes = [entry for entry in entries if entry["kind"] != "withheld"]
    rows = note_rows([entry["attempt"] / curve.steps[-1] for entry in notes])
    for entry, row in zip(notes, rows, strict=True):
        if row is None:
            continue
        back = "halted" if entry["kind"] == "halt" else f"back to step {entry['target']}"
        is_far = entry["attempt"] > NARROW * curve.steps[-1]
        axes.annotate(
            f"{back}\n({entry['trigger']}, from step {entry['onset']} on)",
            (entry["attempt"], 0.99 - NOTE_STEP * row), xycoords=("data", "axes fraction"),
            xytext=(-4 if is_far else 4, 0), textcoords="offset points", ha="right" if is_far else "left", va="top",
            fontsize=8, color=GIVEN_UP,
        )  # fmt: skip
    bottom, top = axes.get_ylim()
    num_rows = 1 + max((row for row in rows if row is not None), default=-1)
    axes.set_ylim(bottom, top + (top - bottom) * NOTE_HEIGHT * num_rows)  # above the curve
    axes.set_xlabel("attempt: updates tried, kept or not")
    axes.set_ylabel("cross-entropy, nats a token")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left")


def note_rows(places: Sequence[float]) -> list[int | None]:
    """The row of a note at each of ``places``, shares of the width, where it lies over no other; None where there is no
    room: the latest have theirs first.
    """
    taken: list[list[float]] = [[] for _ in range(NOTE_ROWS)]
    rows: list[int | None] = []
    for place in reversed(places):
        start = place - NOTE_WIDTH if place > NARROW else place
        free = (row for row, starts in enumerate(taken) if all(abs(start - one) >= NOTE_WIDTH for one in starts))
        rows.append(row := next(free, None))
        if row is not None:
            taken[row].append(start)
    return rows[::-1]


def draw_stretches(
    axes: Axes,
    attempts: Numbers,
    values: Numbers,
    entries: Sequence[dict[str, Any]],
    *,
    labels: tuple[str, str] = ("kept", "given up by a rewind"),
    **style: Any,
) -> None:
    """A line over ``attempts``, in other colours where it was kept and where a rewind gave it up; ``style`` is that of
    the line, its colour where it was kept.
    """
    kept: dict[str, Any] = {"color": KEPT, "linewidth": 1.2} | style
    unnamed = dict(zip((True, False), labels, strict=True))
    all_xs, all_ys = np.asarray(attempts), np.asarray(values)
    for stretch in stretches(entries, int(all_xs[-1])):
        start = np.searchsorted(all_xs, stretch.after + stretch.is_kept)  # what was given up left the kept line
        stop = np.searchsorted(all_xs, stretch.last, side="right")
        if start < stop:
            drawn = kept if stretch.is_kept else kept | {"color": GIVEN_UP}
            label = unnamed.pop(stretch.is_kept, None)
            shown = start + standing_out(all_ys[start:stop])
            xs, ys = all_xs[shown], all_ys[shown]
            own = np.flatnonzero(xs > stretch.after).tolist()
            draw_points(axes, xs, ys, label=label, markevery=own, **drawn)
