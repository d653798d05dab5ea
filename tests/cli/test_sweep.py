"""Sweeps: every job is a run of its own, of several ranks too, and none is left behind."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mulligan.cli.choices import parsed
from mulligan.cli.sweep import _quoted
from tests.conftest import Cli, environment, lines_of

JOBS = ("trainer=cpu_ddp", "evaluate_bytes=20000", "name=${hydra:job.num}_${optimizer.lr}", "sample_prompt='a b'")


def files(run: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob(pattern))


@pytest.mark.parametrize("text", ["runs/a", "it's", "back\\slash", "end\\", "\\'", "'\\\\"])
def test_a_folder_is_quoted_as_hydra_reads_it(text: str) -> None:
    (override,) = parsed([f"folders=[{_quoted(text)},b]"])
    assert override.value() == [text, "b"]


@pytest.mark.slow
def test_a_job_without_a_folder_is_in_no_table(mulligan: Cli) -> None:
    done = mulligan("train", "-m", f"folder=null,{'x' * 300}", "model.width=-1")
    assert done.returncode == 2
    assert done.stderr.count("ended with exit code 2") == 2
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_job_that_fails_is_named(mulligan: Cli, tiny: tuple[str, ...]) -> None:
    done = mulligan("train", *tiny, "-m", "name=job_${hydra:job.num}", "optimizer.lr=-1.0")
    assert done.returncode == 2
    wrong, failed = lines_of(done.stderr)
    assert wrong == "mulligan train: optimizer.lr=-1.0 must be above 0"
    assert re.fullmatch(r"mulligan train: the job .* optimizer.lr=-1.0 of the sweep ended with exit code 2", failed)


@pytest.mark.slow
def test_a_job_in_the_folder_of_an_earlier_one_is_refused(mulligan: Cli, tiny: tuple[str, ...]) -> None:
    done = mulligan("train", *tiny, "-m", "max_steps=2", "micro_batch=2,4")
    assert done.returncode == 2
    (line,) = lines_of(done.stderr)
    assert line.startswith("mulligan train: the job micro_batch=4 has the folder runs/default of an earlier one")
    assert done.stdout.count("step 2/2 (100%)") == 1


@pytest.mark.slow
def test_jobs_of_two_ranks_are_runs_of_their_own(mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    done = mulligan("train", *tiny, "-m", *JOBS, "max_steps=2", "optimizer.lr=1e-3,-1.0,2e-3")
    assert done.returncode == 2
    assert lines_of(done.stderr) == [
        "mulligan train: optimizer.lr=-1.0 must be above 0",
        "mulligan train: the job optimizer.lr=-1.0 of the sweep ended with exit code 2",
    ]
    assert done.stdout.count("step 2/2 (100%)") == 2, "the other ranks must be silent"
    heading, *table = done.stdout.rstrip().splitlines()[-3:]
    assert heading.split()[:2] == ["run", "state"]
    assert sorted(line.split()[::len(line.split()) - 1] for line in table) == [
        ["runs/0_0.001", "optimizer.lr=0.001"], ["runs/2_0.002", "optimizer.lr=0.002"]
    ]  # fmt: skip
    runs = [tmp_path / "runs/0_0.001", tmp_path / "runs/2_0.002"]
    assert sorted(path for path in (tmp_path / "runs").iterdir() if path.is_dir()) == runs
    for run, rate in zip(runs, (1e-3, 2e-3), strict=True):
        assert files(run, "config*.yaml") == ["config.yaml"]
        config = OmegaConf.load(run / "config.yaml")
        assert (config.optimizer.lr, config.trainer.devices, config.sample_prompt) == (rate, 2, "a b")
        assert files(run, "metrics.csv") == ["metrics/version_0/metrics.csv"]
        rows = list(csv.DictReader((run / "metrics/version_0/metrics.csv").read_text().splitlines()))
        assert [row["step"] for row in rows if row["cross_entropy"]] == ["1", "2"]


def is_gone(group: int, within_seconds: float) -> bool:
    ends = time.monotonic() + within_seconds
    while time.monotonic() < ends:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@contextmanager
def begun(folder: Path, *overrides: str) -> "Iterator[subprocess.Popen[str]]":
    """A sweep over two rates in a process of its own, the first job at step 5; no rank outlives it."""
    command = [sys.executable, "-m", "mulligan", "train", "-m", *overrides, *JOBS, "optimizer.lr=1e-3,2e-3"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any(line.startswith("step 5/") for line in process.stdout), "it ended before"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "end"), [(signal.SIGTERM, os.kill), (signal.SIGINT, os.killpg)])
def test_a_stopped_sweep_saves_the_job_at_hand_and_begins_no_other(
    number: signal.Signals, end: Callable[[int, int], None], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """SIGTERM reaches the first process alone, Ctrl-C all of a terminal."""
    with begun(tmp_path, *tiny, "max_steps=300", "checkpoint.every_n_steps=1000") as process:
        end(process.pid, number)
        process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert is_gone(process.pid, within_seconds=10.0), "a rank is left"
    assert len(files(tmp_path / "runs/0_0.001", "step_*.ckpt")) == 1
    assert not (tmp_path / "runs/1_0.002").exists()


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_job_behind_and_what_it_trained_is_saved(
    tiny: tuple[str, ...], tmp_path: Path
) -> None:
    with begun(tmp_path, *tiny, "max_steps=3000", "checkpoint.every_n_steps=1000") as process:
        process.kill()
        process.communicate(timeout=60)
        assert is_gone(process.pid, within_seconds=30.0), "a rank is left"
    assert len(files(tmp_path / "runs/0_0.001", "step_*.ckpt")) == 1


PREEMPTED = """
import signal, sys
from mulligan.cli.sweep import _run

def requeue(*_):
    print("requeued", flush=True)
    if sys.argv[1] == "first":
        sys.exit(255)

signal.signal(signal.SIGUSR2, requeue)
_run([sys.executable, "-c", sys.argv[2]])
print("a result", flush=True)
"""
SAVES = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), print("saved", flush=True), exit(143)))
print("ready", flush=True)
time.sleep(50)
"""


@pytest.mark.parametrize(("rank", "code"), [("first", 255), ("other", 143)])
def test_a_preempted_job_saves_before_its_launcher_requeues_it(rank: str, code: int) -> None:
    """As SLURM does it: by submitit's signal, to all processes at once."""
    command = [sys.executable, "-c", PREEMPTED, rank, SAVES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGUSR2)
        assert process.stdout.read() == "saved\nrequeued\n"
    assert process.returncode == code


@pytest.mark.slow
def test_submitit_runs_jobs_of_two_ranks(mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="mulligan[slurm] is not installed")
    options = ("-m", "hydra/launcher=submitit_local", *JOBS, "max_steps=2", "optimizer.lr=1e-3,-1.0")
    done = mulligan("train", *tiny, *options, timeout=200.0)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "mulligan train: the job optimizer.lr=-1.0 of the sweep ended with exit code 2"
    )
    assert files(tmp_path / "runs/0_0.001", "summary.json") == ["summary.json"]
    logs = [path.read_text() for path in (tmp_path / "runs/.submitit").rglob("*_log.out")]
    assert sum(log.count("step 2/2 (100%)") for log in logs) == 1


@pytest.mark.slow
def test_a_sweep_of_another_verb_leaves_no_folder_of_its_own(mulligan: Cli, tmp_path: Path) -> None:
    done = mulligan("plan", "-m", "model=mini,tiny", "trainer.devices=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("parameters") >= 2
    assert files(tmp_path, "*") == ["runs", "runs/multirun.yaml"]
