"""Tiny training runs in this process, built as the command line builds them, or by a program with ranks."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from mulligan.cli.compose import CONF, build, plain
from mulligan.training.run import TrainingRun
from tests.conftest import environment

MakeRun = Callable[..., TrainingRun]
Compose = Callable[..., dict[str, Any]]


@pytest.fixture
def composed(tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """The config of a tiny run, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def composed_with(*overrides: str) -> dict[str, Any]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return plain(compose("train", overrides=[*tiny, *overrides]))

    return composed_with


@pytest.fixture
def make_run(composed: Compose) -> MakeRun:
    return lambda *overrides: build(composed(*overrides))


def silent(*_: Any) -> None:
    """A report and a warning that no one reads."""


def run_program(folder: Path, *arguments: str) -> str:
    """What a program of Python, which starts ranks of its own, says in ``folder``."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=200)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # no rank outlives the test
        process.wait()
    assert process.returncode == 0, output
    return output
