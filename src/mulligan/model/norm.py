"""RMSNorm and LayerNorm behind one constructor."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """Zhang and Sennrich 2019. The weight takes the input's type: mixed ones leave PyTorch's fused kernel."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class LayerNorm(nn.LayerNorm):
    """Ba et al. 2016. The parameters take the input's type: PyTorch refuses some mixed ones."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), bias, self.eps)


def make_norm(kind: Literal["rms", "layer"], width: int, *, eps: float, bias: bool) -> nn.Module:
    """RMSNorm or LayerNorm over the last axis."""
    if kind == "rms":
        return RMSNorm(width, eps=eps)
    return LayerNorm(width, eps=eps, bias=bias)
