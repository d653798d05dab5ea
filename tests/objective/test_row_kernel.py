"""The kernel of a GPU against the operators it stands for. Where there is none, Triton's interpreter runs it."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from mulligan.objective.row_loss import RowLoss

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is loaded
# The interpreter of 3.6, which comes with torch 2.11, fails on numpy 2.4.
pytest.importorskip("triton", minversion=None if HAS_GPU else "3.7", reason="comes with PyTorch for GPUs")

from mulligan.objective import row_kernel  # noqa: E402  # see above

COMPILE = """
from itertools import product
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mulligan.objective.row_kernel import _row_kernel
pointers = dict(target_ptr="*i64", counted_ptr="*i1", factor_ptr="*fp32", terms_ptr="*fp32")
numbers = dict(z_loss="fp32", label_smoothing="fp32", softcap="fp32", peak="fp32")
for of_logits, caps, smooths, scales in product(("*bf16", "*fp16", "*fp32"), *3 * ((False, True),)):
    constants = dict(CAPS=caps, SMOOTHS=smooths, SCALES=scales, BLOCK=4096)
    signature = {name: "constexpr" if name in constants else "i32" for name in _row_kernel.arg_names}
    signature |= pointers | numbers | {"logits_ptr": of_logits}
    source = ASTSource(_row_kernel, signature, constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8}).asm["cubin"]
print("compiled")
"""
DEVICE = "cuda" if HAS_GPU else "cpu"
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.mark.parametrize("vocabulary", [7, 1000, 5000])  # a part of a block, one, two
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
    ("z_loss", "label_smoothing", "softcap"), list(product((0.0, 1e-3), (0.0, 0.1), (None, 5.0)))
)  # fmt: skip
def test_rows_have_the_loss_and_the_gradient_of_the_operators(
    vocabulary: int, dtype: torch.dtype, z_loss: float, label_smoothing: float, softcap: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_RV = 4.0 * torch.randn(6, vocabulary, generator=generator)
    logits_RV[1] += 500.0  # far from 0, where an exponential without its maximum is infinite
    logits_RV[2, 3] += 60.0  # all but certain, and right
    target_R1 = torch.randint(vocabulary, (6, 1), generator=generator)
    target_R1[2] = 3
    counted_R1 = torch.tensor([True, True, True, False, True, True]).unsqueeze(1)
    logits_RV = logits_RV.to(dtype)
    rows = RowLoss(z_loss, label_smoothing, softcap, -100)
    exact_RV = logits_RV.double()
    exact_factor_R1, exact_3 = rows.replace_by_gradient(exact_RV, exact_RV, target_R1, counted_R1)
    kernel_RV = logits_RV.to(DEVICE)
    factor_R1, terms_R3 = row_kernel.replace_by_gradient(
        kernel_RV, target_R1.to(DEVICE), counted_R1.to(DEVICE), *rows[:3], peak=64.0
    )
    torch.testing.assert_close(terms_R3.sum(0).double().cpu(), exact_3, rtol=1e-5, atol=1e-6)
    assert terms_R3[3].eq(0.0).all()
    assert factor_R1[3] == 0.0
    gradient_RV, exact_RV = (kernel_RV.double() * factor_R1).cpu(), exact_RV * exact_factor_R1
    for one, other in zip(gradient_RV, exact_RV, strict=True):
        assert (one - other).norm() <= TOLERANCES[dtype] * other.norm()
    if dtype == torch.float16:
        assert kernel_RV.abs().max() <= 64.5


def test_a_loss_that_is_no_number_is_none() -> None:
    logits_RV = torch.zeros(2, 5, device=DEVICE)
    logits_RV[0, 1] = float("nan")
    numbers = torch.zeros(2, 1, dtype=torch.int64, device=DEVICE)
    _, terms_R3 = row_kernel.replace_by_gradient(logits_RV, numbers, numbers == 0, 0.0, 0.0, None, peak=64.0)
    assert terms_R3[:, 0].isnan().tolist() == [True, False]


def test_every_variant_compiles_for_a_gpu_that_need_not_be_there(tmp_path: Path) -> None:
    """The interpreter takes what the compiler refuses."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=variables | {"TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.stdout == "compiled\n", done.stderr
