"""Loggers by name: what reaches the disk is read back."""

from pathlib import Path

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
