"""Parts of a user's own, as a config names them."""

from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

OWN = "tests.training.own_parts."
NO_ADAMW = ("~optimizer.betas", "~optimizer.eps", "~optimizer.weight_decay")


class Slow(Optimizer):
    """Takes each third update half back (Zhang et al. 2019). Its state begins with weights, and has numbers."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]  # as PyTorch's are called
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"])
        return loss

    def _move(self, parameter: torch.Tensor, rate: float) -> None:
        state = self.state[parameter]
        if not state:
            state |= {"slow": parameter.clone(), "count": 0, "last": None}
        parameter.add_(parameter.grad, alpha=-rate)
        state["count"] += 1
        if state["count"] % 3 == 0:
            state["slow"].lerp_(parameter, 0.5)
            parameter.copy_(state["slow"])
            state["last"] = float(state["count"])


class SlowRecipe:
    """The embedding, matrices and vectors apart, each with a rate of its own."""

    def __init__(self, *, lr: float, clip_norm: float | None = 1.0) -> None:
        self.lr, self.clip_norm = lr, clip_norm

    def make(self, model: nn.Module) -> Optimizer:
        named = dict(model.named_parameters())
        embedding = [named.pop("embedding.weight")]
        matrices = [parameter for parameter in named.values() if parameter.ndim >= 2]
        vectors = [parameter for parameter in named.values() if parameter.ndim < 2]
        parts = ((embedding, 0.5), (matrices, 1.0), (vectors, 2.0))
        return Slow([{"params": held, "lr": self.lr * factor} for held, factor in parts])


class UnclippedRecipe:
    """Has no clip_norm."""

    def __init__(self, *, lr: float) -> None:
        self.lr = lr

    def make(self, model: nn.Module) -> Optimizer:
        return SGD(model.parameters(), lr=self.lr)


class OneGroupRecipe(SlowRecipe):
    def make(self, model: nn.Module) -> Optimizer:
        return SGD(model.parameters(), lr=self.lr, momentum=0.9, weight_decay=0.01)


class Restless(Slow):
    """Changes what a group says."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]  # as PyTorch's are called
        self.param_groups[0]["seen"] += 1
        return super().step(closure)


class RestlessRecipe(SlowRecipe):
    def make(self, model: nn.Module) -> Optimizer:
        return Restless([{"params": list(model.parameters()), "seen": 0}])


class Listing(Slow):
    """Keeps what no snapshot holds."""

    def _move(self, parameter: torch.Tensor, rate: float) -> None:
        self.state[parameter].setdefault("rates", []).append(rate)


class ListingRecipe(SlowRecipe):
    def make(self, model: nn.Module) -> Optimizer:
        return Listing(model.parameters())
