"""What the files in a run's folder say, read once; what is not there is empty."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mulligan.files import is_exclusive, read_json
from mulligan.report.curve import json_object
from mulligan.report.metrics import EMPTY, Column, read_metrics
from mulligan.report.stretches import stretches
from mulligan.stability.ledger import Ledger

SHOWN = (  # of the columns
    "attempt", "step", "cross_entropy", "z_loss", "label_smoothing", "loss_centre", "loss_limit", "gradient_norm",
    "learning_rate", "tokens_per_second", "mfu", "goodput", "val_cross_entropy", "val_perplexity", "val_bits_per_byte",
)  # fmt: skip


class Planned(NamedTuple):
    """What follows from a run's config."""

    num_steps: int
    global_batch: int
    sequence_length: int
    num_parameters: int
    is_watched: bool  # by a guard: not stability=none

    @property
    def tokens_per_step(self) -> int:
        return self.global_batch * self.sequence_length


class RunFiles(NamedTuple):
    """``unreadable`` says why no metrics could be read, where there are some. ``step`` is the present one, and
    ``is_at_work`` whether a process holds the run.
    """

    name: str
    planned: Planned
    ledger: Ledger
    metrics: dict[str, Column]
    unreadable: str | None
    summary: dict[str, Any]
    provenance: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    step: int
    is_at_work: bool

    @property
    def without_curves(self) -> str | None:
        """Why there is nothing to draw, None where there is."""
        if self.unreadable is not None:
            return f"The metrics cannot be read: {self.unreadable}"
        if "cross_entropy" not in self.metrics:
            return "There are no curves: this run has no CSV logger's metrics (logger=csv), or none yet."
        return None

    @property
    def num_attempts(self) -> int:
        """That are known of: the last ones may not have been logged."""
        logged = int(self.metrics["attempt"].last) if self.metrics else 0
        return max(self.step + self.ledger.lost_steps, logged)

    @property
    def is_finished(self) -> bool:
        """Trained to its end and evaluated."""
        return bool(self.summary) and self.summary["step"] == self.planned.num_steps

    @property
    def is_halted(self) -> bool:
        """Whether nothing came after the halt."""
        entries = self.ledger.entries
        attempts = self.metrics["attempt"].last if self.metrics else 0
        return bool(entries) and entries[-1]["kind"] == "halt" and attempts <= entries[-1]["attempt"]

    def newest_kept(self, name: str) -> float | None:
        """The last value of a column that no rewind gave up, None where there is no such."""
        kept = self.kept(name) if name in self.metrics else EMPTY
        return kept.last if len(kept.values) else None

    def kept(self, name: str, *, per_step: int = 1) -> Column:
        """A column by the steps that were kept, or by ``per_step`` times these: tokens, say."""
        column, lost = self.metrics[name], 0
        steps, values = [EMPTY.attempts], [EMPTY.values]
        for stretch in stretches(self.ledger.entries, self.num_attempts):
            if not stretch.is_kept:
                lost += stretch.last - stretch.after
                continue
            start, stop = np.searchsorted(column.attempts, (stretch.after, stretch.last), side="right")
            steps.append((column.attempts[start:stop] - lost) * per_step)
            values.append(column.values[start:stop])
        return Column(np.concatenate(steps), np.concatenate(values))


def read_run(folder: Path, planned: Planned, ledger: Ledger, *, newest_checkpoint: int) -> RunFiles:
    """Raises ValueError, naming file and line, where JSON is not whole; metrics that cannot be read are left out."""
    is_at_work = is_exclusive(folder / ".lock")  # asked first: a run that ends meanwhile has its summary
    metrics, unreadable = {}, None
    if any(folder.rglob("version_*/metrics.csv")):
        try:
            metrics = read_metrics(folder, SHOWN)
        except ValueError as error:  # a line that a kill cut off, say
            unreadable = str(error)
    summary = read_json(folder / "summary.json", "step") if (folder / "summary.json").is_file() else {}
    steps = [newest_checkpoint, summary.get("step", 0)]
    if "step" in metrics:
        steps.append(_step_after(metrics["step"], ledger))
    return RunFiles(
        name=folder.resolve().name,
        planned=planned,
        ledger=ledger,
        metrics=metrics,
        unreadable=unreadable,
        summary=summary,
        provenance=json_lines(folder / "provenance.jsonl"),
        samples=json_lines(folder / "samples.jsonl"),
        step=max(steps),
        is_at_work=is_at_work,
    )


def _step_after(steps: Column, ledger: Ledger) -> int:
    """The step of the newest attempt that was logged, or what a later intervention made of it."""
    last = ledger.entries[-1] if ledger.entries else None
    return last["target"] if last and "target" in last and last["attempt"] >= steps.attempts[-1] else int(steps.last)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file; a last line that was not written to its end is left out."""
    content = path.read_bytes() if path.is_file() else b""
    found = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        found.append(json_object(f"{path}:{number}", line))
    return found
