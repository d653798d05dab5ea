"""What a reader of somebody else's files returns, whatever their format."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from mulligan.model.config import ModelConfig


class Imported(NamedTuple):
    config: ModelConfig
    weights: Mapping[str, Tensor]  # by our names, tied ones once
    tokenizer: tuple[str, bytes] | None  # "tokenizer.model" or "tokenizer.json", and the content
    architecture: str
