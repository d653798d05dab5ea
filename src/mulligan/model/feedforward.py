"""The position-wise network of a block: SwiGLU (Shazeer 2020) or GPT-2's GELU.

Shapes: B batch, T positions, D width, F feed-forward width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mulligan.model.config import ModelConfig


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = None
        if config.feedforward == "swiglu":
            self.gate = nn.Linear(config.width, config.feedforward_width, bias=config.bias)
        self.up = nn.Linear(config.width, config.feedforward_width, bias=config.bias)
        self.down = nn.Linear(config.feedforward_width, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        up_BTF = self.up(x_BTD)
        if self.gate is None:
            return self.down(F.gelu(up_BTF, approximate="tanh"))
        return self.down(F.silu(self.gate(x_BTD)) * up_BTF)
