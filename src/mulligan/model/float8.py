"""Linear layers of the blocks that multiply in float8 (Micikevicius et al. 2022), by torchao.

A layer rounds its weight, its input and the gradient of its output anew for each product, to scales that it takes from
their largest entries. The weights stay as they are, and nothing is kept between steps.
"""

from dataclasses import replace
from typing import Literal

import torch
from torchao.float8 import Float8LinearConfig, convert_to_float8_training

from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer

MULTIPLE = 16  # of entries, what torch._scaled_mm wants each summed and each last dimension to be
CAPABILITY = (8, 9)  # the first of CUDA's with products in float8: Ada, and Hopper after it


class Float8Linears:
    """``recipe`` is one of torchao's: a scale for each row and column of a product, for each factor, or by rows but
    for the gradients of weights, which are not rounded. With ``emulate`` the products are those of float32, after the
    same rounding: slow, on any device.
    """

    def __init__(
        self, *, recipe: Literal["rowwise", "rowwise_with_gw_hp", "tensorwise"], emulate: bool = False
    ) -> None:
        self.recipe, self.emulate = recipe, emulate

    def __str__(self) -> str:
        return f"float8 {self.recipe}{', emulated' if self.emulate else ''}"

    def check(
        self,
        model: ModelConfig,
        *,
        device: torch.device | None,
        precision: str,
        tensor_parallel_size: int,
        micro_batch: int,
        sequence_length: int,
    ) -> None:
        """Raise ValueError where such layers cannot train, as ``Linears`` has it."""
        if tensor_parallel_size > 1:
            raise ValueError(
                f"trainer.strategy.tensor_parallel_size={tensor_parallel_size} splits the layers that "
                f"float8={self.recipe} replaces: set it to 1, or float8=none"
            )
        if device is not None and not self.emulate and not _multiplies_float8(device):
            raise ValueError(
                f"float8={self.recipe} needs a GPU of compute capability {'.'.join(map(str, CAPABILITY))} or more, and "
                f"{device.type} has no such products: set float8=none, or float8.emulate=true to see its rounding"
            )
        able = ["bf16-mixed", "bf16-true", *(["32-true"] if self.emulate else [])]
        if self.recipe == "rowwise_with_gw_hp" and device is not None and device.type == "cpu":
            able.remove("bf16-mixed")  # torchao heeds CUDA's autocast alone, and its factors would be of two types
        if precision not in able:
            raise ValueError(f"float8={self.recipe} goes with precision={' or '.join(able)}, not {precision}")
        for name, size in {
            "model.width": model.width,
            "model.width / model.num_heads x key-value heads": model.head_width * model.key_value_heads,
            "model.feedforward_width": model.feedforward_width,
            f"micro_batch={micro_batch} x sequence_length": micro_batch * sequence_length,
        }.items():
            if size % MULTIPLE:
                raise ValueError(f"float8={self.recipe} needs multiples of {MULTIPLE}: {name} is {size}")

    def convert(self, model: Transformer) -> None:
        """Replace the blocks' linear layers, also of a model without memory; the weights keep their names."""
        config = replace(Float8LinearConfig.from_recipe_name(self.recipe), emulate=self.emulate)
        convert_to_float8_training(model.blocks, config=config)


def _multiplies_float8(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY
