"""What a model of another program is here."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from mulligan.model.config import ModelConfig


class Imported(NamedTuple):
    """A model in our form. ``weights`` go by our names, tied ones once; ``tokenizer`` is a file's name and content."""

    config: ModelConfig
    weights: Mapping[str, Tensor]
    tokenizer: tuple[str, bytes] | None  # ("tokenizer.model" | "tokenizer.json", content)
    architecture: str
