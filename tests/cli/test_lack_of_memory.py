"""A model or a step for which the device has no room: one line says what was asked for and what takes less."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mulligan.cli.main import main
from mulligan.model.transformer import Transformer

OF_A_GPU = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which 8.00 MiB is "
    "free. Including non-PyTorch memory, this process has 79.09 GiB memory in use."
)  # torch 2.13's words


def lack_on_gpu(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError(OF_A_GPU)


def lack_on_cpu(*_: Any, **__: Any) -> None:
    torch.empty(2**60)


@pytest.mark.parametrize(
    ("method", "lack", "says"),
    [
        ("materialize", lack_on_gpu, "Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which"),
        ("forward", lack_on_cpu, "out of memory: you tried to allocate 4611686018427387904 bytes; less is needed with"),
    ],
)
def test_one_line_says_what_takes_less(
    method: str,
    lack: Any,
    says: str,
    tiny: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Transformer, method, lack)
    monkeypatch.setattr("sys.argv", ["mulligan", "train", *tiny])
    assert main() == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("mulligan train: out of memory: ")
    assert says in line
    assert "a smaller micro_batch, activation_checkpointing=true" in line
