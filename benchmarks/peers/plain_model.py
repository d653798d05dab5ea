"""A decoder written as plainly as PyTorch allows, in both forms, and the AdamW that goes with it. No mulligan here.

Shapes: B batch, T positions, D width, H query heads, G key-value heads, K head width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.shapes import ADAMW, INIT_STD, Shape

HalfAngles = tuple[Tensor, Tensor]


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_heads, self.num_groups = shape.num_heads, shape.key_value_heads
        self.head_width = shape.width // shape.num_heads
        bias = shape.form == "gpt2"
        self.qkv = nn.Linear(shape.width, (self.num_heads + 2 * self.num_groups) * self.head_width, bias=bias)
        self.out = nn.Linear(shape.width, shape.width, bias=bias)

    def forward(self, x_BTD: Tensor, angles: HalfAngles | None) -> Tensor:
        heads_BHTK = self.qkv(x_BTD).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        q_BHTK, k_BGTK, v_BGTK = heads_BHTK.split((self.num_heads, self.num_groups, self.num_groups), dim=1)
        if angles is not None:
            q_BHTK, k_BGTK = turn(q_BHTK, angles), turn(k_BGTK, angles)
        grouped = self.num_groups != self.num_heads
        y_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, is_causal=True, enable_gqa=grouped)
        return self.out(y_BHTK.transpose(1, 2).flatten(2))


def turn(x_BHTK: Tensor, angles: HalfAngles) -> Tensor:
    """Rotate the pairs (i, i + K/2), as the published Llama weights want it."""
    cos, sin = (table.to(x_BHTK.dtype) for table in angles)
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gated = shape.form == "llama"
        self.up = nn.Linear(shape.width, shape.feedforward_width * (2 if self.gated else 1), bias=not self.gated)
        self.down = nn.Linear(shape.feedforward_width, shape.width, bias=not self.gated)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if not self.gated:
            return self.down(F.gelu(self.up(x_BTD), approximate="tanh"))
        gate, up = self.up(x_BTD).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = make_norm(shape), make_norm(shape)
        self.attention, self.feedforward = Attention(shape), FeedForward(shape)

    def forward(self, x_BTD: Tensor, angles: HalfAngles | None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm_1(x_BTD), angles)
        return x_BTD + self.feedforward(self.norm_2(x_BTD))


def make_norm(shape: Shape) -> nn.Module:
    norm = nn.RMSNorm if shape.form == "llama" else nn.LayerNorm
    return norm(shape.width, eps=1e-5)


class Decoder(nn.Module):
    """Returns the mean cross-entropy of all targets from full logits."""

    cos_TK: Tensor
    sin_TK: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Embedding(shape.length, shape.width) if shape.form == "gpt2" else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.num_layers))
        self.norm = make_norm(shape)
        self.head = nn.Linear(shape.width, shape.vocab_size, bias=False)
        self.head.weight = self.embedding.weight
        head_width = shape.width // shape.num_heads
        rates = shape.rope_theta ** -(torch.arange(0, head_width, 2) / head_width)
        angles_TK = torch.outer(torch.arange(shape.length), rates)
        self.register_buffer("cos_TK", angles_TK.cos(), persistent=False)
        self.register_buffer("sin_TK", angles_TK.sin(), persistent=False)
        self.apply(draw_weights)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        angles = None
        if self.positions is None:
            angles = self.cos_TK, self.sin_TK
        else:
            x_BTD = x_BTD + self.positions.weight
        for block in self.blocks:
            x_BTD = block(x_BTD, angles)
        logits_BTV = self.head(self.norm(x_BTD))
        return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def draw_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def make_adamw(model: nn.Module) -> torch.optim.AdamW:
    """Fused, with decay on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, **ADAMW, fused=True)


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
