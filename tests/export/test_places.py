"""Every weight has one place in the published form, and comes back from it."""

import pytest
import torch
from torch import Tensor

from mulligan.export.places import Architecture, packed, unpacked
from mulligan.model.config import ModelConfig
from mulligan.model.weights import empty_weights
from mulligan.safetensors_file import LazyTensors

SIZES = {"vocab_size": 11, "max_length": 8, "width": 8, "num_layers": 2, "num_heads": 4, "feedforward_width": 12}
LLAMA = ModelConfig(**SIZES, num_key_value_heads=2, tied_embeddings=False)
QWEN3 = ModelConfig(**SIZES, qk_norm=True)
GPT2 = ModelConfig(**SIZES, norm="layer", positions="learned", feedforward="gelu", bias=True)
FORMS: list[tuple[ModelConfig, Architecture]] = [
    (LLAMA, "LlamaForCausalLM"), (QWEN3, "Qwen3ForCausalLM"), (GPT2, "GPT2LMHeadModel"),
]  # fmt: skip


def lazy(tensors: dict[str, Tensor]) -> LazyTensors:
    return LazyTensors({name: tensor.to("meta") for name, tensor in tensors.items()}, tensors.__getitem__)


def random_weights(config: ModelConfig) -> dict[str, Tensor]:
    return {name: torch.randn(weight.shape) for name, weight in empty_weights(config).items()}


@pytest.mark.parametrize(("config", "architecture"), FORMS)
def test_out_and_in_again(config: ModelConfig, architecture: Architecture) -> None:
    weights = random_weights(config)
    theirs = packed(lazy(weights), config, architecture)
    assert sum(tensor.numel() for tensor in theirs.layout.values()) == config.num_parameters
    assert all(theirs[name].shape == theirs.layout[name].shape for name in theirs)
    back = unpacked(theirs, config, architecture)
    assert back.keys() == weights.keys()
    for name, weight in weights.items():
        assert back[name].equal(weight), name
        assert back.layout[name].shape == weight.shape


def stored(config: ModelConfig, architecture: Architecture) -> dict[str, Tensor]:
    return dict(packed(lazy(random_weights(config)), config, architecture))


def test_gpt2s_own_files_hold_its_inner_part_and_masks() -> None:
    whole = stored(GPT2, "GPT2LMHeadModel")
    inner = {name.removeprefix("transformer."): tensor for name, tensor in whole.items()}
    inner |= {"h.0.attn.bias": torch.ones(8, 8), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    found = unpacked(lazy(inner), GPT2, "GPT2LMHeadModel")
    assert found["blocks.1.attention.k.weight"].equal(whole["transformer.h.1.attn.c_attn.weight"][:, 8:16].T)


def test_a_tied_head_may_be_written_twice() -> None:
    twice = stored(QWEN3, "Qwen3ForCausalLM")
    twice["lm_head.weight"] = twice["model.embed_tokens.weight"]
    assert "head.weight" not in unpacked(lazy(twice), QWEN3, "Qwen3ForCausalLM")
    twice["lm_head.weight"] = 2.0 * twice["lm_head.weight"]
    with pytest.raises(ValueError, match=r"lm_head.weight is not its model.embed_tokens.weight: tie_word_embed"):
        unpacked(lazy(twice), QWEN3, "Qwen3ForCausalLM")


def test_what_is_missing_too_much_or_of_another_shape_or_type_is_named() -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    for change, message in (
        ({name: None}, f"lack {name}"),
        ({name: torch.zeros(12, 9)}, rf"{name} has the shape \[12, 9\], by its config it is \[12, 8\]"),
        ({name: torch.zeros(12, 8, dtype=torch.int8)}, f"{name} is of type int8, and must be of floating-point"),
        ({"model.layers.2.mlp.up_proj.weight": torch.zeros(1), "z": torch.zeros(1)}, "hold model.layers.2.*and 1 more"),
    ):
        tensors = stored(LLAMA, "LlamaForCausalLM") | change
        held = {key: tensor for key, tensor in tensors.items() if tensor is not None}
        with pytest.raises(ValueError, match=message):
            unpacked(lazy(held), LLAMA, "LlamaForCausalLM")
