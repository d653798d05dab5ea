"""What conf/ offers: its folder, the choices of a group, every key that a verb knows; and the one that was meant."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString
from omegaconf import DictConfig, OmegaConf

import mulligan
from mulligan.cli.initial_model import initial_model

OmegaConf.register_new_resolver("initial_model", initial_model)  # for conf/model/initial.yaml
_PACKAGE = Path(mulligan.__file__).parent
CONF = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if folder.is_dir())


def suggestion(key: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def no_such_choice(missing: str, options: Sequence[str]) -> str:
    group, _, choice = missing.rpartition("/")
    options = options or sorted(path.stem for path in (CONF / group).glob("*.yaml"))  # of a list Hydra names none
    known = [option for option in options if option != "base"]  # what the others are built on
    more = "; `pip install mulligan[slurm]` adds others" if group == "hydra/launcher" else ""
    return f"{group}={choice} is not one of {', '.join(known)}{suggestion(choice, known)}{more}"


def no_such_key(key: str, verb: str) -> str:
    known = known_keys(verb)
    if key in known:
        return f"{key}: the chosen files do not have this key; choose the file of its group that has it"
    group, dot, name = key.rpartition(".")
    elsewhere = sorted(other for other in known if other.endswith(f".{key}"))  # its group was left out
    if name in known:  # or is one too many, as in trainer.max_steps
        elsewhere.append(name)
    of_group = [other.removeprefix(group + dot) for other in known if other.rpartition(".")[0] == group]
    if elsewhere:
        meant = f"; did you mean {' or '.join(elsewhere)}?"
    else:
        meant = suggestion(name, of_group, group + dot) if of_group else suggestion(key, known)
    return f"{key}: there is no such key{meant} (`mulligan {verb} --help` shows them)"


def check_choices(words: Sequence[str]) -> None:
    """Raise ValueError for an override that gives a group something other than names: Hydra's words name no group."""
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    for override in OverridesParser.create().parse_overrides(overrides):
        group = override.key_or_group
        if not group:
            raise ValueError(f"{override.input_line}: there is no key before the equals sign")
        is_choice = (CONF / group).is_dir() and not override.is_delete()
        if is_choice and not _are_names(override.value()):
            raise ValueError(no_such_choice(f"{group}/{override.get_value_string()}", []))


def _are_names(value: Any) -> bool:
    if isinstance(value, ChoiceSweep):
        value = value.list
    if isinstance(value, list):
        return all(map(_are_names, value))
    return isinstance(value, str | QuotedString | Glob)


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
                place = "" if file.read_text().startswith("# @package _global_") else f"{group}."
                keys |= {place + key for key in _dotted(OmegaConf.load(file))}
        elif default != "_self_":
            keys |= known_keys(default)
    return keys


def _dotted(node: Any) -> Iterator[str]:
    if isinstance(node, DictConfig):
        for key in node:
            if str(key) != "defaults" and not str(key).startswith("_"):  # those are Hydra's own
                yield str(key)
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_interpolation() and not child._is_missing():
                yield from (f"{key!s}.{below}" for below in _dotted(child))
