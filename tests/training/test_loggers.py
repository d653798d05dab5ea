"""Loggers by name: what reaches the disk is read back."""

import csv
import os
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import LambdaCallback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mulligan.report.metrics import read_metrics
from mulligan.training.csv_logger import CSVLogger
from tests.training.conftest import MakeRun, silent


def test_tensorboard(make_run: MakeRun) -> None:
    make_run("logger=tensorboard", "max_steps=3").train(silent, silent)
    events = EventAccumulator(str(Path("runs/default/tensorboard/version_0"))).Reload()
    assert [event.value for event in events.Scalars("step")] == [1.0, 2.0, 3.0]
    assert {"cross_entropy", "gradient_norm", "attempt"} <= set(events.Tags()["scalars"])


def test_none(make_run: MakeRun) -> None:
    make_run("logger=none", "max_steps=1").train(silent, silent)
    assert not list(Path("runs/default").rglob("metrics.csv"))


def test_what_a_callback_logs_through_lightning_comes_with_the_runs_numbers(make_run: MakeRun) -> None:
    run = make_run("max_steps=6", "log_every_n_steps=3")
    run.callbacks.append(
        LambdaCallback(on_train_batch_end=lambda trainer, module, *_: module.log("mine", float(trainer.global_step)))
    )
    run.train(silent, silent)
    (path,) = Path("runs/default").rglob("metrics.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["mine"]) for row in rows if row["mine"]] == [3.0, 6.0]


def test_a_callback_may_watch_what_validation_found(make_run: MakeRun) -> None:
    stopping = (
        "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val_cross_entropy, patience: 1, min_delta: 9}"
    )
    run = make_run(f"+callbacks.stop={stopping}", "stability=none", "validate_every_n_steps=2")
    run.train(silent, silent)
    assert run.trainer.global_step == 4
    assert (
        run.trainer.callback_metrics["val_cross_entropy"].item() == run.metrics.latest_validation["val_cross_entropy"]
    )


def test_a_new_column_loses_no_line_of_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = CSVLogger(tmp_path, name="metrics", flush_logs_every_n_steps=1)
    for step in range(3):
        logger.log_metrics({"attempt": step, "z": 0.5, 'a "quoted", name': 1.0}, step)
    (path,) = tmp_path.rglob("metrics.csv")
    before = path.read_bytes()

    def without_room(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", without_room)
        with pytest.raises(OSError, match="No space left"):
            logger.log_metrics({"attempt": 3, "new": 7.0}, 3)
    assert path.read_bytes() == before
    logger.log_metrics({"attempt": 4, "new": 8.0, "newer": 9.0}, 4)
    found = read_metrics(tmp_path)
    assert [list(part) for part in found["new"]] == [[4], [8.0]]
    assert list(found["step"].values) == [0.0, 1.0, 2.0, 4.0]
    assert list(found["z"].values) == [0.5] * 3
    assert not list(tmp_path.rglob("*.tmp"))
    path.unlink()
    logger.log_metrics({"attempt": 5, "new": 1.0}, 5)
    assert path.read_text().count("\n") == 2, "a file that somebody took away is begun anew, with its header"


def test_a_csv_logger_that_has_nothing_to_say_makes_no_file(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams({"seed": 0})
    logger.finalize("success")
    assert not list(tmp_path.rglob("metrics.csv"))
