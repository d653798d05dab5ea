"""A model comes back from its folder, into another of its shape alone, and what is wrong there is named."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mulligan.files import write_json
from mulligan.model.config import ModelConfig
from mulligan.model.folder import ModelFolder
from mulligan.model.transformer import Transformer

SHAPE = {"vocab_size": 50, "max_length": 16, "width": 8, "num_layers": 1, "num_heads": 2, "feedforward_width": 12}


def drawn(config: ModelConfig, seed: int) -> Transformer:
    with torch.device("meta"):
        model = Transformer(config)
    return model.materialize("cpu", seed)


def save(folder: Path, **changes: object) -> Transformer:
    config = ModelConfig(**SHAPE | changes)
    model = drawn(config, seed=3)
    write_json(folder / "model.json", asdict(config))
    save_file(dict(model.named_parameters()), folder / "model.safetensors")
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_the_weights_come_back(tied: bool, tmp_path: Path) -> None:
    wanted = save(tmp_path, tied_embeddings=tied)
    folder = ModelFolder(tmp_path)
    filled = drawn(folder.config, seed=4)
    folder.fill(filled)
    tokens = torch.arange(10)[None]
    for found in (folder.model("cpu"), filled):
        assert torch.equal(found(tokens), wanted(tokens))
    assert not torch.equal(drawn(folder.config, seed=4)(tokens), wanted(tokens))


def test_a_shape_that_fits(tmp_path: Path) -> None:
    save(tmp_path)
    longer = ModelConfig(**SHAPE | {"max_length": 99, "dropout": 0.1, "init_std": 0.5, "num_key_value_heads": 2})
    ModelFolder(tmp_path).check_fits(longer)


@pytest.mark.parametrize(
    ("saved", "now", "named"),
    [
        ({}, {"width": 16}, "model.width=8: model.width=16 must be the same; model=initial takes"),
        ({}, {"rope_theta": 5e5}, "model.rope_theta=10000.0: model.rope_theta=500000.0"),
        ({}, {"vocab_size": 64}, "model.vocab_size=50: model.vocab_size=64"),
        ({}, {"num_key_value_heads": 1}, "model.num_key_value_heads=2: model.num_key_value_heads=1"),
        ({"positions": "learned"}, {"positions": "learned", "max_length": 32}, "model.max_length=16: "),
    ],
)
def test_a_shape_that_does_not_fit(saved: dict, now: dict, named: str, tmp_path: Path) -> None:
    save(tmp_path, **saved)
    with pytest.raises(ValueError, match=f"initial_weights={tmp_path} holds a model of {named}"):
        ModelFolder(tmp_path).check_fits(ModelConfig(**SHAPE | now))


def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.json is missing: .* is not the folder of a model"):
        ModelFolder(tmp_path)
    save(tmp_path)
    write_json(tmp_path / "model.json", SHAPE | {"num_layers": 2})
    with pytest.raises(
        ValueError, match=r"has blocks\.1\.attention\.k\.weight of shape nothing, model\.json .* \[8, 8"
    ):
        ModelFolder(tmp_path)
    for wrong in (SHAPE | {"depth": 2}, {"width": 8}, SHAPE | {"num_heads": 3}):
        write_json(tmp_path / "model.json", wrong)
        with pytest.raises(ValueError, match=r"model\.json does not hold the shape of a model: "):
            ModelFolder(tmp_path)
    save(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-8])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole safetensors file"):
        ModelFolder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing beside model\.json"):
        ModelFolder(tmp_path)
