"""A rank is killed outside of training: the other says so in one line and ends, in time."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mulligan.launcher import RANKS_LOST
from tests.conftest import environment

ROOT = Path(__file__).parents[2]
SECONDS = 60.0  # on a busy machine: half of it imports


@pytest.mark.parametrize(
    ("at", "trainer", "rank", "says"),
    [
        ("rendezvous", "cpu_ddp", 1, "mulligan: the ranks have lost each other; LOCAL_RANK=1 has ended with exit code"),
        pytest.param("rendezvous", "cpu_ddp", 0, "the one that started this one has ended", marks=pytest.mark.slow),
        pytest.param("setup", "cpu_ddp", 1, "mulligan train: the ranks have lost each", marks=pytest.mark.slow),
        pytest.param("setup", "cpu_ddp", 0, "LOCAL_RANK=1: the ranks have lost each", marks=pytest.mark.slow),
        pytest.param("teardown", "cpu_fsdp", 1, "mulligan train: the ranks have lost each", marks=pytest.mark.slow),
        pytest.param("teardown", "cpu_fsdp", 0, "LOCAL_RANK=1: the ranks have lost each", marks=pytest.mark.slow),
        ("evaluation", "cpu_ddp", 0, "mulligan train LOCAL_RANK=1: the ranks have lost each other; one has died"),
    ],
)
def test_a_rank_that_dies_before_or_after_training(
    at: str, trainer: str, rank: int, says: str, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    keys = (f"trainer={trainer}", "max_steps=2", "+callbacks.die._target_=tests.training.dying.Die")
    command = [sys.executable, "-m", "mulligan", "train", *tiny, *keys]
    values = environment()
    values["PYTHONPATH"] = os.pathsep.join([str(ROOT), *values.get("PYTHONPATH", "").split(os.pathsep)])
    process = subprocess.Popen(
        [*command, f"+callbacks.die.rank={rank}", f"+callbacks.die.at={at}"], cwd=tmp_path, env=values, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=SECONDS)  # until no rank is left to write
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("mulligan")]  # torch may warn of its sockets
    assert says in line
    assert process.returncode == (RANKS_LOST if rank == 1 else -signal.SIGKILL)
