"""Tiny training runs in this process, built as the command line builds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from mulligan.cli.compose import CONF, build, plain
from mulligan.training.run import TrainingRun

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
