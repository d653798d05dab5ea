"""The position-wise network of a block: SwiGLU (Shazeer 2020) or GPT-2's GELU.

Shapes: B batch, T positions, D width, F feed-forward width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mulligan.model.config import ModelConfig


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.feedforward == "swiglu"
        up_width = config.feedforward_width * (2 if self.gated else 1)  # gate and up in one product
        self.up = nn.Linear(config.width, up_width, bias=config.bias)
        self.down = nn.Linear(config.feedforward_width, config.width, bias=config.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        up = self.up(x_BTD)
        if self.gated:
            gate_BTF, up_BTF = up.chunk(2, dim=-1)
            return self.down(F.silu(gate_BTF) * up_BTF)
        return self.down(F.gelu(up, approximate="tanh"))
