"""The table and the picture of docs/performance.md from what `python -m benchmarks --json PATH` wrote.

    python -m benchmarks.page PATH... [--page docs/performance.md] [--picture docs/performance.png]

The table takes the place of the lines between the page's two marks. The picture shows how far each judged row is from
its target: to the right of the line by as many times as it is better. Several files are parts that were run one by one.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.report import Row, by_command, cell

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
ALIKE = ("processor", "cores", "python", "torch")  # in all files of one page
TICKS = (0.1, 0.2, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
COLOURS = {"pass": "#1f5f99", "short": "#c8433f"}


def table(machine: dict[str, Any], judged: list[Row]) -> str:
    """A table of Markdown for each part, and a line that names the machine."""
    load = ", ".join(f"{one:.1f}" for one in machine["load_average"])
    about = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, torch {machine['torch']}"
    lines = [f"{about}; load average {load} at the end."]
    for command, rows in by_command(judged):
        body = [f"| {' | '.join(map(cell, row.values()))} |" for row in rows]
        lines += ["", f"`{command}`", "", f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}", *body]
    return "\n".join(lines)


def times_better(row: Row) -> float:
    """How many times the judged number is better than its target."""
    relation, target = row["target"].split()
    judged = row["ours"] if row["ratio"] is None else row["ratio"]
    return judged / float(target) if relation == ">=" else float(target) / judged


def draw(rows: list[Row], picture: Path) -> None:
    rows = [row for row in rows if row["verdict"] in COLOURS][::-1]
    reach = [1.0, *map(times_better, rows)]
    figure = Figure(figsize=(9.0, 1.0 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.plot([1.0, times_better(row)], [place, place], color=COLOURS[row["verdict"]], linewidth=1.2)
        axes.plot(times_better(row), place, "o", color=COLOURS[row["verdict"]], markersize=5)
    axes.axvline(1.0, color="#444444", linewidth=1.0)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [f"{row['what']}  ({row['target']})" for row in rows], fontsize=8)
    axes.set_xlabel("times better than the target; red falls short")
    axes.set_xlim(0.8 * min(reach), 1.2 * max(reach))
    axes.grid(alpha=0.25, axis="x")
    figure.savefig(picture, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, nargs="+")
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    parser.add_argument("--picture", type=Path, default=Path("docs/performance.png"))
    options = parser.parse_args()
    contents = [json.loads(path.read_text()) for path in options.measured]
    machines = {tuple(content["machine"][key] for key in ALIKE) for content in contents}
    if len(machines) > 1:
        parser.error(f"the files are of different machines or versions: {machines}")
    judged = [row for content in contents for row in content["judged"]]
    before, _, rest = options.page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    measured = table(contents[-1]["machine"], judged)
    options.page.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}")
    draw(judged, options.picture)


if __name__ == "__main__":
    main()
