"""Linear head, cross-entropy, z-loss and label smoothing in one operator that never holds the full logits.

The logits of a row chunk are made, turned into their own gradient in place, multiplied back into the two inputs'
gradients and dropped, all in the forward pass; backward only scales. Peak memory is a few (chunk, vocabulary) buffers
instead of several (tokens, vocabulary) ones.

Shapes: N tokens, V vocabulary, D width, R rows of one chunk.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mulligan.objective.row_loss import SCRATCH_ELEMENTS, RowLoss, sum_dtype

CHUNK_BYTES = 2**27  # logits held at once: 2,048 rows of 32k in bfloat16, below which the products lose speed
CPU_CHUNK_BYTES = 2**26  # the same in float32 on a CPU: as fast as 2**27, a quarter takes 1.07 times as long
CPU_CHUNK_ROWS = 256  # at least: fewer cost the products more than a twentieth of their speed
GPU_CHUNK_ROWS = 2048  # at least: each chunk reads and writes the weight's whole gradient
# Of the weight: MKL packs it for each product, 17 MB of 32k columns at once, and with AVX-512 a quarter of this tile
# takes 1.2 to 1.4 times as long as the whole.
TILE_ELEMENTS = 2**21


class Terms(NamedTuple):
    """Sums over the counted tokens, in nats. ``loss_sum`` is that of the three terms and alone carries a gradient."""

    loss_sum: Tensor
    cross_entropy_sum: Tensor
    z_sum: Tensor
    smoothing_sum: Tensor
    num_counted: Tensor


def linear_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    ignore_index: int = -100,
    chunk_rows: int | None = None,
) -> Terms:
    """Return the summed loss terms of ``hidden @ weight.T`` against ``targets``, chunk by chunk.

    For a row with logits l, lse = logsumexp(l) and target t:

    - cross-entropy: ``lse - l[t]``
    - z: ``z_loss * lse**2`` (PaLM, section 5; Chowdhery et al. 2022)
    - smoothing: ``label_smoothing * (l[t] - mean(l))``, so that cross-entropy + smoothing is
      ``torch.nn.functional.cross_entropy(..., label_smoothing=...)``

    The products run in the autocast type, or in the type of ``hidden``, which the logits are rounded to; all that
    follows and the sums are in float32 (float64 for float64 input). Rows whose target is ``ignore_index`` count for
    nothing. ``softcap`` caps the logits as ``softcap * tanh(logits / softcap)`` (Gemma 2).
    """
    if hidden_ND.ndim != 2 or weight_VD.ndim != 2 or hidden_ND.shape[1] != weight_VD.shape[1]:
        raise ValueError(
            f"hidden {tuple(hidden_ND.shape)} and weight {tuple(weight_VD.shape)} must be (N, D) and (V, D)"
        )
    if targets_N.shape != hidden_ND.shape[:1]:
        raise ValueError(f"targets {tuple(targets_N.shape)} must be ({hidden_ND.shape[0]},), one for each hidden row")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing={label_smoothing} must be in [0, 1)")
    if not 0.0 <= z_loss < math.inf:
        raise ValueError(f"z_loss={z_loss} must be a number that is not negative")
    if softcap is not None and not 0.0 < softcap < math.inf:
        raise ValueError(f"softcap={softcap} must be a number above 0, or None")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows={chunk_rows} must be at least 1, or None")
    device_type = hidden_ND.device.type
    autocast = torch.is_autocast_enabled(device_type)
    compute_dtype = torch.get_autocast_dtype(device_type) if autocast else hidden_ND.dtype
    if chunk_rows is None:
        chunk_rows = rows_of_a_chunk(
            len(hidden_ND), len(weight_VD), bytes_of_a_logit=compute_dtype.itemsize, on_cpu=device_type == "cpu"
        )
    if not torch.is_grad_enabled():  # a parameter asks for its gradient even then
        hidden_ND, weight_VD = hidden_ND.detach(), weight_VD.detach()
    row_loss = RowLoss(z_loss, label_smoothing, softcap, ignore_index)
    with torch.autocast(device_type, enabled=False):
        sums = _ChunkedLoss.apply(hidden_ND, weight_VD, targets_N, row_loss, chunk_rows, compute_dtype)
    return Terms(*sums)


def rows_of_a_chunk(tokens: int, vocabulary: int, *, bytes_of_a_logit: int, on_cpu: bool) -> int:
    """Rows whose logits are held at once, the same number in every chunk but for rounding."""
    row_bytes = bytes_of_a_logit * vocabulary
    if on_cpu and bytes_of_a_logit >= 4:
        rows = max(CPU_CHUNK_ROWS, CPU_CHUNK_BYTES // row_bytes)
    else:
        rows = max(1 if on_cpu else GPU_CHUNK_ROWS, CHUNK_BYTES // row_bytes)
    num_chunks = max(1, math.ceil(tokens / rows))
    return max(1, math.ceil(tokens / num_chunks))


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        rows: RowLoss,
        chunk_rows: int,
        compute_dtype: torch.dtype,
    ) -> tuple[Tensor, ...]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        weight_c_VD = weight_VD.detach().to(compute_dtype)
        hidden_grad_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        make = torch.empty_like if len(hidden_ND) else torch.zeros_like  # the first chunk writes all of it
        weight_grad_VD = make(weight_VD, dtype=sum_dtype(compute_dtype)) if needs_weight else None
        counted_N1 = (targets_N != rows.ignore_index).unsqueeze(1)
        target_N1 = targets_N.unsqueeze(1).where(counted_N1, 0)
        sums_3 = hidden_ND.new_zeros(3, dtype=sum_dtype(compute_dtype))
        factor_C1 = hidden_ND.new_empty((min(chunk_rows, len(hidden_ND)), 1), dtype=sum_dtype(compute_dtype))
        # Buffers are made once: fresh ones for each chunk cost a tenth of the time in page faults on a CPU.
        buffer_CV = hidden_ND.new_empty((min(chunk_rows, len(hidden_ND)), len(weight_VD)), dtype=compute_dtype)
        scratch_RV = rows.scratch(buffer_CV)
        product_VD = _product_buffer(weight_grad_VD, compute_dtype)

        for start in range(0, len(hidden_ND), chunk_rows):
            chunk = slice(start, start + chunk_rows)
            hidden_CD = hidden_ND[chunk].detach()
            logits_CV = buffer_CV[: len(hidden_CD)]
            _multiply(hidden_CD.to(compute_dtype), weight_c_VD, logits_CV)
            for block in range(0, len(logits_CV), len(scratch_RV)):
                block_rows = slice(block, min(block + len(scratch_RV), len(logits_CV)))
                factor_C1[block_rows], sums = rows.replace_by_gradient(
                    logits_CV[block_rows], scratch_RV, target_N1[chunk][block_rows], counted_N1[chunk][block_rows]
                )
                sums_3 += sums
            factor = factor_C1[: len(hidden_CD)]  # on the narrow side of each product
            if hidden_grad_ND is not None:
                hidden_grad_ND[chunk] = (logits_CV @ weight_c_VD) * factor
            if weight_grad_VD is not None:
                scaled_CD = (hidden_CD * factor).to(compute_dtype)
                _add_product(weight_grad_VD, logits_CV, scaled_CD, product_VD, begins=start == 0)

        ctx.grads = hidden_grad_ND, None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype)
        cross_entropy, z, smoothing = sums_3.unbind()
        num_counted = counted_N1.sum()
        ctx.mark_non_differentiable(cross_entropy, z, smoothing, num_counted)
        return sums_3.sum(), cross_entropy, z, smoothing, num_counted

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        if torch.is_grad_enabled():  # once_differentiable would look at grads alone, and miss what depends on hidden
            raise RuntimeError("linear_cross_entropy has no second derivative: leave create_graph at False")
        if ctx.grads is None:
            raise RuntimeError("linear_cross_entropy keeps its gradients for one backward only")
        scaled = (None if grad is None else grad.mul_(grads[0].to(grad.dtype)) for grad in ctx.grads)
        ctx.grads, (hidden_grad_ND, weight_grad_VD) = None, scaled
        return hidden_grad_ND, weight_grad_VD, None, None, None, None


def _multiply(hidden_CD: Tensor, weight_VD: Tensor, logits_CV: Tensor) -> None:
    """Write ``hidden @ weight.T`` into ``logits``."""
    by_mkl = not weight_VD.is_cuda and weight_VD.dtype.itemsize >= 4
    tile_rows = max(1, TILE_ELEMENTS // weight_VD.shape[1]) if by_mkl else len(weight_VD)
    for weight_RD, logits_CR in zip(weight_VD.split(tile_rows), logits_CV.split(tile_rows, dim=1), strict=True):
        torch.mm(hidden_CD, weight_RD.T, out=logits_CR)


def _product_buffer(total_VD: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Where a product in another type than ``total``'s is made before it is added; a GPU needs none."""
    if total_VD is None or total_VD.dtype == dtype or total_VD.is_cuda:
        return None
    return torch.empty_like(total_VD, dtype=dtype)


def _add_product(
    total_VD: Tensor, grad_CV: Tensor, hidden_CD: Tensor, product_VD: Tensor | None, *, begins: bool
) -> None:
    """Add ``grad.T @ hidden`` to ``total`` in the type of ``total``, or have it ``begin`` with that."""
    if grad_CV.dtype == total_VD.dtype:
        total_VD.addmm_(grad_CV.T, hidden_CD, beta=0.0 if begins else 1.0)
    elif product_VD is None:
        if begins:
            torch.mm(grad_CV.T, hidden_CD, out_dtype=total_VD.dtype, out=total_VD)
        else:
            torch.addmm(total_VD, grad_CV.T, hidden_CD, out_dtype=total_VD.dtype, out=total_VD)
    else:
        torch.mm(grad_CV.T, hidden_CD, out=product_VD)
        num_rows = max(1, SCRATCH_ELEMENTS // total_VD.shape[1])
        for total_RD, product_RD in zip(total_VD.split(num_rows), product_VD.split(num_rows), strict=True):
            # What is added is first copied in the wider type, which stays near the cache: four times faster.
            (total_RD.copy_ if begins else total_RD.add_)(product_RD)
