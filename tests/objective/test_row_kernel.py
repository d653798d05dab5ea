"""The kernel of a GPU. Where there is none, Triton's interpreter runs it, and its compiler compiles it all the same."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import environment

HAS_GPU = torch.cuda.is_available()
# The interpreter of 3.6, which comes with torch 2.11, fails on numpy 2.4.
pytest.importorskip("triton", minversion=None if HAS_GPU else "3.7", reason="comes with PyTorch for GPUs")

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


def test_rows_have_the_loss_and_the_gradient_of_the_operators() -> None:
    interpreter = {} if HAS_GPU else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "compare_row_kernel.py")],
        env=environment() | interpreter, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.stdout == "alike\n", done.stderr


def test_every_variant_compiles_for_a_gpu_that_need_not_be_there(tmp_path: Path) -> None:
    """The interpreter takes what the compiler refuses."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment() | {"TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.stdout == "compiled\n", done.stderr
