"""From a gradient to the update: its norm, the clipping, and whether the weights move at all."""

import math

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mulligan.distributed import all_reduce_sum


class Clipping:
    """Clips the gradient of each step to ``max_norm`` and leaves out the updates of bad ones.

    ``norm`` is that of the last step's gradient before clipping; ``withheld`` is 1 where its update was left out.
    Both stay on the device, where this is decided: fused optimizers leave weights and moments alone then.
    """

    def __init__(self, max_norm: float | None) -> None:
        self.max_norm = math.inf if max_norm is None else max_norm
        self.limit: float | None = None  # a gradient above it moves no weight; None: every one moves them
        self.norm: Tensor | None = None
        self.withheld: Tensor | None = None

    def __call__(self, optimizer: Optimizer, sums_2: Tensor) -> Tensor:
        """Clip. Of sharded gradients the norm needs a collective, and ``sums_2`` comes back summed over the ranks."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if isinstance(parameters[0], DTensor):
            self.norm, sums_2 = _clip_shards([_shard(parameter) for parameter in parameters], self.max_norm, sums_2)
        else:
            self.norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
        self.withheld = None
        if self.limit is not None:
            self.withheld = (~(self.norm.isfinite() & (self.norm <= self.limit))).float()
        # What fused optimizers look for, as a gradient scaler sets it.
        optimizer.found_inf, optimizer.grad_scale = self.withheld, None  # type: ignore[attr-defined]  # set from outside
        return sums_2


def _clip_shards(gradients: list[Tensor], max_norm: float, sums_2: Tensor) -> tuple[Tensor, Tensor]:
    """``torch.nn.utils.clip_grad_norm_`` on each rank's shards. The norm needs a collective: ``sums_2`` rides in it."""
    squared = torch.nn.utils.get_total_norm(gradients).to(sums_2.dtype).square()
    squared_and_sums_3 = all_reduce_sum(torch.cat((squared.reshape(1), sums_2)))
    norm = squared_and_sums_3[0].sqrt()
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm, squared_and_sums_3[1:]


def _shard(parameter: Tensor) -> Tensor:
    assert isinstance(parameter.grad, DTensor)
    return parameter.grad.to_local()
