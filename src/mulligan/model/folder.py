"""A model in a folder: its shape in ``model.json``, its weights in ``model.safetensors``, tied ones once."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from mulligan.model.config import ModelConfig
from mulligan.model.parts import fill
from mulligan.model.shape import SHAPE, read_shape
from mulligan.model.transformer import Transformer
from mulligan.model.weights import empty_weights, model_with_weights

WEIGHTS = "model.safetensors"
# A model with these weights computes the same whatever they are, and may be trained on with others.
_NO_SHAPE = ("dropout", "init_std", "init_by_depth")


class ModelFolder:
    """What ``mulligan export`` wrote to a folder. All but the numbers themselves is checked when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config, self.weights_path = folder, read_shape(folder), folder / WEIGHTS
        if not self.weights_path.is_file():
            raise ValueError(f"{self.weights_path} is missing beside {SHAPE}")
        own = {name: list(weight.shape) for name, weight in empty_weights(self.config).items()}
        try:
            with safe_open(self.weights_path, "pt") as file:
                found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # no mapping
        except SafetensorError as error:
            raise ValueError(f"{self.weights_path} is not a whole safetensors file: {error}") from None
        for name in sorted(own.keys() | found.keys()):
            if own.get(name) != found.get(name):
                raise ValueError(
                    f"{self.weights_path} has {name} of shape {found.get(name, 'nothing')}, "
                    f"{SHAPE} beside it makes it {own.get(name, 'nothing')}"
                )

    def check_fits(self, config: ModelConfig) -> None:
        """Raise ValueError at the first key that makes ``config`` another model.

        Rotary positions have no weights: windows may be of another length.
        """
        free = (*_NO_SHAPE, "max_length") if self.config.positions == "rotary" else _NO_SHAPE
        heads = {"num_key_value_heads": (self.config.key_value_heads, config.key_value_heads)}  # null stands for some
        for key, saved in vars(self.config).items():
            before, now = heads.get(key, (saved, getattr(config, key)))
            if key not in free and before != now:
                raise ValueError(
                    f"initial_weights={self.folder} holds a model of model.{key}={before}: model.{key}={now} must be "
                    "the same; model=initial takes all of its shape"
                )

    def fill(self, model: Transformer) -> None:
        """Copy the weights into those of ``model``, one at a time; of sharded ones each rank keeps its part."""
        with safe_open(self.weights_path, "pt") as file:
            for name, weight in model.named_parameters():
                fill(weight, file.get_tensor(name))

    def model(self, device: torch.device | str) -> Transformer:
        """The model on ``device``, in the type that its weights are stored in."""
        return model_with_weights(self.config, load_file(self.weights_path), device)
