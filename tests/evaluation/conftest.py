"""A tokenizer and a tiny model that has not learned anything, as the subject of suites."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.suites import Subject
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer

MakeModel = Callable[..., Transformer]
WORDS = "def foo(bar, far): return bar or far and foo; the cat sat on the mat while a dog ran far\n"


def make_model(
    vocab_size: int = 40, max_length: int = 16, seed: int = 0, init_std: float = 0.02, **options: Any
) -> Transformer:
    config = ModelConfig(
        vocab_size=vocab_size,
        max_length=max_length,
        width=16,
        num_layers=2,
        num_heads=2,
        feedforward_width=24,
        init_std=init_std,
        **options,
    )
    with torch.device("meta"):
        built = Transformer(config)
    return built.materialize("cpu", seed)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return TokenizerRecipe(vocab_size=310).make([WORDS * 50])


@pytest.fixture
def subject(tokenizer: Tokenizer) -> Subject:
    """Its vocabulary is larger than the tokenizer's, as where sizes are rounded up."""
    return Subject(
        model=make_model(320, max_length=64, init_std=0.3),
        tokenizer=tokenizer,
        held_out=no_shards,
        sequence_length=64,
        document_mask=False,
        batch_size=3,
        autocast_dtype=None,
    )


def no_shards(max_bytes: int | None) -> None:
    raise ValueError("there is no held-out data")
