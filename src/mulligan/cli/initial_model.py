"""``model=initial``: the shape of the model that a run begins from, so that nobody copies it by hand."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mulligan.model.shape import read_shape


def initial_model(key: str, *, _root_: DictConfig) -> Any:
    """What ``${initial_model:KEY}`` of conf/model/initial.yaml stands for: KEY in the folder of initial_weights."""
    folder = _root_.get("initial_weights")
    if folder is None:
        raise ValueError("model=initial takes its shape from initial_weights, which is not set: give both")
    return getattr(read_shape(Path(folder)), key)
