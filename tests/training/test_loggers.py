"""Loggers by name: what reaches the disk is read back."""

import csv
from pathlib import Path

from lightning.pytorch.callbacks import LambdaCallback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
