"""Causal grouped-query self-attention on PyTorch's scaled_dot_product_attention, or inside documents on its kin.

Shapes: B batch, T positions, D width, H query heads, G key-value heads, K head width, P cached positions. Under tensor
parallelism H and G are this rank's.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from mulligan.model.config import ModelConfig
from mulligan.model.cpu_attention import attend_apart, goes_by_products
from mulligan.model.document_attention import attend_inside
from mulligan.model.norm import make_norm
from mulligan.model.rope import rotate


class Positions(NamedTuple):
    """What attention needs to know of the tokens' places: rotary tables, if any, and what it sees, if not plain causal:
    a mask, or the documents in a form of ``document_attention``.
    """

    cos_TK: Tensor | None
    sin_TK: Tensor | None
    mask_B1TT: Tensor | None
    documents: Tensor | BlockMask | None


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_width, self.dropout = config.head_width, config.dropout
        key_value_width = config.key_value_heads * config.head_width
        self.q = nn.Linear(config.width, config.width, bias=config.bias)
        self.k = nn.Linear(config.width, key_value_width, bias=config.bias)
        self.v = nn.Linear(config.width, key_value_width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm:  # Henry et al. 2020; Dehghani et al. 2023
            self.q_norm = make_norm("rms", self.head_width, eps=config.norm_eps, bias=False)
            self.k_norm = make_norm("rms", self.head_width, eps=config.norm_eps, bias=False)

    def forward(self, x_BTD: Tensor, positions: Positions, cache: list[Tensor] | None = None) -> Tensor:
        q_BHTK, k_BGTK, v_BGTK = (
            project(x_BTD).unflatten(-1, (-1, self.head_width)).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        q_BHTK, k_BGTK = self.q_norm(q_BHTK), self.k_norm(k_BGTK)
        if positions.cos_TK is not None and positions.sin_TK is not None:
            q_BHTK = rotate(q_BHTK, positions.cos_TK, positions.sin_TK)
            k_BGTK = rotate(k_BGTK, positions.cos_TK, positions.sin_TK)
        if cache is not None:
            k_BGTK, v_BGTK = _extend(cache, k_BGTK, v_BGTK)
        q_BHTK, k_BGTK = q_BHTK.to(v_BGTK.dtype), k_BGTK.to(v_BGTK.dtype)
        dropout = self.dropout if self.training else 0.0
        is_causal = positions.mask_B1TT is None and q_BHTK.shape[2] > 1
        if positions.documents is not None:
            attended_BHTK = attend_inside(q_BHTK, k_BGTK, v_BGTK, positions.documents)
        elif self.training and is_causal and not dropout and goes_by_products(q_BHTK):
            attended_BHTK, _ = attend_apart(q_BHTK, k_BGTK, v_BGTK, None)
        else:
            if q_BHTK.is_cuda and (positions.mask_B1TT is not None or q_BHTK.dtype.itemsize > 2):
                # Of a GPU's kernels those for 16 bits without a mask know groups, and one that holds every score.
                k_BGTK, v_BGTK = (x.repeat_interleave(q_BHTK.shape[1] // x.shape[1], dim=1) for x in (k_BGTK, v_BGTK))
            attended_BHTK = F.scaled_dot_product_attention(
                q_BHTK,
                k_BGTK,
                v_BGTK,
                attn_mask=positions.mask_B1TT,
                dropout_p=dropout,
                is_causal=is_causal,
                enable_gqa=q_BHTK.shape[1] != k_BGTK.shape[1],
            )
        return self.out(attended_BHTK.transpose(1, 2).flatten(2))


def _extend(cache: list[Tensor], k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
    """Append to the keys and values kept from earlier calls, in place."""
    if cache:
        k_BGTK, v_BGTK = torch.cat((cache[0], k_BGTK), dim=2), torch.cat((cache[1], v_BGTK), dim=2)
    cache[:] = k_BGTK, v_BGTK
    return k_BGTK, v_BGTK
