"""Tokens that a model has rows for: the tokenizer of a published model may know more."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_tokens(tokens: Sequence[int] | NDArray[Any], vocab_size: int) -> None:
    """Raise ValueError where one of ``tokens`` is beyond the rows of a model."""
    largest = int(np.max(tokens, initial=0))
    if largest >= vocab_size:
        raise ValueError(f"a text needs the token {largest}, which must be below the model's vocab_size={vocab_size}")
