"""Angles of positions as transformers rounds them, whose weights were trained with them."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from mulligan.model.rope import rope_table


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_angles_are_rounded_to_float32() -> None:
    """At 4,096 positions those of float64 are 2e-5 away."""
    rotary = {"rope_type": "default", "rope_theta": 10_000.0}
    theirs = LlamaRotaryEmbedding(LlamaConfig(hidden_size=16, num_attention_heads=2, rope_parameters=rotary))
    wanted = theirs(torch.zeros(1), torch.arange(4096)[None])
    for found_TK, wanted_1TK in zip(rope_table(4096, 8, 10_000.0, "cpu"), wanted, strict=True):
        torch.testing.assert_close(found_TK, wanted_1TK[0], rtol=0.0, atol=1e-6)
