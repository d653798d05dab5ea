"""The shape of a model as its folder holds it, in ``model.json``: read without torch."""

from pathlib import Path

from mulligan.files import read_json
from mulligan.model.config import ModelConfig

SHAPE = "model.json"


def is_of_others(path: Path) -> bool:
    """Whether a model lies at ``path`` as transformers or llama.cpp saves it."""
    return (path / "config.json").is_file() or (path.suffix == ".gguf" and path.is_file())


def read_shape(folder: Path) -> ModelConfig:
    path = folder / SHAPE
    if not path.is_file() and is_of_others(folder):
        raise ValueError(
            f"{folder} holds a model as transformers or llama.cpp saves it: give the folder that "
            f"`mulligan import from={folder} to=FOLDER` makes of it"
        )
    if not path.is_file():
        raise ValueError(f"{path} is missing: {folder} is not the folder of a model")
    try:
        return ModelConfig(**read_json(path))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold the shape of a model: {error}") from None
