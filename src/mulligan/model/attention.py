"""Causal grouped-query self-attention on PyTorch's scaled_dot_product_attention.

Shapes: B batch, T positions, D width, H query heads, G key-value heads, K head width, P cached positions.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mulligan.model.config import ModelConfig
from mulligan.model.norm import make_norm
from mulligan.model.rope import rotate


class Positions(NamedTuple):
    """What attention needs to know of the tokens' places: rotary tables, if any, and the mask, if not plain causal."""

    cos_TK: Tensor | None
    sin_TK: Tensor | None
    mask_B1TT: Tensor | None


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.num_groups = config.num_heads, config.key_value_heads
        self.head_width, self.dropout = config.head_width, config.dropout
        qkv_width = (self.num_heads + 2 * self.num_groups) * self.head_width
        self.qkv = nn.Linear(config.width, qkv_width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm:  # Henry et al. 2020; Dehghani et al. 2023
            self.q_norm = make_norm("rms", self.head_width, eps=config.norm_eps, bias=False)
            self.k_norm = make_norm("rms", self.head_width, eps=config.norm_eps, bias=False)

    def forward(self, x_BTD: Tensor, positions: Positions, cache: list[Tensor] | None = None) -> Tensor:
        batch, length, width = x_BTD.shape
        heads = (self.num_heads, self.num_groups, self.num_groups)
        qkv = self.qkv(x_BTD).split([n * self.head_width for n in heads], dim=-1)
        q_BHTK, k_BGTK, v_BGTK = (
            part.view(batch, length, n, self.head_width).transpose(1, 2) for part, n in zip(qkv, heads, strict=True)
        )
        q_BHTK, k_BGTK = self.q_norm(q_BHTK), self.k_norm(k_BGTK)
        if positions.cos_TK is not None and positions.sin_TK is not None:
            q_BHTK = rotate(q_BHTK, positions.cos_TK, positions.sin_TK)
            k_BGTK = rotate(k_BGTK, positions.cos_TK, positions.sin_TK)
        if cache is not None:
            k_BGTK, v_BGTK = _extend(cache, k_BGTK, v_BGTK)
        attended_BHTK = F.scaled_dot_product_attention(
            q_BHTK.to(v_BGTK.dtype),
            k_BGTK.to(v_BGTK.dtype),
            v_BGTK,
            attn_mask=positions.mask_B1TT,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=positions.mask_B1TT is None and length > 1,
            enable_gqa=self.num_groups != self.num_heads,
        )
        return self.out(attended_BHTK.transpose(1, 2).reshape(batch, length, width))


def _extend(cache: list[Tensor], k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
    """Append to the keys and values kept from earlier calls, in place."""
    if cache:
        k_BGTK, v_BGTK = torch.cat((cache[0], k_BGTK), dim=2), torch.cat((cache[1], v_BGTK), dim=2)
    cache[:] = k_BGTK, v_BGTK
    return k_BGTK, v_BGTK
