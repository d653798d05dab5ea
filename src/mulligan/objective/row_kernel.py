"""What ``RowLoss`` does in some ten passes over its rows, by one kernel of Triton's, which reads them twice.

A row is one program's: the first pass finds the logsumexp as it goes (Milakov and Gimelshein 2018, "Online normalizer
calculation for softmax"), the second finds most of the row still in the GPU's cache. All is computed in float32.

Shapes: R rows, V vocabulary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_BLOCK = 4096  # logits that a program holds at once, 16 a thread


def replace_by_gradient(
    logits_RV: Tensor,
    target_R1: Tensor,
    counted_R1: Tensor,
    z_loss: float,
    label_smoothing: float,
    softcap: float | None,
    *,
    peak: float,
) -> tuple[Tensor, Tensor]:
    """Turn the logits in place into their gradient but for a factor a row; return the factors, (R, 1), and each row's
    cross-entropy, z and smoothing, (R, 3). In float16 no entry is above ``peak``.
    """
    num_rows, vocabulary = logits_RV.shape
    assert logits_RV.stride(1) == 1
    factor_R1 = logits_RV.new_empty((num_rows, 1), dtype=torch.float32)
    terms_R3 = logits_RV.new_empty((num_rows, 3), dtype=torch.float32)
    _row_kernel[(num_rows,)](
        logits_RV,
        target_R1,
        counted_R1,
        factor_R1,
        terms_R3,
        logits_RV.stride(0),
        target_R1.stride(0),
        counted_R1.stride(0),
        vocabulary,
        z_loss,
        label_smoothing,
        1.0 if softcap is None else softcap,
        peak,
        CAPS=softcap is not None,
        SMOOTHS=label_smoothing > 0.0,
        SCALES=logits_RV.dtype == torch.float16,
        BLOCK=min(MAX_BLOCK, triton.next_power_of_2(vocabulary)),
        num_warps=8,
    )
    return factor_R1, terms_R3


@triton.jit
def _capped(logits, softcap):
    """And the slope there. tanh through an exponential that cannot overflow."""
    shrunk = tl.exp(-2.0 * tl.abs(logits / softcap))
    size = (1.0 - shrunk) / (1.0 + shrunk)
    tanh = tl.where(logits < 0.0, -size, size)
    return softcap * tanh, 1.0 - tanh * tanh


@triton.jit
def _read(logits_ptr, start, vocabulary, softcap, CAPS: tl.constexpr, BLOCK: tl.constexpr):
    """A block of a row: its columns, which of them there are, their logits and, of a soft cap, the slopes."""
    columns = start + tl.arange(0, BLOCK)
    inside = columns < vocabulary
    logits = tl.load(logits_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    slopes = tl.full((BLOCK,), 1.0, tl.float32)
    if CAPS:
        logits, slopes = _capped(logits, softcap)
    return columns, inside, logits, slopes


@triton.jit
def _row_kernel(
    logits_ptr,
    target_ptr,
    counted_ptr,
    factor_ptr,
    terms_ptr,
    logits_stride,
    target_stride,
    counted_stride,
    vocabulary,
    z_loss,
    label_smoothing,
    softcap,
    peak,
    CAPS: tl.constexpr,
    SMOOTHS: tl.constexpr,
    SCALES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * logits_stride
    target = tl.load(target_ptr + row * target_stride)
    counted = tl.load(counted_ptr + row * counted_stride).to(tl.float32)
    # What is no column is no number, as PyTorch's own operators would stop.
    known = (target >= 0) & (target < vocabulary)
    target_logit = tl.load(logits_ptr + target, mask=known, other=float("nan")).to(tl.float32)
    if CAPS:
        target_logit, _target_slope = _capped(target_logit, softcap)

    maximum, others, total = target_logit, 0.0, 0.0
    for start in range(0, vocabulary, BLOCK):
        columns, inside, logits, _ = _read(logits_ptr, start, vocabulary, softcap, CAPS, BLOCK)
        if SMOOTHS:
            total += tl.sum(tl.where(inside, logits, 0.0))
        higher = tl.maximum(maximum, tl.max(tl.where(inside, logits, float("-inf"))))
        exponentials = tl.where(inside & (columns != target), tl.exp(logits - higher), 0.0)
        others = others * tl.exp(maximum - higher) + tl.sum(exponentials)
        maximum = higher

    target_exp = tl.exp(target_logit - maximum)
    exp_sum = others + target_exp
    logsumexp = maximum + tl.log(exp_sum)
    smoothing = 0.0
    if SMOOTHS:
        smoothing = label_smoothing * (target_logit - total / vocabulary)
    terms_ptr += row * 3
    tl.store(terms_ptr, (logsumexp - target_logit) * counted)
    tl.store(terms_ptr + 1, z_loss * logsumexp * logsumexp * counted)
    tl.store(terms_ptr + 2, smoothing * counted)

    # As in RowLoss: at the target the others' share with its sign turned, for exp / sum - 1 has few digits near 0.
    z_slope, uniform = 2.0 * z_loss * logsumexp, label_smoothing / vocabulary
    factor = (1.0 + z_slope) / exp_sum
    target_grad = z_slope * target_exp - others + (label_smoothing - uniform) * exp_sum
    target_grad /= 1.0 + z_slope
    scale = 1.0
    if SCALES:
        largest = others + (tl.abs(z_slope) + label_smoothing) * exp_sum  # no entry is larger
        scale = peak / tl.maximum(largest, 1e-30)
    tl.store(factor_ptr + row, factor / scale * counted)

    for start in range(0, vocabulary, BLOCK):
        columns, inside, logits, slopes = _read(logits_ptr, start, vocabulary, softcap, CAPS, BLOCK)
        gradient = tl.exp(logits - maximum)
        if SMOOTHS:
            gradient -= uniform / factor
        gradient = tl.where(columns == target, target_grad, gradient) * slopes * scale
        tl.store(logits_ptr + columns, gradient.to(logits_ptr.dtype.element_ty), mask=inside)
