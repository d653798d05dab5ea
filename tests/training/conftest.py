"""Tiny training runs in this process, built as the command line builds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from mulligan.cli.compose import CONF, build, plain
from mulligan.training.run import TrainingRun

MakeRun = Callable[..., TrainingRun]


@pytest.fixture
def make_run(tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str) -> TrainingRun:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", overrides=[*tiny, *overrides], return_hydra_config=False)
        return build(plain(config))

    return make


def silent(*_: Any) -> None:
    """A report and a warning that no one reads."""
