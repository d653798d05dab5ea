"""What benchmarks print and keep: tables, and the rows that are judged by a target."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def make_parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds a variant (default {rounds})")
    parser.add_argument("--json", type=Path, help="also write the tables to this file")
    return parser


class Report:
    """Tables, printed as they come, and judged rows; both are kept for the JSON file."""

    def __init__(self) -> None:
        self.tables: dict[str, list[Row]] = {}
        self.judged: list[Row] = []

    def add(self, title: str, rows: list[Row]) -> None:
        self.tables[title] = rows
        print_table(title, rows)

    def judge(
        self,
        what: str,
        *,
        ours: float,
        unit: str,
        peer: str = "",
        theirs: float | None = None,
        ratio: float | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Keep one row of the table that `make bench` ends with.

        ``ours`` and ``theirs``, the peer's, are in ``unit``; ``ratio`` is how many times the peer's ours is, taken
        within rounds. The target, one of ``at_least`` and ``at_most``, is for the ratio where there is one, else for
        ``ours``. Without a target the row is shown, not judged.
        """
        judged = ours if ratio is None else ratio
        verdict, target = "-", "-"
        if at_least is not None:
            verdict, target = ("pass" if judged >= at_least else "short"), f">= {at_least:.3g}"
        if at_most is not None:
            verdict, target = ("pass" if judged <= at_most else "short"), f"<= {at_most:.3g}"
        row: Row = {"what": what, "ours": ours, "theirs": theirs, "unit": unit, "they are": peer or None}
        self.judged.append(row | {"ratio": ratio, "target": target, "verdict": verdict})

    def write(self, path: Path | None) -> None:
        """To the file; without one print what was judged, as `python -m benchmarks` does at the end for all parts."""
        if path is None:
            if self.judged:
                print_table("what was judged", self.judged)
            return
        machine = {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average": os.getloadavg(),
            "python": platform.python_version(),
            "torch": version("torch"),
            "lightning": version("lightning"),
            **{name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")},
        }
        judged = [row if "command" in row else {"command": this_command()} | row for row in self.judged]
        content = {"machine": machine, "tables": self.tables, "judged": judged}
        path.write_text(json.dumps(content, indent=2) + "\n")


def this_command() -> str:
    """As it was given, but for where the JSON file goes."""
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "benchmarks are run as python -m benchmarks.NAME"
    words = sys.argv[1:]
    if "--json" in words:
        at = words.index("--json")
        del words[at : at + 2]
    return " ".join(["python", "-m", spec.name.removesuffix(".__main__"), *words])


def by_command(judged: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows that each command gave, without its name."""
    for command, rows in groupby(judged, key=lambda row: row["command"]):
        yield command, [{key: value for key, value in row.items() if key != "command"} for row in rows]


def processor() -> str:
    """Its name, and the instructions that decide which precision pays."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    matrix = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in fields["flags"].split()]
    return f"{fields['model name']} ({', '.join(matrix)})"


def print_table(title: str, rows: list[Row]) -> None:
    cells = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for line in cells:
        padded = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        print("  ".join((line[0].ljust(widths[0]), *padded)), flush=True)


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
