"""What auto means."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mulligan.training import hardware
from mulligan.training.hardware import memory_bytes, peak_flops, resolve_compile, resolve_precision
from mulligan.training.trainer import make_trainer


@pytest.mark.parametrize(
    ("feature", "expected"), [("amx_bf16", "bf16-mixed"), ("avx512_bf16", "bf16-mixed"), ("", "32-true")]
)
def test_auto_precision_asks_the_processor(monkeypatch: pytest.MonkeyPatch, feature: str, expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: True})
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("32-true", "cpu") == "32-true"


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_a_gpu_without_bf16_takes_float16(monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str) -> None:
    """PyTorch says yes to bf16 that is only emulated, unless asked without that."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_bf16
    )
    assert resolve_precision("auto", "cuda") == expected


def test_auto_compile_asks_whether_the_run_is_long_and_a_compiler_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "can_compile_for_cpu", lambda: True)
    assert not resolve_compile("auto", "cpu", 1e12)
    assert resolve_compile("auto", "cpu", 1e15)
    assert resolve_compile(True, "cpu", 1.0) is True
    monkeypatch.setattr(hardware, "can_compile_for_cpu", lambda: False)
    assert not resolve_compile("auto", "cpu", 1e15)
    with pytest.raises(ValueError, match=r"compile=true needs a C\+\+ compiler"):
        resolve_compile(True, "cpu", 1.0)


def test_a_gpu_has_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=85 * 10**9))
    assert memory_bytes(torch.device("cuda")) == 85 * 10**9
    assert memory_bytes(torch.device("cpu")) is None


@pytest.mark.parametrize("accelerator", ["gpu", "cpu"])
@pytest.mark.parametrize("chosen", [True, False])
def test_a_gpu_gives_the_same_bits_unless_told_otherwise(
    accelerator: str, chosen: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The kernels of a CPU do so by themselves, and torch's other ones for it are slower."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked: dict[str, Any] = {}

    def trainer(**options: Any) -> Any:
        asked.update(options)
        raise TypeError("there is no GPU")

    with pytest.raises(ValueError, match="there is no GPU"):
        make_trainer(
            partial(trainer, accelerator=accelerator),
            "32-true",
            deterministic=chosen,
            num_steps=1,
            log_every_n_steps=1,
            folder=tmp_path,
            loggers=[],
            callbacks=[],
        )
    assert asked["deterministic"] is (True if chosen and accelerator == "gpu" else None)
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


def test_an_unknown_peak_is_absent() -> None:
    assert peak_flops(torch.device("cpu")) is None
