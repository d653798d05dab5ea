"""``mulligan evaluate run=runs/NAME suite=[held_out,lambada]``: what a model is worth, in one table."""

import sys
from pathlib import Path
from traceback import clear_frames

from omegaconf import DictConfig
from rich.table import Table

from mulligan.cli.compose import build, plain
from mulligan.cli.console import Reporter
from mulligan.cli.inspection_view import make_console
from mulligan.cli.output import output_path
from mulligan.cli.saved_model import open_model
from mulligan.evaluation.suites import Score, Subject, Suite, scores_of
from mulligan.files import write_json


class Evaluation:
    """The schema of conf/evaluate.yaml."""

    def __init__(self, *, run: str, suite: dict[str, Suite], batch_size: int, output: str | None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.output = output_path(output)
        self.run, self.suites, self.batch_size = open_model(Path(run)), suite, batch_size

    def subject(self) -> Subject:
        return Subject(
            model=self.run.model(),
            tokenizer=self.run.tokenizer(),
            held_out=self.run.held_out,
            sequence_length=self.run.sequence_length,
            document_mask=self.run.document_mask,
            batch_size=self.batch_size,
            autocast_dtype=self.run.autocast_dtype,
        )


def work(config: DictConfig) -> None:
    evaluation: Evaluation = build(plain(config))
    subject = evaluation.subject()
    scores: dict[str, dict[str, Score]] = {}
    failures: dict[str, Exception] = {}
    with Reporter(speaks=sys.stdout.isatty()) as report:
        for done, (name, suite) in enumerate(evaluation.suites.items()):
            report("evaluating", done, len(evaluation.suites))
            try:
                scores[name] = scores_of(suite, subject)
            except Exception as error:  # the others are worth as much without it
                error.add_note(f"suite.{name}")
                clear_frames(error.__traceback__)  # what it had on the device, which they may need
                failures[name] = error
        report("evaluating", len(evaluation.suites), len(evaluation.suites))
    run, step = evaluation.run, evaluation.run.step
    if evaluation.output is not None:
        suites = {name: {key: score._asdict() for key, score in found.items()} for name, found in scores.items()}
        failed = {name: f"{type(error).__name__}: {error}" for name, error in failures.items()}
        write_json(evaluation.output, {"run": str(run.folder), "step": step, "suites": suites, "failed": failed})
    make_console().print(_table(f"{run.folder}" if step is None else f"{run.folder} at step {step}", scores))
    if failures:
        raise ExceptionGroup("suites that failed", list(failures.values()))


def _table(title: str, scores: dict[str, dict[str, Score]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("suite", "number", "value", "standard error"):
        table.add_column(column, justify="left" if column in ("suite", "number") else "right")
    for suite, found in scores.items():
        for number, (name, score) in enumerate(found.items()):
            table.add_row(
                suite if number == 0 else "",
                name,
                f"{score.value:,}" if isinstance(score.value, int) else f"{score.value:.4f}",
                "" if score.standard_error is None else f"{score.standard_error:.4f}",
            )
    return table
