"""A model or a step for which the device has no room: one line says what was asked for and what takes less."""

from typing import Any

import pytest
import torch

from mulligan.model.transformer import Transformer
from tests.conftest import Cli

OF_A_GPU = (
    "Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which 8.00 MiB is free. Process 4711 has "
    "61.00 GiB memory in use. Including non-PyTorch memory, this process has 18.09 GiB memory in use"
)  # torch 2.13's words, and those around them
WORDS = f"CUDA out of memory. {OF_A_GPU}. Of the allocated memory 17.00 GiB is allocated by PyTorch, and 1.00 GiB is"


def lack_on_gpu(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError(WORDS)


def lack_on_cpu(*_: Any, **__: Any) -> None:
    torch.empty(2**60)


@pytest.mark.parametrize(
    ("method", "lack", "asked"),
    [
        ("materialize", lack_on_gpu, OF_A_GPU),
        ("forward", lack_on_cpu, "you tried to allocate 4611686018427387904 bytes"),
    ],
)
def test_one_line_says_what_takes_less(
    method: str, lack: Any, asked: str, tiny: tuple[str, ...], here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transformer, method, lack)
    done = here("train", *tiny)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"mulligan train: out of memory: {asked}; if nobody else uses the device, less is needed")
    assert "a smaller micro_batch, activation_checkpointing=true" in line
