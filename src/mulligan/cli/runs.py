"""``mulligan runs``: a table of all runs below a folder, a line each."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from omegaconf import DictConfig
from rich.table import Table

from mulligan.cli.compose import build, plain
from mulligan.cli.inspection_view import make_console
from mulligan.cli.output import output_path
from mulligan.cli.saved_run import SavedRun
from mulligan.files import write_json
from mulligan.report.headline import held_out_bits, number, speed_of, state_of
from mulligan.report.run_files import RunFiles

NAMING = ("name=", "folder=")  # overrides that say no more than the first column
NO_RUNS = ("checkpoints", "metrics", "wandb")  # folders of a run that are not searched for others
WRITTEN = ("provenance.jsonl", "ledger.jsonl", "summary.json", "samples.jsonl", "checkpoints")
UNFOLDED = 100_000  # columns, of which the table takes what it needs: a run has one line, which a terminal may wrap


class Runs:
    """The schema of conf/runs.yaml."""

    def __init__(
        self, *, folders: list[str], sort_by: Literal["name", "held_out", "written"], output: str | None
    ) -> None:
        if not folders:
            raise ValueError("folders=[] must name at least one")
        for folder in folders:
            if not Path(folder).is_dir():
                raise ValueError(f"folders={folders}: {folder} is no folder; give one that holds runs, such as runs")
        found = [path for folder in folders for path in runs_below(Path(folder))]
        links_first = sorted(found, key=lambda path: path.absolute() == path.resolve())
        self.runs = sorted({path.resolve(): path for path in links_first}.values())
        if not self.runs:
            raise ValueError(f"folders={folders}: no run is there (no config.yaml with a provenance.jsonl beside it)")
        self.sort_by, self.output = sort_by, output_path(output)


class Line(NamedTuple):
    """What the table says of a run; None where it is not known. ``trouble`` is why the rest is not."""

    folder: str
    state: str
    step: int | None = None
    num_steps: int | None = None
    given_up: int | None = None  # attempts
    interventions: int | None = None
    cross_entropy: float | None = None  # nats a token, of the newest kept step that was logged
    held_out: float | None = None  # bits per byte
    tokens_per_second: float | None = None
    written: str | None = None  # UTC
    overrides: tuple[str, ...] | None = None  # of its latest start
    trouble: str = ""


def runs_below(folder: Path) -> Iterator[Path]:
    """The folders of runs in ``folder``, itself one of them perhaps: training had begun there. Links are followed, each
    to a place that no other name led to.
    """
    for follows_links in (False, True):
        seen: set[str] = set()
        for parent, folders, names in os.walk(folder, followlinks=follows_links):
            place = os.path.realpath(parent)
            if place in seen:
                folders.clear()  # a link that leads back
                continue
            seen.add(place)
            if {"config.yaml", "provenance.jsonl"} <= set(names):
                folders[:] = [name for name in folders if name not in NO_RUNS]
                yield Path(parent)


def work(config: DictConfig) -> None:
    runs: Runs = build(plain(config))
    lines = in_order([line_of(folder) for folder in runs.runs], runs.sort_by)
    show(lines)
    if runs.output is not None:
        write_json(runs.output, [line._asdict() for line in lines])
        print(f"{runs.output} holds all of it")


def in_order(lines: Sequence[Line], sort_by: str) -> list[Line]:
    """``lines`` are by name."""
    if sort_by == "held_out":
        return sorted(
            lines, key=lambda line: math.inf if line.held_out is None or math.isnan(line.held_out) else line.held_out
        )
    return sorted(lines, key=lambda line: line.written or "", reverse=True) if sort_by == "written" else list(lines)


def line_of(folder: Path) -> Line:
    try:
        return _line_of(folder, SavedRun(folder).files())
    except KeyError as error:
        return Line(str(folder), "unreadable", trouble=f"its files have no {error}")
    except Exception as error:  # one that is broken, in whatever way, hides no other
        return Line(str(folder), "unreadable", trouble=" ".join(str(error).split()))


def _line_of(folder: Path, run: RunFiles) -> Line:
    return Line(
        folder=str(folder),
        state=state_of(run)[0],
        step=run.step,
        num_steps=run.planned.num_steps,
        given_up=run.ledger.lost_steps,
        interventions=len(run.ledger.entries),
        cross_entropy=run.newest_kept("cross_entropy"),
        held_out=held_out_bits(run),
        tokens_per_second=speed_of(run),
        written=_written(folder),
        overrides=tuple(run.provenance[-1]["overrides"]) if run.provenance else None,
        trouble=run.unreadable or "",
    )


def _written(folder: Path) -> str:
    """When the run last wrote to its folder; what a report writes there does not count."""
    times = []
    for path in (*map(folder.joinpath, WRITTEN), *folder.rglob("version_*/metrics.csv")):
        with suppress(OSError):  # not every run has each
            times.append(path.stat().st_mtime)
    return datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%d %H:%M")


def show(lines: Sequence[Line]) -> None:
    console, table = make_console(), Table(box=None, pad_edge=False, header_style="")
    for name in ("run", "state"):
        table.add_column(name)
    for name in ("step", "given up", "interventions", "loss", "held-out bits/byte", "tokens/s"):
        table.add_column(name, justify="right")
    for name in ("last written, UTC", "set apart by"):
        table.add_column(name)
    for line, apart in zip(lines, set_apart([line.overrides for line in lines]), strict=True):
        table.add_row(
            line.folder,
            line.state,
            "-" if line.step is None else f"{line.step:,} of {line.num_steps:,}",
            number(line.given_up, ","),
            number(line.interventions, ","),
            number(line.cross_entropy, ".4f"),
            number(line.held_out, ".4f"),
            number(line.tokens_per_second, ",.0f"),
            line.written or "-",
            " ".join(apart),
        )
    console.width = console.measure(table, options=console.options.update(width=UNFOLDED)).maximum
    with console.capture() as printed:
        console.print(table)
    print("\n".join(text.rstrip() for text in printed.get().splitlines()))
    for line in lines:
        if line.trouble:
            print(f"{line.folder}: {line.trouble}")


def set_apart(overrides: Sequence[Sequence[str] | None]) -> list[list[str]]:
    """Of each run's overrides those that not all the runs have that are known of; of a single run all."""
    known = [set(own) for own in overrides if own is not None]
    shared = set.intersection(*known) if len(known) > 1 else set()
    return [[one for one in own or () if one not in shared and not one.startswith(NAMING)] for own in overrides]
