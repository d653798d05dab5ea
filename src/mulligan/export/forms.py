"""A decoder's shape as transformers' config.json, and back. What one side cannot say or compute is one ValueError."""

from typing import Any

from mulligan.export.places import Architecture
from mulligan.model.config import ModelConfig

Json = dict[str, Any]

# By their positions: the form it is, and what that form fixes.
_NAMES = {"rotary": "Llama and Qwen3", "learned": "GPT-2"}
_FIXED: dict[str, Json] = {
    "rotary": {"norm": "rms", "feedforward": "swiglu", "logit_softcap": None},
    "learned": {"norm": "layer", "feedforward": "gelu", "logit_softcap": None, "bias": True, "qk_norm": False},
}
# What their code would compute otherwise than ours: key, what it may be, and what it is when the file is silent.
_LLAMA: list[tuple[str, tuple[Any, ...], Any]] = [("hidden_act", ("silu",), "silu")]
_QWEN3 = [
    *_LLAMA,
    ("attention_bias", (False,), False),
    ("use_sliding_window", (False, None), False),
]
_GPT2: list[tuple[str, tuple[Any, ...], Any]] = [
    ("activation_function", ("gelu_new", "gelu_pytorch_tanh"), "gelu_new"),
    ("scale_attn_weights", (True,), True),
    ("scale_attn_by_inverse_layer_idx", (False,), False),
    ("add_cross_attention", (False,), False),
]
_ALLOWED: dict[Architecture, list[tuple[str, tuple[Any, ...], Any]]] = {
    "LlamaForCausalLM": _LLAMA, "Qwen3ForCausalLM": _QWEN3, "GPT2LMHeadModel": _GPT2,
}  # fmt: skip


def published_config(config: ModelConfig) -> tuple[Architecture, Json]:
    """The architecture that computes what ``config`` does, and its config.json without types and special tokens."""
    fixed = _FIXED[config.positions]
    if config.positions == "rotary" and config.qk_norm:
        fixed = fixed | {"bias": False}
    if config.positions == "learned":
        fixed = fixed | {"num_key_value_heads": config.num_heads}
    for key, value in fixed.items():
        found = config.key_value_heads if key == "num_key_value_heads" else getattr(config, key)
        if found != value:
            form = "Qwen3" if config.qk_norm and key == "bias" else _NAMES[config.positions]
            raise ValueError(
                f"model.{key}={found}: the published form with model.positions={config.positions} is {form}, which "
                f"has {'none' if value is None else value}; format=weights takes any"
            )
    if config.positions == "learned":
        return "GPT2LMHeadModel", _gpt2(config)
    architecture: Architecture = "Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM"
    return architecture, _llama(config)


def _gpt2(config: ModelConfig) -> Json:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.max_length,
        "n_embd": config.width,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.feedforward_width,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout),
        "initializer_range": config.init_std,
    }


def _llama(config: ModelConfig) -> Json:
    """Of Llama, and with query-key norm of Qwen3."""
    return {
        "architectures": ["Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM"],
        "model_type": "qwen3" if config.qk_norm else "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_length,
        "hidden_size": config.width,
        "intermediate_size": config.feedforward_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,  # transformers before version 5, and others who read the file
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": config.bias,
        **({"use_sliding_window": False} if config.qk_norm else {"mlp_bias": config.bias}),
        "attention_dropout": config.dropout,
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": config.init_std,
    }


def model_config(content: Json) -> tuple[Architecture, ModelConfig]:
    """What config.json says, if our decoder computes the same; else ValueError names the first key that differs."""
    architecture = _architecture(content)
    for key, allowed, silent in _ALLOWED[architecture]:
        _check(key, content.get(key, silent), allowed)
    _check("quantization_config", content.get("quantization_config"), (None,))
    if architecture == "GPT2LMHeadModel":
        return architecture, _of_gpt2(content)
    return architecture, _of_llama(content, is_qwen=architecture == "Qwen3ForCausalLM")


def _architecture(content: Json) -> Architecture:
    named = content.get("architectures")
    for architecture in _ALLOWED:
        if named == [architecture]:
            return architecture
    raise ValueError(f"architectures={named} must be one of {', '.join(_ALLOWED)}")


def _of_gpt2(content: Json) -> ModelConfig:
    width = _whole(content, "n_embd")
    return ModelConfig(
        vocab_size=_whole(content, "vocab_size"),
        max_length=_whole(content, "n_positions"),
        width=width,
        num_layers=_whole(content, "n_layer"),
        num_heads=_whole(content, "n_head"),
        feedforward_width=_whole(content, "n_inner", 4 * width),
        norm="layer",
        norm_eps=_number(content, "layer_norm_epsilon", 1e-5),
        positions="learned",
        feedforward="gelu",
        bias=True,
        tied_embeddings=bool(content.get("tie_word_embeddings", True)),
    )


def _of_llama(content: Json, *, is_qwen: bool) -> ModelConfig:
    width, heads = _whole(content, "hidden_size"), _whole(content, "num_attention_heads")
    head_width = content.get("head_dim", 128 if is_qwen else None)
    if head_width is not None and head_width * heads != width:
        raise ValueError(f"head_dim={head_width} must be hidden_size / num_attention_heads = {width} / {heads}")
    bias = content.get("attention_bias", False)
    if not is_qwen:
        _check("mlp_bias", content.get("mlp_bias", False), (bias,))
    layer_types = content.get("layer_types") or []
    for kind in layer_types if isinstance(layer_types, list) else [layer_types]:
        _check("layer_types", kind, ("full_attention",))
    for key in ("rope_parameters", "rope_scaling"):
        scaling = _object(content, key)
        _check(key, scaling.get("rope_type", scaling.get("type", "default")), ("default",))
    # Where both stand there, transformers follows the older key.
    rotary = _object(content, "rope_scaling") or _object(content, "rope_parameters")
    for place in (rotary, content):
        _check("partial_rotary_factor", place.get("partial_rotary_factor", 1.0), (1.0, None))
    return ModelConfig(
        vocab_size=_whole(content, "vocab_size"),
        max_length=_whole(content, "max_position_embeddings"),
        width=width,
        num_layers=_whole(content, "num_hidden_layers"),
        num_heads=heads,
        num_key_value_heads=_whole(content, "num_key_value_heads", 32 if is_qwen else heads),
        feedforward_width=_whole(content, "intermediate_size"),
        norm_eps=_number(content, "rms_norm_eps", 1e-6),
        rope_theta=_number(rotary if "rope_theta" in rotary else content, "rope_theta", 10_000.0),
        bias=bool(bias),
        tied_embeddings=bool(content.get("tie_word_embeddings", False)),
        qk_norm=is_qwen,
    )


def _check(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key}={value!r}: the decoder here computes {' or '.join(map(repr, allowed))} only")


def _object(content: Json, key: str) -> Json:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{key}={value!r} must be an object")
    return value


def _whole(content: Json, key: str, silent: int | None = None) -> int:
    value = content.get(key)
    if value is None:
        value = silent
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key}={value!r} must be a whole number")
    return value


def _number(content: Json, key: str, silent: float) -> float:
    value = content.get(key, silent)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{key}={value!r} must be a number")
    return float(value)
