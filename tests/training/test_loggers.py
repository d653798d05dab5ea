"""Loggers by name: what reaches the disk is read back."""

import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import MakeRun, silent
from tests.training.test_rewind import WATCHED, sure_at


def test_tensorboard(make_run: MakeRun) -> None:
    make_run("logger=tensorboard", "max_steps=3").train(silent, silent)
    events = EventAccumulator(str(Path("runs/default/tensorboard/version_0"))).Reload()
    assert [event.value for event in events.Scalars("step")] == [1.0, 2.0, 3.0]
    assert {"cross_entropy", "gradient_norm", "attempt"} <= set(events.Tags()["scalars"])


@pytest.mark.filterwarnings("ignore")  # wandb's own
def test_wandb_offline_with_an_event_and_an_alert(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = make_run("logger=wandb", *WATCHED)
    sure_at(run, onset=9, step=10)
    said: list[str] = []
    run.train(silent, said.append)
    run.trainer.loggers[0].experiment.finish()  # else the end of the process writes it out
    (told,) = said
    assert told.startswith("step 10: spike (loss, from step 9 on")
    (written,) = Path("runs/default/wandb").glob("offline-run-*/run-*.wandb")
    parts = (b"gradient_norm", b"interventions", b"mulligan: intervention", told.encode())
    until = time.monotonic() + 20.0  # wandb's own process may still be writing
    while time.monotonic() < until and not all(part in written.read_bytes() for part in parts):
        time.sleep(0.1)
    assert [part in written.read_bytes() for part in parts] == [True] * 4


def test_none(make_run: MakeRun) -> None:
    make_run("logger=none", "max_steps=1").train(silent, silent)
    assert not list(Path("runs/default").rglob("metrics.csv"))
