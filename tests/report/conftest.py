"""Folders of runs, made up: what a logger and a guard would have written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mulligan.files import write_json
from mulligan.report.metrics import Column
from mulligan.report.run_files import Planned, RunFiles, read_run
from mulligan.stability.ledger import Ledger

PLANNED = Planned(num_steps=12, global_batch=4, sequence_length=8, num_parameters=1234, is_watched=True)
# Judged at step 10, sure at once, seen in attempt 11: back to step 8, without the samples of three steps.
REWIND: dict[str, Any] = {
    "attempt": 11, "step": 11, "judged_step": 10, "onset": 10, "target": 8, "skip": [32, 44], "skip_steps": 3,
    "level": 0, "rate_factor": 1.0, "rate_steps": 0, "trigger": "loss", "loss": 9.0, "centre": 3.0, "limit": 3.5,
    "gradient_norm": 2.0, "time": "2026-01-01T00:00:00+00:00",
}  # fmt: skip
CLOSING = {
    "step": 12, "val_bits_per_byte": 1.25, "xz_bits_per_byte": 1.5, "gzip_bits_per_byte": 2.5, "val_perplexity": 8.0,
    "val_bits_per_token": 3.0, "tokens_per_second": 5000.0, "weights_sha256": "ab" * 32, "sample_prompt": "def ",
    "sample": "def f(): pass",
}  # fmt: skip

MakeRun = Callable[..., RunFiles]


def logged(attempt: int, step: int, loss: float | str, **more: float) -> dict[str, Any]:
    """A row as the training loop logs it."""
    return {
        "attempt": attempt, "step": step, "cross_entropy": loss, "z_loss": 0.01, "label_smoothing": 0.0,
        "gradient_norm": 1.0, "learning_rate": 0.1, "tokens_per_second": 100.0, "goodput": step / attempt,
    } | more  # fmt: skip


def column(attempts: Sequence[int], values: Sequence[float]) -> Column:
    return Column(np.array(attempts), np.array(values))


def points(column: Column) -> list[tuple[int, float]]:
    return list(zip(column.attempts.tolist(), column.values.tolist(), strict=True))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def made_run(tmp_path: Path) -> MakeRun:
    """A run by the rows of its starts, its ledger's lines (kind first) and its summary."""

    def make(
        *starts: Sequence[Mapping[str, Any]],
        ledger: Sequence[tuple[str, Mapping[str, Any]]] = (),
        summary: Mapping[str, Any] | None = None,
        newest_checkpoint: int = 0,
    ) -> RunFiles:
        folder = tmp_path / "made"
        folder.mkdir(exist_ok=True)
        for number, rows in enumerate(starts):
            write_csv(folder / f"metrics/version_{number}/metrics.csv", rows)
        written = Ledger(folder / "ledger.jsonl")
        for kind, entry in ledger:
            written.append(kind, **entry)
        if summary is not None:
            write_json(folder / "summary.json", dict(summary))
        return read_run(folder, PLANNED, written, newest_checkpoint=newest_checkpoint)

    return make


@pytest.fixture
def healed(made_run: MakeRun) -> RunFiles:
    """Finished in 15 attempts, after a rewind from step 11 to 8."""
    before = [logged(step, step, 4.0 - 0.1 * step) for step in range(1, 11)]
    after = [logged(step + 3, step, 3.0) for step in range(9, 13)]
    return made_run([*before, *after], ledger=[("rewind", REWIND)], summary=CLOSING)
