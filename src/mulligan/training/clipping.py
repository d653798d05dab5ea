"""From a gradient to the update: its norm, the clipping, and whether the weights move at all."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from mulligan.distributed import all_reduce_sum, world_size
from mulligan.model.parts import num_copies
from mulligan.training.loss_scale import LossScale

WITHHELD, OVERFLOWED = 1.0, 2.0  # why an update was left out


class Clipping:
    """Clips the gradient of each step to ``max_norm`` and has the updates of bad ones left out.

    ``norm`` is that of the last step's gradient before clipping. ``left_out`` is 0 where its update was made, else
    ``WITHHELD`` or, where the loss scale drove float16 out of its range, ``OVERFLOWED``; None: every one is made.
    Both stay on the device, where fused optimizers heed them. The others get gradients that are clipped, or none where
    the update is left out, and the host waits for that decision.
    """

    def __init__(self, max_norm: float | None, loss_scale: LossScale | None = None) -> None:
        self.max_norm = math.inf if max_norm is None else max_norm
        self.loss_scale = loss_scale
        self.limit: float | None = None  # a gradient above it moves no weight; None: every one moves them
        self.norm: Tensor | None = None
        self.left_out: Tensor | None = None
        self._copies: list[int] | None = None  # of each shard; asked of the mesh once

    def __call__(self, optimizer: Optimizer, sums_2: Tensor, *, withhold: bool = False) -> Tensor:
        """Clip. To ``withhold`` leaves the update out whatever its norm. Of sharded gradients the norm needs a
        collective, and ``sums_2`` comes back summed over the ranks.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self._copies is None:
            self._copies = [num_copies(one, world_size()) for one in parameters if isinstance(one, DTensor)]
        gradients = [_own_part(parameter) for parameter in parameters]
        self.norm, divisor, sums_2 = _measure(
            gradients,
            self.max_norm,
            sums_2,
            copies=self._copies,
            scale=None if self.loss_scale is None else self.loss_scale.scale,
        )
        withheld = torch.ones_like(self.norm, dtype=torch.float32) if withhold else None
        if self.limit is not None and not withhold:
            largest = torch.finfo(self.norm.dtype).max  # so that one comparison finds what is not finite, too
            withheld = (~(self.norm <= min(self.limit, largest))).float()
        self.left_out = found_inf = withheld
        if self.loss_scale is not None:
            overflowed = self.loss_scale.update(self.norm, sums_2[0])
            self.left_out = torch.where(overflowed, OVERFLOWED, 0.0 if withheld is None else withheld)
            found_inf = self.left_out.clamp(max=1.0)
        if getattr(optimizer, "_step_supports_amp_scaling", False):  # PyTorch's mark of the fused ones
            # What they look for, as a gradient scaler sets it: they divide in the pass that they make anyway.
            optimizer.found_inf, optimizer.grad_scale = found_inf, divisor  # type: ignore[attr-defined]  # from outside
        elif found_inf is not None and found_inf.item():
            for parameter in parameters:
                parameter.grad = None  # what has none an optimizer leaves alone, its moments too
        else:
            torch._foreach_div_(gradients, divisor)
        return sums_2


def _measure(
    gradients: list[Tensor],
    max_norm: float,
    sums_2: Tensor,
    *,
    copies: Sequence[int] = (),
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The norm, what ``torch.nn.utils.clip_grad_norm_`` would divide by, and the sums; of gradients that are ``scale``
    times too large or of a rank's shards, each of which so many ranks have (``copies``).
    """
    if copies:
        norm, sums_2 = _over_ranks(gradients, copies, sums_2)
    else:
        norm = _total_norm(gradients)
    if scale is not None:
        norm = norm / scale
    divisor = ((norm.float() + 1e-6) / max_norm).clamp(min=1.0)
    return norm, divisor if scale is None else divisor * scale, sums_2


def _over_ranks(gradients: list[Tensor], copies: Sequence[int], sums_2: Tensor) -> tuple[Tensor, Tensor]:
    """The norm of all shards needs a collective: ``sums_2`` rides in it."""
    squared = torch.zeros_like(sums_2[:1])
    for count in sorted(set(copies)):
        norm = _total_norm([one for one, number in zip(gradients, copies, strict=True) if number == count])
        squared += norm.to(sums_2.dtype).square() / count
    squared_and_sums_3 = all_reduce_sum(torch.cat((squared, sums_2)))
    return squared_and_sums_3[0].sqrt(), squared_and_sums_3[1:]


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """In float32, also of gradients in bf16, whose own 8 bits would make it depend on how they are split."""
    if all(gradient.dtype.itemsize >= 4 for gradient in gradients):
        return get_total_norm(gradients)
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack(norms))


def _own_part(parameter: Tensor) -> Tensor:
    """Its gradient, this rank's shard of it."""
    assert parameter.grad is not None
    return parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
