"""A real SLURM: preempted by signal and by requeue, a job goes on and ends with the bits of an undisturbed one."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import environment

BATCH = Path(__file__).parents[1] / "launch/slurm.sbatch"
SECONDS = 300.0  # for each thing waited for; most clusters let a requeued job wait for 120 s
OPTIONS = ("max_steps=600", "log_every_n_steps=20", "validate_every_n_steps=200", "checkpoint.every_n_steps=100")


def idle_nodes() -> int:
    if shutil.which("sinfo") is None:
        return 0
    command = ["sinfo", "--noheader", "--states=idle", "--format=%D"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return 0
    return max(map(int, done.stdout.split()), default=0)


class Job:
    """A job of two nodes with one rank each."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        options = ("--parsable", "--nodes=2", "--ntasks-per-node=1")
        command = ["sbatch", *options, str(BATCH), "trainer=cpu_ddp", *overrides]
        done = subprocess.run(
            command, cwd=folder, env=environment() | {"PATH": path}, capture_output=True, text=True, check=True
        )
        self.number = done.stdout.strip()

    @property
    def log(self) -> str:
        path = self.folder / f"slurm-{self.number}.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def told(self, key: str) -> str:
        shown = subprocess.run(
            ["scontrol", "show", "job", self.number], capture_output=True, text=True, timeout=60, check=True
        )
        found = re.search(rf"\b{key}=(\S+)", shown.stdout)
        assert found is not None, shown.stdout
        return found.group(1)

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not what():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.3)

    def wait_for_step(self, step: int) -> None:
        self.wait_for(lambda: f"step {step}/" in self.log or self.has_ended())
        assert not self.has_ended(), self.log

    def has_ended(self) -> bool:
        return self.told("JobState") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@pytest.fixture
def submit(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Submits jobs from an empty folder, which all nodes must share, and ends them after the test."""
    if idle_nodes() < 2:
        pytest.skip("no SLURM with two idle nodes answers to sinfo")
    jobs: list[Job] = []

    def submitted(*overrides: str) -> Job:
        jobs.append(Job(tmp_path, *overrides))
        return jobs[-1]

    yield submitted
    subprocess.run(["scancel", *(job.number for job in jobs)], timeout=60, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_preempted_job_ends_with_the_same_bits(
    submit: Callable[..., Job], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    whole = submit(*tiny, *OPTIONS, "name=whole")
    whole.wait_for(whole.has_ended)
    assert whole.told("JobState") == "COMPLETED", whole.log

    job = submit(*tiny, *OPTIONS, "name=preempted")
    by_signal = [["scancel", f"--signal={name}", job.number] for name in ("TERM", "USR1")]
    for number, interruption in enumerate([*by_signal, ["scontrol", "requeue", job.number]], start=1):
        job.wait_for_step(number * 140)
        subprocess.run(interruption, timeout=60, check=True)
        job.wait_for(lambda number=number: job.told("Restarts") == str(number) or job.has_ended())
    job.wait_for(job.has_ended)

    assert job.told("JobState") == "COMPLETED", job.log
    assert job.log.count("Exited with exit code 143") >= 4, job.log
    assert job.log.count("going on from step") == 3, "one rank of two speaks, in each start"
    hashes = [
        json.loads((tmp_path / f"runs/{name}/summary.json").read_text())["weights_sha256"]
        for name in ("whole", "preempted")
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_a_mistake_ends_the_job_for_good(submit: Callable[..., Job], tiny: tuple[str, ...]) -> None:
    job = submit(*tiny, "optimizer.lr=-1")
    job.wait_for(job.has_ended)
    assert job.told("JobState") == "FAILED"
    assert job.told("ExitCode") == "2:0"
    assert job.told("Restarts") == "0"
    assert job.log.count("mulligan train: optimizer.lr=-1 must be above 0") == 1
