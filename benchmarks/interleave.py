"""Timing on a machine that others use too: run the variants in turns, compare within a round, take medians.

Load that comes and goes then hits every variant alike. A ratio is the median over the rounds of (this variant's
seconds / the first variant's in the same round), so a slow minute does not enter it. No round is left out but warm-up.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]


@dataclass
class Timing:
    """Wall and processor seconds of one variant, a number a round; processor seconds count every thread and child."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def lap(self, since: tuple[float, float], processes: Sequence[int] = ()) -> tuple[float, float]:
        """Add the seconds since both ``clocks`` read so, and return what they read now."""
        now = clocks(processes)
        self.seconds.append(now[0] - since[0])
        self.cpu_seconds.append(now[1] - since[1])
        return now

    @property
    def median(self) -> float:
        return median(self.seconds)

    def ratio_to(self, first: "Timing") -> float:
        """Median over the rounds of own seconds / the first variant's."""
        return median(mine / other for mine, other in zip(self.seconds, first.seconds, strict=True))

    def cpu_ratio_to(self, first: "Timing") -> float:
        return median(mine / other for mine, other in zip(self.cpu_seconds, first.cpu_seconds, strict=True))


def interleave(
    variants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup_rounds: int = 1,
    processes: Sequence[int] = (),
) -> dict[str, Timing]:
    """Run every variant once a round, forwards and backwards by turns, and time each run.

    ``processes`` are those still running that do a variant's work: their processor seconds count too.
    """
    timings = {name: Timing() for name in variants}
    for number in range(-warmup_rounds, rounds):
        for name in list(variants) if number % 2 == 0 else reversed(list(variants)):
            since = clocks(processes)
            variants[name]()
            if number >= 0:
                timings[name].lap(since, processes)
    return timings


def clocks(processes: Sequence[int] = ()) -> tuple[float, float]:
    """Wall and processor seconds."""
    return time.perf_counter(), cpu_seconds_now(processes)


def cpu_seconds_now(processes: Sequence[int] = ()) -> float:
    """Processor seconds of this process, its threads and its finished children, and of other ``processes``."""
    ticks = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13] for process in processes]
    return sum(os.times()[:4]) + sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


def make_parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds a variant (default {rounds})")
    parser.add_argument("--json", type=Path, help="also write the tables to this file")
    return parser


class Report:
    """Tables, printed as they come and kept for the JSON file."""

    def __init__(self) -> None:
        self.tables: dict[str, list[Row]] = {}

    def add(self, title: str, rows: list[Row]) -> None:
        self.tables[title] = rows
        cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        print(f"\n{title}")
        for line in cells:
            padded = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
            print("  ".join((line[0].ljust(widths[0]), *padded)), flush=True)

    def write(self, path: Path | None) -> None:
        if path is None:
            return
        machine = {
            "cores": len(os.sched_getaffinity(0)),
            "load_average": os.getloadavg(),
            "python": platform.python_version(),
            "torch": version("torch"),
            "lightning": version("lightning"),
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        }
        path.write_text(json.dumps({"machine": machine, "tables": self.tables}, indent=2) + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
