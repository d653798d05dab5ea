"""What auto means."""

import pytest
import torch

from mulligan.training import hardware
from mulligan.training.hardware import peak_flops, resolve_compile, resolve_precision


@pytest.mark.parametrize(
    ("feature", "expected"), [("amx_bf16", "bf16-mixed"), ("avx512_bf16", "bf16-mixed"), ("", "32-true")]
)
def test_auto_precision_asks_the_processor(monkeypatch: pytest.MonkeyPatch, feature: str, expected: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: True})
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("32-true", "cpu") == "32-true"


def test_auto_compile_asks_whether_the_run_is_long_and_a_compiler_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "can_compile_for_cpu", lambda: True)
    assert not resolve_compile("auto", "cpu", 1e12)
    assert resolve_compile("auto", "cpu", 1e15)
    monkeypatch.setattr(hardware, "can_compile_for_cpu", lambda: False)
    assert not resolve_compile("auto", "cpu", 1e15)
    assert resolve_compile(True, "cpu", 1.0) is True


def test_an_unknown_peak_is_absent() -> None:
    assert peak_flops(torch.device("cpu")) is None
