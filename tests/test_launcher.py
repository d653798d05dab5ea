"""Who this process is to its launcher, and what a lost rank is told by."""

import subprocess
import sys
import time

import pytest
import torch.distributed as dist

from mulligan.launcher import check_launcher, check_slurm, launched_as, launched_world_size, loss_of_ranks

NAMES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_STEP_ID",
    "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PTY_PORT",
)  # fmt: skip
BY_SRUN = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_NTASKS_PER_NODE": "1"}
IN_SHELL = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_NAME": "interactive"}
BY_TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}


def launch(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "ranks", "named"),
    [
        ({}, None, []),
        (BY_TORCHRUN, 4, []),
        (BY_TORCHRUN | {"RANK": "3"}, 4, ["RANK=3"]),
        (BY_SRUN | {"SLURM_PROCID": "1"}, 2, ["SLURM_PROCID=1"]),
        # torchrun as the second task of srun, where its rendezvous made this rank zero
        (BY_SRUN | BY_TORCHRUN | {"SLURM_PROCID": "1"}, 4, []),
        ({"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "interactive"}, None, []),
        (IN_SHELL | {"SLURM_PROCID": "0", "SLURM_PTY_PORT": "40000"}, None, []),  # typed in a shell of srun --pty
        (IN_SHELL | BY_TORCHRUN, 4, []),
        ({"NODE_RANK": "1"}, None, ["NODE_RANK=1"]),
    ],
)
def test_what_a_launcher_announces(
    values: dict[str, str], ranks: int | None, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch, values)
    assert launched_world_size() == ranks
    assert launched_as() == named
    check_slurm()


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("SLURM_STEP_ID", "SLURM gives this job 2 tasks: start them by srun"),
        ("SLURM_NTASKS_PER_NODE", "SLURM has --ntasks=2 alone: give --ntasks-per-node"),
    ],
)
def test_tasks_that_would_wait_for_ever_are_refused(
    lacking: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch, {name: value for name, value in BY_SRUN.items() if name != lacking})
    with pytest.raises(ValueError, match=message):
        check_slurm()


@pytest.mark.parametrize("more", [{}, {"SLURM_PROCID": "1", "SLURM_PTY_PORT": "40000"}])
def test_a_task_of_srun_that_would_be_a_run_of_its_own_is_refused(
    more: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch, IN_SHELL | more)
    with pytest.raises(ValueError, match=r"SLURM_JOB_NAME=interactive would .*: give srun another --job-name"):
        check_slurm()


def test_ranks_of_a_launcher_that_says_too_little_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kubeflow's PyTorchJob does; under SLURM its own variables count."""
    by_hand = {"RANK": "0", "WORLD_SIZE": "2"}
    launch(monkeypatch, by_hand)
    with pytest.raises(ValueError, match=r"RANK=0 and WORLD_SIZE=2 in the environment without LOCAL_RANK: .*NODE_RANK"):
        check_launcher()
    launch(monkeypatch, by_hand | BY_SRUN)
    check_launcher()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError(
                "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:58089. "
                "This is typically caused by a remote worker crashing."
            ),
            "Connection closed by peer [::1]:58089",
        ),
        (dist.DistStoreError("Timed out after 16 seconds waiting for clients.\nmore"), "Timed out after 16 seconds"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("paths='texts/gloo/*.md' matches no file"), None),
    ],
)
def test_a_lost_rank_is_told_from_other_errors(error: Exception, reason: str | None) -> None:
    found = loss_of_ranks(error)
    assert found is None if reason is None else str(found).startswith(reason)
    assert found is None or "typically" not in found


STARTS = """
import os, subprocess, sys
subprocess.run(sys.argv[1:], env=os.environ | {"MULLIGAN_STARTER": str(os.getpid())})
"""
WAITS = """
import signal, time
print("begun", flush=True)
from mulligan.launcher import end_with_starter
signal.signal(signal.SIGTERM, lambda *_: (print("told", flush=True), exit(0)))
end_with_starter()
print("ready", flush=True)
time.sleep(50)
"""


@pytest.mark.parametrize("when", ["begun", "ready"])
def test_a_process_is_told_when_the_one_that_started_it_is_killed(when: str) -> None:
    """Also where that happened while it began."""
    python = [sys.executable, "-c"]
    with subprocess.Popen([*python, STARTS, *python, WAITS], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert any(line.strip() == when for line in first.stdout)
        first.kill()
        first.wait()
        begun = time.monotonic()
        assert first.stdout.read().splitlines()[-1] == "told"
        assert time.monotonic() - begun < 30.0
