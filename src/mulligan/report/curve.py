"""A recorded loss curve, read from CSV, from JSON lines or from a run's folder."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

# What a column is called where the user does not say: our own runs' names first. ``attempt`` only grows, also over
# rewinds, and detectors judge the bare cross-entropy.
USUAL_NAMES = {"step": ("attempt", "step"), "loss": ("cross_entropy", "loss"), "norm": ("gradient_norm",)}


class Curve(NamedTuple):
    """The recorded points in order: steps, nats, gradient norms before clipping or None where one is missing."""

    steps: list[int]
    losses: list[float]
    norms: list[float] | None


class Row(NamedTuple):
    file: Path
    line: int
    cells: dict[str, Any]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def number(self, name: str) -> float | None:
        cell = self.cells.get(name)
        if cell is None or cell == "":
            return None
        try:
            return float(cell)
        except (TypeError, ValueError, OverflowError):  # an integer of hundreds of digits
            raise ValueError(f"{self.place}: {name}={cell!r} is not a number") from None


def read_curve(
    path: Path, *, step_column: str | None = None, loss_column: str | None = None, norm_column: str | None = None
) -> Curve:
    """The curve in ``path``; a column that is None goes by its usual names. Rows without a loss are passed over.

    The files of a run's starts are joined: where a start went over steps again, it is the later one that counts.
    Raises ValueError, naming file and line, where something cannot be read or steps go back.
    """
    files = metrics_files(path)
    names = dict.fromkeys(name for file in files for name in _names_in(file))
    if not names:
        raise ValueError(f"{files[0]}:1: the file has no rows")
    step_name, loss_name = (
        _name(path, names, what, given) for what, given in (("step", step_column), ("loss", loss_column))
    )
    has_norms = norm_column is not None or any(name in names for name in USUAL_NAMES["norm"])
    norm_name = _name(path, names, "norm", norm_column) if has_norms else ""
    points: dict[int, tuple[float, float | None]] = {}
    for file in files:
        last: int | None = None
        of_start: dict[int, tuple[float, float | None]] = {}
        for row in rows_of(file):
            loss, step = row.number(loss_name), row.number(step_name)
            if loss is None:
                continue
            if step is None or not step.is_integer():
                raise ValueError(f"{row.place}: {step_name}={step} must be a whole number where there is a loss")
            if last is not None and step <= last:
                raise ValueError(
                    f"{row.place}: {step_name}={step:.0f} comes after {last}; name a column that only grows by "
                    "step_column=NAME"
                )
            last = int(step)
            of_start[last] = loss, row.number(norm_name)
        if of_start:
            begin = begins_at(list(of_start))
            points = {step: point for step, point in points.items() if step < begin} | of_start
    if not points:
        raise ValueError(f"{path} has no row with a number in the column {loss_name}")
    steps = sorted(points)
    norms = [norm for step in steps if (norm := points[step][1]) is not None]
    return Curve(steps, [points[step][0] for step in steps], norms if len(norms) == len(steps) else None)


def begins_at(logged: Sequence[int]) -> int:
    """The first attempt that a start speaks of by the ones it logged: a row stands for all since the row before."""
    return logged[0] if len(logged) < 2 else min(logged[0], 2 * logged[0] - logged[1] + 1)


def metrics_files(path: Path) -> list[Path]:
    """The file itself, or those of a run's starts, the earliest first."""
    if path.suffix in (".csv", ".jsonl") and path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"curve={path} must be a .csv or .jsonl file that is there, or a run's folder")
    found = list(path.rglob("version_*/metrics.csv"))  # where Lightning's CSVLogger writes, a version a start
    loggers = sorted({str(file.parents[1]) for file in found})
    if len(loggers) != 1:
        there = f"those of {', '.join(loggers)}" if loggers else "none"
        raise ValueError(f"curve={path} must hold the metrics.csv of one run, and holds {there}")
    return sorted(found, key=lambda file: int(file.parent.name.removeprefix("version_")))


def rows_of(file: Path) -> Iterator[Row]:
    """Raises ValueError, naming file and line, at one that is not whole."""
    if file.suffix == ".jsonl":
        with _opened(file) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield Row(file, number, json_object(f"{file}:{number}", line))
        return
    table = cells_of(file)
    _, header = next(table)
    for number, cells in table:
        yield Row(file, number, dict(zip(header, cells, strict=True)))


def cells_of(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Of each line of a CSV file its number and its cells, the header's first. Raises ValueError as ``rows_of``; the
    last line of a logger's file, which a kill may have cut off, is left out then.
    """
    is_a_loggers = file.parent.name.startswith("version_")
    with _opened(file) as lines:
        reader = csv.reader((line for line in lines if line.endswith(("\n", "\r"))) if is_a_loggers else lines)
        try:
            header = [name.strip() for name in next(reader, [])]
            for name in header:
                if name and header.count(name) > 1:
                    raise ValueError(f"{file}:1: the header names the column {name!r} twice")
            yield 1, header
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise ValueError(
                        f"{file}:{reader.line_num}: {len(cells)} cells where the header has {len(header)}; was it cut?"
                    )
                if cells:
                    yield reader.line_num, cells
        except csv.Error as error:
            raise ValueError(f"{file}:{reader.line_num}: {error}") from None


def _opened(file: Path) -> TextIO:
    # A byte that is no text becomes U+FFFD, which is no number and no name: the row's own check then names the line.
    return file.open(encoding="utf-8-sig", errors="replace", newline="")


def _names_in(file: Path) -> Iterator[str]:
    for row in rows_of(file):
        yield from row.cells
        if file.suffix == ".csv":  # its header's, as those of every row
            return


def json_object(place: str, line: str | bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: not whole JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{place}: {content!r} must be a JSON object")
    return content


def _name(path: Path, names: dict[str, None], what: str, given: str | None) -> str:
    wanted = USUAL_NAMES[what] if given is None else (given,)
    for name in wanted:
        if name in names:
            return name
    raise ValueError(
        f"{path} has no column {' or '.join(wanted)}; name one by {what}_column=NAME, of {', '.join(names)}"
    )
