"""What may take the place of PyTorch's own linear layers in the blocks, and keep their weights."""

from typing import Protocol, runtime_checkable

import torch

from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer


@runtime_checkable  # the command line checks values against it
class Linears(Protocol):
    """``str`` of one names its kind to a user."""

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
        """Raise ValueError where such layers cannot train: ``micro_batch`` windows of ``sequence_length`` at once.

        ``device`` is None where it is another machine's, which cannot be asked.
        """
        ...

    def convert(self, model: Transformer) -> None:
        """Replace the blocks' linear layers, also of a model without memory; the weights keep their names."""
        ...
