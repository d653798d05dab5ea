"""What an evaluation is: a subject goes in, named scores come out."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from mulligan.data.shards import Shards
from mulligan.data.tokens import Tokenizer
from mulligan.model.transformer import Transformer


class Subject(NamedTuple):
    """A model with what it takes to judge it. ``batch_size`` rows are computed at once; ``held_out`` opens the shards
    that it was not trained on, the first that hold so many bytes of text, and raises ValueError where there are none.
    """

    model: Transformer
    tokenizer: Tokenizer
    held_out: Callable[[int | None], Shards]
    sequence_length: int
    document_mask: bool
    batch_size: int
    autocast_dtype: torch.dtype | None


class Score(NamedTuple):
    """A number with its standard error, where it has one: over what was sampled, not over seeds of training."""

    value: float
    standard_error: float | None = None


@runtime_checkable  # the command line checks values against it
class Suite(Protocol):
    def __call__(self, subject: Subject) -> Mapping[str, Score | float]:
        """Scores or bare floats by name. Ranks that hold parts of the model call it together, with the same passes."""
        ...


@runtime_checkable
class ReadsText(Protocol):
    """A suite whose text comes from elsewhere."""

    def read(self) -> object:
        """Bring it, once. Raises ValueError where it cannot be had."""
        ...


def scores_of(suite: Suite, subject: Subject) -> dict[str, Score]:
    """What ``suite`` finds. Raises ValueError where somebody's own returns something else."""
    found = suite(subject)
    if not isinstance(found, Mapping) or not all(isinstance(one, Score | float | int) for one in found.values()):
        raise ValueError(f"{type(suite).__name__} returned {found!r:.80}: it must return floats, or Scores, by name")
    return {name: one if isinstance(one, Score) else Score(one) for name, one in found.items()}


def mean_score(values: Sequence[float]) -> Score:
    """The mean of independent values, and its standard error."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Score(mean)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Score(mean, math.sqrt(variance / count))


def exp_score(score: Score) -> Score:
    """exp of a mean, and its standard error to first order (the delta method)."""
    if not score.value < 700.0:
        return Score(math.inf)
    value = math.exp(score.value)
    return Score(value, None if score.standard_error is None else value * score.standard_error)
