"""Rotary position embedding (Su et al. 2021), in the half-rotation layout of the published Llama weights.

Shapes: T positions, K head width, B batch, H heads.
"""

import torch
from torch import Tensor


def rope_table(length: int, head_width: int, theta: float, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, head_width) in float32, made on the CPU so that every device has the same."""
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32, device="cpu") / head_width
    angles_TK = torch.outer(torch.arange(length, dtype=torch.float32, device="cpu"), theta**-exponents).repeat(1, 2)
    return angles_TK.cos().to(device), angles_TK.sin().to(device)


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotate the pairs (i, i + K/2) of each head by the angle of their position."""
    first, second = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos_TK.to(x_BHTK.dtype) + torch.cat((-second, first), dim=-1) * sin_TK.to(x_BHTK.dtype)
