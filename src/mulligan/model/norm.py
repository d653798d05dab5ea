"""RMSNorm and LayerNorm behind one constructor."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """Zhang and Sennrich 2019. The weight takes the input's type: mixed ones leave PyTorch's fused kernel."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def make_norm(kind: Literal["rms", "layer"], width: int, *, eps: float, bias: bool) -> nn.Module:
    """RMSNorm or LayerNorm (Ba et al. 2016) over the last axis."""
    if kind == "rms":
        return RMSNorm(width, eps=eps)
    return nn.LayerNorm(width, eps=eps, bias=bias)
