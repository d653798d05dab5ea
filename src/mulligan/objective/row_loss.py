"""Loss and logit gradient of single rows: in PyTorch's operators, or on a GPU in one kernel.

Shapes: C rows of a chunk, R rows worked on at once, V vocabulary.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mulligan.compilers import can_compile_for_cuda

FLOAT16_PEAK = 64.0  # of a row of gradients: of 262k columns a mean entry of 2.4e-4 has all its digits, 65,504 is far
SCRATCH_ELEMENTS = 4 * 2**20  # rows in the type of the sums, worked on while they are near the cache
GPU_SCRATCH_ELEMENTS = 2**24  # the same on a GPU without the kernel, where each pass over them must outlast its launch
BF16_CAPABILITY = (8, 0)  # Ampere, the first GPUs with instructions for it


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def rows_of_scratch(rows: int, vocabulary: int, *, elements: int = SCRATCH_ELEMENTS) -> int:
    """Of a chunk's ``rows`` how many are worked on at once, in the type of the sums."""
    return max(1, min(rows, elements // vocabulary))


class RowLoss(NamedTuple):
    """Loss and logit gradient of single rows."""

    z_loss: float
    label_smoothing: float
    softcap: float | None
    ignore_index: int

    def scratch(self, logits_CV: Tensor) -> Tensor:
        """A buffer in the type of the sums for as many rows as are worked on at once."""
        if _kernel(logits_CV) is not None:
            return logits_CV  # it needs none, and takes all rows at once
        elements = GPU_SCRATCH_ELEMENTS if logits_CV.is_cuda else SCRATCH_ELEMENTS
        num_rows = rows_of_scratch(*logits_CV.shape, elements=elements)
        wide = sum_dtype(logits_CV.dtype)
        if wide == logits_CV.dtype:
            return logits_CV[:num_rows]  # only its length is read: the rows are worked on in place
        return torch.empty_like(logits_CV[:num_rows], dtype=wide)

    def replace_by_gradient(
        self, logits_RV: Tensor, scratch_RV: Tensor, target_R1: Tensor, counted_R1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Turn the logits in place into d(loss)/d(logits) but for a factor a row; return the factors and three sums."""
        if (kernel := _kernel(logits_RV)) is not None:
            factor_R1, terms_R3 = kernel.replace_by_gradient(
                logits_RV, target_R1, counted_R1, *self[:3], peak=FLOAT16_PEAK
            )
            return factor_R1, terms_R3.sum(0)
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


def _kernel(logits: Tensor) -> Any:
    """The kernel where it can be had; it knows no float64."""
    return _load_kernel(logits.device) if logits.is_cuda and logits.dtype != torch.float64 else None


@cache
def _load_kernel(device: torch.device) -> Any:
    is_able = torch.cuda.get_device_capability(device) >= BF16_CAPABILITY and can_compile_for_cuda()
    if not is_able or find_spec("triton") is None:
        return None
    return import_module("mulligan.objective.row_kernel")
