"""Configs there and back, and each thing that one side cannot say or compute."""

from typing import Any

import pytest

from mulligan.export.forms import model_config, published_config
from mulligan.model.config import ModelConfig

SIZES = {"vocab_size": 90, "max_length": 64, "width": 32, "num_layers": 2, "num_heads": 4, "feedforward_width": 48}
GPT2 = {"norm": "layer", "positions": "learned", "feedforward": "gelu", "bias": True}
ROTARY = {"norm_eps": 1e-6, "rope_theta": 5e5}


@pytest.mark.parametrize(
    ("keys", "architecture"),
    [
        ({"num_key_value_heads": 2, "tied_embeddings": False, **ROTARY}, "LlamaForCausalLM"),
        ({"num_key_value_heads": 4, "bias": True}, "LlamaForCausalLM"),
        ({"num_key_value_heads": 1, "qk_norm": True, **ROTARY}, "Qwen3ForCausalLM"),
        (GPT2, "GPT2LMHeadModel"),
        ({**GPT2, "tied_embeddings": False, "norm_eps": 1e-6}, "GPT2LMHeadModel"),
    ],
)
def test_there_and_back(keys: dict[str, Any], architecture: str) -> None:
    config = ModelConfig(**SIZES, **keys)
    named, content = published_config(config)
    assert named == architecture
    assert model_config(content) == (named, config)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"logit_softcap": 30.0}, "model.logit_softcap=30.0: .* is Llama and Qwen3, which has none; format=weights"),
        ({"norm": "layer"}, "model.norm=layer: .*=rotary is Llama and Qwen3, which has rms"),
        ({"feedforward": "gelu"}, "model.feedforward=gelu"),
        ({"qk_norm": True, "bias": True}, "model.bias=True: .* is Qwen3, which has False"),
        ({**GPT2, "bias": False}, "model.bias=False: .* is GPT-2, which has True"),
        ({**GPT2, "qk_norm": True}, "model.qk_norm=True: .* is GPT-2"),
        ({**GPT2, "num_key_value_heads": 2}, "model.num_key_value_heads=2: .* is GPT-2, which has 4"),
    ],
)
def test_what_no_published_form_says(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        published_config(ModelConfig(**SIZES, **keys))


LLAMA3 = {"rope_type": "llama3", "factor": 8.0}


@pytest.mark.parametrize(
    ("form", "keys", "message"),
    [
        ({}, {"architectures": ["BertModel"]}, r"architectures=\['BertModel'\] must be one of LlamaForCausalLM, Qwen3"),
        ({}, {"architectures": None}, "architectures=None"),
        ({}, {"hidden_act": "gelu"}, "hidden_act='gelu': the decoder here computes 'silu' only"),
        ({}, {"rope_parameters": LLAMA3}, "rope_parameters='llama3'"),
        ({}, {"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling='linear'"),  # beside rope_parameters
        ({}, {"rope_parameters": "abc"}, "rope_parameters='abc' must be an object"),
        ({}, {"layer_types": 5}, "layer_types=5"),
        ({}, {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling='linear'"),
        ({}, {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
        ({}, {"attention_bias": True}, "mlp_bias=False: .* True only"),
        ({}, {"head_dim": 16}, "head_dim=16 must be hidden_size / num_attention_heads = 32 / 4"),
        ({}, {"quantization_config": {"bits": 4}}, "quantization_config="),
        ({}, {"hidden_size": None}, "hidden_size=None must be a whole number"),
        ({}, {"rms_norm_eps": "small"}, "rms_norm_eps='small' must be a number"),
        ({"qk_norm": True}, {"use_sliding_window": True}, "use_sliding_window=True"),
        (
            {"qk_norm": True},
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types='sliding_attention'",
        ),
        ({"qk_norm": True}, {"attention_bias": True}, "attention_bias=True"),
        (GPT2, {"activation_function": "relu"}, "activation_function='relu'"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ],
)
def test_what_the_decoder_here_does_not_compute(form: dict[str, Any], keys: dict[str, Any], message: str) -> None:
    _, content = published_config(ModelConfig(**SIZES, **form))
    with pytest.raises(ValueError, match=message):
        model_config(content | keys)


def test_the_older_key_of_rotary_positions_goes_first() -> None:
    _, content = published_config(ModelConfig(**SIZES, rope_theta=50.0))
    _, config = model_config(content | {"rope_scaling": {"rope_type": "default", "rope_theta": 777.0}})
    assert config.rope_theta == 777.0


def test_silence_means_what_it_means_to_transformers() -> None:
    told = {"vocab_size": 9, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2}
    _, config = model_config({"architectures": ["GPT2LMHeadModel"], **told})
    assert (config.feedforward_width, config.norm_eps, config.tied_embeddings) == (64, 1e-5, True)
    told = {"vocab_size": 9, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1}
    told |= {"num_attention_heads": 2, "max_position_embeddings": 8}
    _, config = model_config({"architectures": ["LlamaForCausalLM"], **told})
    assert (config.key_value_heads, config.norm_eps, config.rope_theta) == (2, 1e-6, 10_000.0)
    assert not config.tied_embeddings
    told |= {"hidden_size": 64 * 128, "num_attention_heads": 64}
    _, config = model_config({"architectures": ["Qwen3ForCausalLM"], **told})
    assert (config.key_value_heads, config.head_width) == (32, 128)
