"""The shape of a model as its folder holds it, in ``model.json``: read without torch."""

from pathlib import Path

from mulligan.files import read_json
from mulligan.model.config import ModelConfig

SHAPE = "model.json"


def read_shape(folder: Path) -> ModelConfig:
    path = folder / SHAPE
    if not path.is_file():
        raise ValueError(f"{path} is missing: {folder} is not the folder of a model")
    try:
        return ModelConfig(**read_json(path))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the shape of a model: {error}") from None
