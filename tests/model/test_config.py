"""Parameter and FLOP counts against the built model and PyTorch's own counter."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from mulligan.cli.compose import CONF, build
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer

PUBLISHED = {
    "gpt2_124m": 124_439_808,
    "gpt2_1_5b": 1_557_611_200,
    "llama_1b": 1_235_814_400,
    "llama_8b": 8_030_261_248,
}
NO_SHAPE = ("base", "initial")  # what others are built on; a shape that a folder has
NAMES = [file.stem for file in sorted((CONF / "model").glob("*.yaml")) if file.stem not in NO_SHAPE]
SMALL = {"vocab_size": 97, "max_length": 16, "width": 24, "num_layers": 2, "num_heads": 4, "feedforward_width": 40}


def config_of(name: str) -> ModelConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = compose("train", overrides=[f"model={name}"]).model
        content = OmegaConf.to_container(node, resolve=True)
    assert isinstance(content, dict)
    return build({str(key): value for key, value in content.items()})


def on_meta(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_built_model(name: str) -> None:
    config = config_of(name)
    assert config.num_parameters == sum(parameter.numel() for parameter in on_meta(config).parameters())
    assert config.num_parameters == PUBLISHED.get(name, config.num_parameters)


@pytest.mark.parametrize("name", NAMES)
def test_flops_are_those_of_the_built_model(name: str) -> None:
    config, length = config_of(name), 64
    tokens = torch.zeros((1, length), dtype=torch.int64, device="meta")
    model = on_meta(config)
    model.cos_TK = model.sin_TK = torch.zeros((length, config.head_width), device="meta")
    if config.positions == "learned":
        model.cos_TK = model.sin_TK = None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens)
    assert config.flops_per_token(length) * length == 3 * counter.get_total_flops()


@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"norm": "layer"},
        {"norm": "layer", "bias": True},
        {"qk_norm": True},
        {"tied_embeddings": False},
        {"num_key_value_heads": 2, "bias": True},
        {"feedforward": "gelu", "bias": True},
        {"positions": "learned"},
    ],
)
def test_every_option_is_counted(options: dict[str, object]) -> None:
    config = ModelConfig(**(SMALL | options))
    assert config.num_parameters == sum(parameter.numel() for parameter in on_meta(config).parameters())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"num_heads": 5}, "num_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"width": 12}, "must be even"),
        ({"dropout": 1.0}, "dropout"),
        ({"logit_softcap": 0.0}, "logit_softcap"),
        ({"logit_softcap": float("inf")}, "model.logit_softcap=inf must be a number above 0, or null for none"),
        ({"norm": "rmsnorm"}, "model.norm=rmsnorm must be one of rms, layer"),
        ({"positions": None}, "model.positions=None must be one of rotary, learned"),
        ({"feedforward": "relu"}, "model.feedforward=relu must be one of swiglu, gelu"),
        ({"num_layers": 0}, "num_layers"),
    ],
)
def test_wrong_shapes_are_named(options: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        ModelConfig(**(SMALL | options))
