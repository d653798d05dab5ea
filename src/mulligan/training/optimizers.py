"""What makes a run's optimizer: AdamW with decay on matrices only, fused where PyTorch has it, or one of your own."""

import math
from typing import Protocol, runtime_checkable

from torch import nn
from torch.optim import AdamW, Optimizer


@runtime_checkable  # the command line checks values against it
class OptimizerRecipe(Protocol):
    """``clip_norm`` bounds the norm of a step's gradient; None: nothing does."""

    clip_norm: float | None

    def make(self, model: nn.Module) -> Optimizer:
        """The optimizer of the parameters of ``model``, the same at each call; a group's ``lr`` is its peak rate."""
        ...


class AdamWRecipe:
    """Loshchilov and Hutter 2019. Norm weights, biases and other vectors are not decayed."""

    def __init__(
        self,
        *,
        lr: float,
        betas: list[float],
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        clip_norm: float | None = 1.0,
    ) -> None:
        if not 0.0 < lr < math.inf:
            raise ValueError(f"optimizer.lr={lr} must be above 0")
        if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"optimizer.betas={betas} must be two numbers in [0, 1)")
        if not 0.0 < eps < math.inf:
            raise ValueError(f"optimizer.eps={eps} must be above 0")
        if not 0.0 <= weight_decay < math.inf:
            raise ValueError(f"optimizer.weight_decay={weight_decay} must not be negative")
        if clip_norm is not None and not clip_norm > 0.0:
            raise ValueError(f"optimizer.clip_norm={clip_norm} must be above 0, or null for no clipping")
        self.lr, self.betas, self.eps = lr, (betas[0], betas[1]), eps
        self.weight_decay, self.clip_norm = weight_decay, clip_norm

    def make(self, model: nn.Module) -> AdamW:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)
