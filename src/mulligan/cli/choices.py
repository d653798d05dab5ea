"""What conf/ offers: its folder, the choices of a group, every key that a verb knows; and the one that was meant."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import mulligan
from mulligan.cli.initial_model import initial_model

OmegaConf.register_new_resolver("initial_model", initial_model)  # for conf/model/initial.yaml
_PACKAGE = Path(mulligan.__file__).parent
CONF = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if folder.is_dir())


def suggestion(key: str, known: Any) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def no_such_choice(missing: str, options: Sequence[str]) -> str:
    group, _, choice = missing.rpartition("/")
    options = options or sorted(path.stem for path in (CONF / group).glob("*.yaml"))  # of a list Hydra names none
    known = [option for option in options if option != "base"]  # what the others are built on
    more = "; `pip install mulligan[slurm]` adds others" if group == "hydra/launcher" else ""
    return f"{group}={choice} is not one of {', '.join(known)}{suggestion(choice, known)}{more}"


def known_keys(verb: str) -> set[str]:
    """Every dotted key that the verb's file sets, those it builds on, and any file of the groups it chooses from."""
    content = OmegaConf.load(CONF / f"{verb}.yaml")
    assert isinstance(content, DictConfig)
    keys = set(_dotted(content))
    for default in content["defaults"]:
        if isinstance(default, DictConfig):
            group = str(next(iter(default))).split()[-1]  # behind "override" or "optional"
            keys.add(group)
            for file in (CONF / group).glob("*.yaml"):
                keys |= {f"{group}.{key}" for key in _dotted(OmegaConf.load(file))}
        elif default != "_self_":
            keys |= known_keys(default)
    return keys


def _dotted(node: Any) -> Iterator[str]:
    if isinstance(node, DictConfig):
        for key in node:
            yield str(key)
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_interpolation() and not child._is_missing():
                yield from (f"{key!s}.{below}" for below in _dotted(child))
