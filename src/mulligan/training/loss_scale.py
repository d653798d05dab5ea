"""The scale that keeps float16 gradients from vanishing.

Micikevicius et al. 2018, "Mixed precision training", section 3.2.
"""

import torch
from torch import Tensor, nn

GROWTH_INTERVAL = 2000  # steps without an overflow before the scale is doubled


class LossScale(nn.Module):
    """A power of two that each loss is multiplied by and each gradient divided by.

    It is halved at an overflow, never below 1, and doubled after ``GROWTH_INTERVAL`` steps in a row without one, all on
    the device. Its state is held in parameters, which no optimizer has: so checkpoints, snapshots and rewinds hold it.
    """

    def __init__(self, *, start: float = 2.0**16) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(start), requires_grad=False)
        self.good_steps = nn.Parameter(torch.tensor(0, dtype=torch.int32), requires_grad=False)

    def update(self, norm: Tensor, loss_sum: Tensor) -> Tensor:
        """Whether a gradient of that norm has overflowed by this scale; the scale is another one then.

        Where the loss itself is not finite, or the scale is 1 already, a smaller one would not help.
        """
        overflowed = ~norm.isfinite() & loss_sum.isfinite() & (self.scale > 1.0)
        torch._amp_update_scale_(self.scale, self.good_steps, overflowed.float(), 2.0, 0.5, GROWTH_INTERVAL)
        return overflowed
