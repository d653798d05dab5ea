"""What a run says of the machine before its first step."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir

from mulligan.cli.compose import CONF, build, plain
from mulligan.cli.train_tables import print_opening
from mulligan.training.run import TrainingRun


@pytest.fixture
def run(tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainingRun:
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made: TrainingRun = build(plain(compose("train", overrides=list(tiny))))
    return made


@pytest.mark.parametrize("has_gpu", [False, True])
def test_a_gpu_that_is_left_alone_is_named(
    has_gpu: bool, run: TrainingRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    print_opening(run)
    assert ("trainer=single_gpu trains on it" in capsys.readouterr().out) == has_gpu


def test_what_a_step_needs_stands_beside_what_the_gpu_has(
    run: TrainingRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.trainer.strategy, "_root_device", torch.device("cuda", 0), raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=85e9))
    print_opening(run)
    assert "of a step's own, of the GPU's 85.0 GB" in capsys.readouterr().out
