"""All that a run's CSV logger wrote: a column by name, along the attempts."""

from pathlib import Path
from typing import NamedTuple

from mulligan.report.curve import metrics_files, rows_of


class Column(NamedTuple):
    """The attempts at which it was logged, ascending, and what it was then."""

    attempts: list[int]
    values: list[float]

    @property
    def last(self) -> float:
        return self.values[-1]


def read_metrics(folder: Path) -> dict[str, Column]:
    """Every column of a run that has a number. Of an attempt that several starts made, the last one counts.

    Raises ValueError, naming file and line, where something cannot be read.
    """
    found: dict[str, dict[int, float]] = {}
    for file in metrics_files(folder):
        for row in rows_of(file):
            attempt = row.number("attempt")
            if attempt is None or not attempt.is_integer():
                raise ValueError(f"{row.place}: attempt={attempt} must be a whole number")
            for name in row.cells:
                value = row.number(name)
                if value is not None:
                    found.setdefault(name, {})[int(attempt)] = value
    return {name: Column(sorted(points), [points[at] for at in sorted(points)]) for name, points in found.items()}
