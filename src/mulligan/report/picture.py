"""The picture of a run: its loss against every update ever tried, with what its ledger gave up and why."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mulligan.report.curve import Curve, read_curve
from mulligan.stability.ledger import Ledger

KEPT, GIVEN_UP, WITHHELD = "#1f5f99", "#c8433f", "#d98b1f"


class Stretch(NamedTuple):
    """Attempts in (after, last], drawn as one line."""

    after: int
    last: int
    is_kept: bool


def draw_run(folder: Path, picture: Path) -> None:
    """Draw the metrics and the ledger in a run's ``folder`` to ``picture``, a PNG. Needs a CSV logger's metrics."""
    curve, entries = read_curve(folder), Ledger(folder / "ledger.jsonl", writes=False).entries
    figure = Figure(figsize=(10.0, 4.8), layout="constrained")
    axes = figure.subplots()
    draw_curve(axes, curve, entries)
    axes.set_title(folder.name, loc="left")
    figure.savefig(picture, dpi=110)


def draw_curve(axes: Axes, curve: Curve, entries: Sequence[dict[str, Any]]) -> None:
    """``curve`` is by attempt; ``entries`` are the ledger's."""
    labels = {True: "kept", False: "given up by a rewind"}
    for stretch in stretches(entries, curve.steps[-1]):
        shown = [
            (attempt, loss)
            for attempt, loss in zip(curve.steps, curve.losses, strict=True)
            if stretch.after + stretch.is_kept <= attempt <= stretch.last  # what was given up left the kept line
        ]
        color, label = KEPT if stretch.is_kept else GIVEN_UP, labels.pop(stretch.is_kept, None)
        axes.plot(*zip(*shown, strict=True) if shown else ((), ()), color=color, label=label, linewidth=1.2)
    withheld: str | None = "update withheld"
    for entry in entries:
        at = entry["attempt"]
        if entry["kind"] == "withheld":
            axes.axvline(at, color=WITHHELD, label=withheld, linewidth=0.8, linestyle=":")
            withheld = None
            continue
        axes.axvline(at, color=GIVEN_UP, linewidth=0.8, linestyle="--")
        back = "halted" if entry["kind"] == "halt" else f"back to step {entry['target']}"
        axes.annotate(
            f"{back}\n({entry['trigger']}, from step {entry['onset']} on)",
            (at, 0.97), xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points",
            va="top", fontsize=8, color=GIVEN_UP,
        )  # fmt: skip
    axes.set_xlabel("attempt: updates tried, kept or not")
    axes.set_ylabel("cross-entropy, nats a token")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left")


def stretches(entries: Sequence[dict[str, Any]], last: int) -> Iterator[Stretch]:
    """Attempts 1 to ``last`` in order, as kept and as given up."""
    given_up = [False] * (last + 1)
    for entry in entries:
        if "target" in entry:
            for attempt in range(entry["attempt"] - (entry["step"] - entry["target"]) + 1, entry["attempt"] + 1):
                given_up[min(attempt, last)] = True
    start = 0
    for attempt in range(1, last + 1):
        if attempt == last or given_up[attempt + 1] != given_up[attempt]:
            yield Stretch(start, attempt, is_kept=not given_up[attempt])
            start = attempt
