"""All that a run's CSV logger wrote: a column by name, along the attempts."""

from pathlib import Path
from typing import NamedTuple

from mulligan.report.curve import begins_at, metrics_files, rows_of


class Column(NamedTuple):
    """The attempts at which it was logged, ascending, and what it was then."""

    attempts: list[int]
    values: list[float]

    @property
    def last(self) -> float:
        return self.values[-1]


def read_metrics(folder: Path) -> dict[str, Column]:
    """Every column of a run that has a number. Attempts that a later start made anew are that one's alone.

    Raises ValueError, naming file and line, where something cannot be read.
    """
    found: dict[str, dict[int, float]] = {}
    for file in metrics_files(folder):
        of_start: dict[str, dict[int, float]] = {}
        for row in rows_of(file):
            attempt = row.number("attempt")
            if attempt is None or not attempt.is_integer():
                raise ValueError(f"{row.place}: attempt={attempt} must be a whole number")
            for name in row.cells:
                value = row.number(name)
                if value is not None:
                    of_start.setdefault(name, {})[int(attempt)] = value
        if attempts := sorted({attempt for points in of_start.values() for attempt in points}):
            begin = begins_at(attempts)
            found = {name: {at: value for at, value in points.items() if at < begin} for name, points in found.items()}
        for name, points in of_start.items():
            found[name] = found.get(name, {}) | points
    return {
        name: Column(sorted(points), [points[at] for at in sorted(points)]) for name, points in found.items() if points
    }
