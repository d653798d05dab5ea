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

CHUNK_BYTES = 2**27  # logits held at once: 2,048 rows of 32k in bfloat16, below which the products lose speed
CPU_CHUNK_BYTES = 2**26  # the same in float32 on a CPU: as fast as 2**27, a quarter takes 1.07 times as long
CPU_CHUNK_ROWS = 256  # at least: fewer cost the products more than a twentieth of their speed
GPU_CHUNK_ROWS = 2048  # at least: each chunk reads and writes the weight's whole gradient
# Of the weight: MKL packs it for each product, 17 MB of 32k columns at once, and with AVX-512 a quarter of this tile
# takes 1.2 to 1.4 times as long as the whole.
TILE_ELEMENTS = 2**21
FLOAT16_PEAK = 64.0  # of a row of gradients: of 262k columns a mean entry of 2.4e-4 has all its digits, 65,504 is far
SCRATCH_ELEMENTS = 4 * 2**20  # rows in the type of the sums, worked on while they are near the cache
GPU_SCRATCH_ELEMENTS = 2**26  # the same on a GPU, where each pass over them must outlast its launch


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
    if z_loss < 0.0:
        raise ValueError(f"z_loss={z_loss} must not be negative")
    device_type = hidden_ND.device.type
    autocast = torch.is_autocast_enabled(device_type)
    compute_dtype = torch.get_autocast_dtype(device_type) if autocast else hidden_ND.dtype
    if chunk_rows is None:
        chunk_rows = rows_of_a_chunk(
            len(hidden_ND), len(weight_VD), bytes_of_a_logit=compute_dtype.itemsize, on_cpu=device_type == "cpu"
        )
    if not torch.is_grad_enabled():  # a parameter asks for its gradient even then
        hidden_ND, weight_VD = hidden_ND.detach(), weight_VD.detach()
    row_loss = _RowLoss(z_loss, label_smoothing, softcap, ignore_index)
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


def rows_of_scratch(rows: int, vocabulary: int, *, on_cpu: bool) -> int:
    """Of a chunk's ``rows`` how many are worked on at once, in the type of the sums."""
    return max(1, min(rows, (SCRATCH_ELEMENTS if on_cpu else GPU_SCRATCH_ELEMENTS) // vocabulary))


class _RowLoss(NamedTuple):
    """Loss and logit gradient of single rows."""

    z_loss: float
    label_smoothing: float
    softcap: float | None
    ignore_index: int

    def scratch(self, logits_CV: Tensor) -> Tensor:
        """A buffer in the type of the sums for as many rows as are worked on at once."""
        num_rows = rows_of_scratch(*logits_CV.shape, on_cpu=not logits_CV.is_cuda)
        sum_dtype = _sum_dtype(logits_CV.dtype)
        if sum_dtype == logits_CV.dtype:
            return logits_CV[:num_rows]  # only its length is read: the rows are worked on in place
        return torch.empty_like(logits_CV[:num_rows], dtype=sum_dtype)

    def replace_by_gradient(
        self, logits_RV: Tensor, scratch_RV: Tensor, target_R1: Tensor, counted_R1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Turn the logits in place into d(loss)/d(logits) but for a factor a row; return the factors and three sums."""
        work_RV = logits_RV
        if scratch_RV.dtype != logits_RV.dtype:
            work_RV = scratch_RV[: len(logits_RV)].copy_(logits_RV)
        slope_RV = None
        if self.softcap is not None:
            work_RV.div_(self.softcap).tanh_()
            slope_RV = 1.0 - work_RV.square()
            work_RV.mul_(self.softcap)
        target_logit_R1 = work_RV.gather(1, target_R1)
        mean_logit_R1 = work_RV.mean(1, keepdim=True) if self.label_smoothing else target_logit_R1
        max_R1 = work_RV.amax(1, keepdim=True)
        # One pass, in half the time of a difference and an exponential. The others' sum is needed all the same, so the
        # softmax is taken for exponentials above a base, which is the logsumexp but for what its own sum has lost.
        exp_RV = torch.softmax(work_RV, 1, out=work_RV)
        base_R1 = max_R1 - exp_RV.amax(1, keepdim=True).log()
        target_exp_R1 = exp_RV.gather(1, target_R1)
        others_R1 = exp_RV.scatter_(1, target_R1, 0.0).sum(1, keepdim=True)
        sum_R1 = others_R1 + target_exp_R1
        lse_R1 = base_R1 + sum_R1.log()
        counted_R1 = counted_R1.to(work_RV.dtype)
        sums_3 = torch.stack(
            (
                ((lse_R1 - target_logit_R1) * counted_R1).sum(),
                (self.z_loss * lse_R1.square() * counted_R1).sum(),
                (self.label_smoothing * (target_logit_R1 - mean_logit_R1) * counted_R1).sum(),
            )
        )
        # d/dl of (lse + z lse^2) is exp / sum * (1 + 2 z lse); the target and the uniform part are constants. At the
        # target exp / sum - 1 is minus the others' share: the difference itself has few digits where it is near 0.
        z_slope_R1, uniform = 2.0 * self.z_loss * lse_R1, self.label_smoothing / exp_RV.shape[1]
        factor_R1 = (1.0 + z_slope_R1) / sum_R1
        target_grad_R1 = z_slope_R1 * target_exp_R1 - others_R1 + (self.label_smoothing - uniform) * sum_R1
        if self.label_smoothing:
            exp_RV.sub_(uniform / factor_R1)
        exp_RV.scatter_(1, target_R1, target_grad_R1 / (1.0 + z_slope_R1))
        if slope_RV is not None:
            exp_RV.mul_(slope_RV)
        if logits_RV.dtype == torch.float16:
            peak_R1 = others_R1 + (z_slope_R1.abs() + self.label_smoothing) * sum_R1  # no entry is larger
            scale_R1 = FLOAT16_PEAK / peak_R1.clamp(min=1e-30)
            torch.mul(exp_RV, scale_R1, out=logits_RV)
            factor_R1 = factor_R1 / scale_R1
        elif exp_RV is not logits_RV:
            logits_RV.copy_(exp_RV)
        return factor_R1 * counted_R1, sums_3


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        rows: _RowLoss,
        chunk_rows: int,
        compute_dtype: torch.dtype,
    ) -> tuple[Tensor, ...]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        weight_c_VD = weight_VD.detach().to(compute_dtype)
        hidden_grad_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        make = torch.empty_like if len(hidden_ND) else torch.zeros_like  # the first chunk writes all of it
        weight_grad_VD = make(weight_VD, dtype=_sum_dtype(compute_dtype)) if needs_weight else None
        counted_N1 = (targets_N != rows.ignore_index).unsqueeze(1)
        target_N1 = targets_N.unsqueeze(1).where(counted_N1, 0)
        sums_3 = hidden_ND.new_zeros(3, dtype=_sum_dtype(compute_dtype))
        factor_C1 = hidden_ND.new_empty((min(chunk_rows, len(hidden_ND)), 1), dtype=_sum_dtype(compute_dtype))
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
        if ctx.grads is None:
            raise RuntimeError("linear_cross_entropy keeps its gradients for one backward only")
        scaled = (None if grad is None else grad.mul_(grads[0].to(grad.dtype)) for grad in ctx.grads)
        ctx.grads, (hidden_grad_ND, weight_grad_VD) = None, scaled
        return hidden_grad_ND, weight_grad_VD, None, None, None, None


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


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
        return
    if product_VD is None:
        product_VD, num_rows = torch.mm(grad_CV.T, hidden_CD, out_dtype=total_VD.dtype), len(total_VD)
    else:
        torch.mm(grad_CV.T, hidden_CD, out=product_VD)
        num_rows = max(1, SCRATCH_ELEMENTS // total_VD.shape[1])
    for total_RD, product_RD in zip(total_VD.split(num_rows), product_VD.split(num_rows), strict=True):
        # What is added is first copied in the wider type, which stays near the cache: four times faster.
        (total_RD.copy_ if begins else total_RD.add_)(product_RD)
