"""What W&B has of a run, read back from its own file; and what becomes of the run when the service is not there."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from lightning.pytorch.callbacks import LambdaCallback

from mulligan.stability.ledger import Ledger
from mulligan.training.callbacks import standstill
from mulligan.training.event_logger import event_loggers
from mulligan.training.run import TrainingRun
from mulligan.training.weights_and_biases import WeightsAndBiases
from tests.conftest import Cli, lines_of
from tests.training.conftest import MakeRun, silent
from tests.training.test_rewind import WATCHED, sure_at
from tests.training.wandb_file import finished, history, updates

pytestmark = pytest.mark.filterwarnings("ignore")  # wandb's own


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def at(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")


def files(folder: Path = Path("runs/default")) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def fitted(run: TrainingRun) -> list[str]:
    said: list[str] = []
    run.fit(silent, said.append)
    return said


def test_a_run_with_a_rewind_is_all_there(make_run: MakeRun) -> None:
    run = make_run("logger=wandb", *WATCHED, "validate_every_n_steps=7")
    sure_at(run, onset=9, step=10)
    said = fitted(run)
    found = finished(*files())
    rows = history(found)
    steps = [(row["attempt"], row["step"]) for row in rows if "gradient_norm" in row]
    assert steps == [(n, n) for n in range(1, 11)] + [(n, n - 5) for n in range(12, 20)]  # 11 went back to 6
    assert [row["_step"] for row in rows] == [row["attempt"] for row in rows]
    assert {"cross_entropy", "z_loss", "label_smoothing", "perplexity", "learning_rate", "tokens_per_second",
            "goodput", "peak_memory_gigabytes"} <= rows[0].keys()  # fmt: skip
    assert any("val_bits_per_byte" in row for row in rows)
    (event,) = (row for row in rows if "interventions" in row)
    assert (event["interventions"], event["attempt"], event["interventions_table/nrows"]) == (1, 11, 1)
    (alert,) = (record.alert for record in found if record.HasField("alert"))
    assert alert.text in said
    assert alert.text.startswith("step 10: spike (loss, from step 9 on")
    table = json.loads(next(Path("runs/default/wandb").rglob("*.table.json")).read_text())
    (entry,) = Ledger(Path("runs/default/ledger.jsonl")).entries
    assert (event["judged_loss"], event["judged_gradient_norm"]) == (entry["loss"], entry["gradient_norm"])
    assert dict(zip(table["columns"], table["data"][0], strict=True)).items() <= entry.items()
    refs = [(record.artifact.type, entry.ref) for record in found for entry in record.artifact.manifest.contents]
    manifest = json.loads(Path("runs/default/data.json").read_text())["folder"] + "/manifest.json"
    assert ("dataset", f"file://{manifest}") in refs
    assert refs[-1] == ("model", Path("runs/default/checkpoints/step_00000014.ckpt").resolve().as_uri())
    summary = json.loads(Path("runs/default/summary.json").read_text())
    assert updates(found, "summary")["weights_sha256"] == summary["weights_sha256"]
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [0]


def test_a_run_that_goes_on_goes_on_there_and_a_copied_one_does_not(make_run: MakeRun) -> None:
    for steps in (4, 8):
        fitted(make_run("logger=wandb", f"max_steps={steps}", "accept_changes=true"))
    first, second = (finished(file) for file in files())
    assert [row["attempt"] for found in (first, second) for row in history(found) if "loss" in row] == list(range(1, 9))
    begun = [next(record.run for record in found if record.HasField("run")) for found in (first, second)]
    assert begun[0].run_id == begun[1].run_id
    shutil.copytree("runs/default", "runs/other")
    (run,) = event_loggers(make_run("logger=wandb", "name=other").trainer.loggers)
    assert isinstance(run, WeightsAndBiases)
    assert run._run_id()[1]


def test_a_failed_run_is_one_there(make_run: MakeRun) -> None:
    run = make_run("logger=wandb", "max_steps=4")
    run.callbacks.append(LambdaCallback(on_train_epoch_end=lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        fitted(run)
    assert [record.exit.exit_code for record in finished(*files()) if record.HasField("exit")] == [1]


def test_a_run_that_is_told_to_stop_is_a_preempted_one_there(make_run: MakeRun) -> None:
    run = make_run("logger=wandb", "max_steps=4")
    run.callbacks.append(LambdaCallback(on_train_start=lambda *_: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(SystemExit):
        fitted(run)
    found = finished(*files())
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [143]
    assert any(record.HasField("preempting") for record in found)


def test_a_warning_is_an_alert_and_no_intervention(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "PATIENCE_STEPS", 1)
    said = fitted(make_run("logger=wandb", "optimizer.lr=1e-7"))
    found = finished(*files())
    (alert,) = (record.alert for record in found if record.HasField("alert"))
    assert alert.title == "mulligan: warning"
    assert alert.text in said
    assert not any(key.startswith("interventions") for row in history(found) for key in row)


def test_a_fork_begins_from_another_run(make_run: MakeRun) -> None:
    fitted(make_run("logger=wandb", "max_steps=2", "logger.wandb.fork_from='first?_step=7'"))
    (begun,) = (record.run for record in finished(*files()) if record.HasField("run"))
    assert (begun.branch_point.run, begun.branch_point.value) == ("first", 7)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu", "cpu_ddp"])
def test_a_service_that_refuses_leaves_the_run_alone(
    mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str
) -> None:
    at(monkeypatch, 9)
    done = mulligan("train", *tiny, "logger=wandb", f"trainer={trainer}")
    (said,) = lines_of(done.stderr)
    assert said.startswith(
        "W&B: http://127.0.0.1:9 is out of reach ([Errno 111] Connection refused); runs/default/wandb"
    )
    found = finished(*files(tmp_path / "runs/default"))
    assert [row["step"] for row in history(found) if "loss" in row] == list(range(1, 9))
    assert updates(found, "config")["global_batch_samples"] == 4


@pytest.mark.slow
def test_a_service_that_never_answers_does_not_hold_the_run(
    mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        at(monkeypatch, server.getsockname()[1])
        done = mulligan("train", *tiny, "logger=wandb", "logger.wandb.patience_seconds=3.0", timeout=60.0)
    (said,) = lines_of(done.stderr)
    assert "is out of reach (timed out)" in said
    assert len([row for row in history(finished(*files(tmp_path / "runs/default"))) if "loss" in row]) == 8


@pytest.mark.parametrize("mistake", ["fork_from=k3h2a9x1", "patience_seconds=0.0"])
def test_mistakes_are_named(make_run: MakeRun, mistake: str) -> None:
    with pytest.raises(InstantiationException, match=mistake.replace("=", "='?")):
        make_run("logger=wandb", f"logger.wandb.{mistake}")
