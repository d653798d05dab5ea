"""What a run's CSV logger wrote: a column by name, along the attempts."""

from array import array
from collections.abc import Collection
from itertools import compress, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mulligan.data.sequencer import Indices
from mulligan.report.curve import begins_at, cells_of, metrics_files, rows_of


class Column(NamedTuple):
    """The attempts at which it was logged, ascending, and what it was then."""

    attempts: Indices
    values: NDArray[np.float64]

    @property
    def last(self) -> float:
        return float(self.values[-1])


LINES = 1000  # that are read at a time
EMPTY = Column(np.empty(0, np.int64), np.empty(0))


def read_metrics(folder: Path, names: Collection[str] | None = None) -> dict[str, Column]:
    """Every column of a run that has a number, or those of ``names``, among them ``attempt``. Attempts that a later
    start made anew are that one's alone.

    Raises ValueError, naming file and line, where something cannot be read.
    """
    found: dict[str, Column] = {}
    for file in metrics_files(folder):
        of_start = _read_start(file, names)
        if of_start:
            begin = begins_at(of_start["attempt"].attempts[:2].tolist())
            found = {
                name: _joined(found.get(name, EMPTY), of_start.get(name, EMPTY), begin) for name in found | of_start
            }
    return {name: column for name, column in found.items() if len(column.attempts)}


def _read_start(file: Path, names: Collection[str] | None) -> dict[str, Column]:
    try:
        return _columns_of(file, names)
    except ValueError:
        for row in rows_of(file):  # the line that is to be named
            attempt = row.number("attempt")
            if "attempt" not in row.cells or not (attempt is None or attempt.is_integer()):
                raise ValueError(f"{row.place}: attempt={attempt} must be a whole number") from None
            for name in row.cells if names is None else names:
                row.number(name)
        raise


def _columns_of(file: Path, names: Collection[str] | None) -> dict[str, Column]:
    """Many lines at a time: a long run has a million. What a callback logs through Lightning has no attempt."""
    table = cells_of(file)
    _, header = next(table)
    attempts: dict[str, array[int]] = {name: array("q") for name in header if names is None or name in names}
    values: dict[str, array[float]] = {name: array("d") for name in attempts}
    while lines := [cells for _, cells in islice(table, LINES)]:
        columns = dict(zip(header, zip(*lines, strict=True), strict=True))
        if not all(given := columns.get("attempt", ("none",))):
            columns = {name: tuple(compress(cells, given)) for name, cells in columns.items()}
        logged_at = list(map(float, columns.get("attempt", given)))
        if not all(map(float.is_integer, logged_at)):
            raise ValueError(f"{file}: attempt must be a whole number in each line")
        for name in attempts:
            values[name].extend(map(float, filter(None, columns[name])))
            attempts[name].extend(map(int, compress(logged_at, columns[name])))
    return {name: _column(np.asarray(attempts[name]), np.asarray(values[name])) for name in values if values[name]}


def _column(attempts: Indices, values: NDArray[np.float64]) -> Column:
    """Ascending, with the last value of each attempt."""
    ascending, places = np.unique(attempts[::-1], return_index=True)
    return Column(ascending, values[::-1][places])


def _joined(before: Column, after: Column, begin: int) -> Column:
    stop = np.searchsorted(before.attempts, begin)
    return Column(*(np.concatenate([old[:stop], new]) for old, new in zip(before, after, strict=True)))
