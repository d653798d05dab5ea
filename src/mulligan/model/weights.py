"""Weights by name: their hash, and a model built from them."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """One hash over the name, type, shape and bytes of every weight, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        cpu = state[name].detach().contiguous().cpu()
        digest.update(f"{name}:{cpu.dtype}:{tuple(cpu.shape)}:".encode())
        digest.update(cpu.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def empty_weights(config: ModelConfig) -> dict[str, Tensor]:
    """Every weight of such a model, tied ones once, on the meta device: shapes without numbers."""
    with torch.device("meta"):
        return {name: weight.detach() for name, weight in Transformer(config).named_parameters()}


def model_with_weights(config: ModelConfig, state: dict[str, Tensor], device: torch.device | str) -> Transformer:
    """A model on ``device`` that holds ``state``, in the type the weights have."""
    with torch.device("meta"):
        model = Transformer(config)
    return model.to(next(iter(state.values())).dtype).load_weights(state, device)
