"""What conf/ offers: its folder, the choices of a group, every key that a verb knows; and the one that was meant."""

import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from omegaconf import DictConfig, OmegaConf

import mulligan
from mulligan.cli.initial_model import initial_model

OmegaConf.register_new_resolver("initial_model", initial_model)  # for conf/model/initial.yaml
_PACKAGE = Path(mulligan.__file__).parent
CONF = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if folder.is_dir())
BASE = "base"  # what the choices of a group are built on, none itself
_MOST_MEANT = 3  # keys that a message names
_GLOBAL = "# @package _global_"  # the first line of a file whose keys do not stand below its group's name


def parsed(words: Iterable[str]) -> list[Override]:
    """Hydra's reading of the overrides among the words of a command line."""
    return OverridesParser.create().parse_overrides(
        [word for word in words if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    )


def conf_folders() -> list[Path]:
    """Where files are looked for: in the folder that ``--config-dir`` names, then in our own."""
    option = "--config-dir"
    own = [
        word.removeprefix(f"{option}=")
        for before, word in pairwise(sys.argv)
        if before == option or word.startswith(f"{option}=")
    ]
    return [*map(Path, own), CONF]


def choices_of(group: str) -> list[str]:
    names = {path.stem for folder in conf_folders() for path in (folder / group).glob("*.yaml")}
    return sorted(names - {BASE})


def check_overrides(words: Sequence[str], verb: str) -> None:
    """Raise ValueError for an override without a key, and for a group given what is no name: Hydra names neither."""
    for override in parsed(words):
        key = override.key_or_group
        if not key:
            raise ValueError(f"{override.input_line}: there is no key before the equals sign")
        is_group = (CONF / key).is_dir() or key.split("/")[0] == "hydra"
        if not is_group or (override.is_delete() and override.value() is None):
            continue
        if wrong := next(_no_names(override.value()), None):
            is_of_verb = key.startswith("hydra") or key in known_keys(verb)
            raise ValueError(no_such_choice(key, wrong, []) if is_of_verb else no_such_key(key, verb))


def _no_names(value: Any) -> Iterator[str]:
    """The parts of a group's value that name no choice, as a user would write them."""
    if isinstance(value, ChoiceSweep):
        value = value.list
    if isinstance(value, list):
        for part in value:
            yield from _no_names(part)
    elif value is None:
        yield "null"
    elif not isinstance(value, str | QuotedString | Glob):
        yield str(value)


def no_such_choice(group: str, choice: str, options: Sequence[str]) -> str:
    known = [option for option in options if option != BASE] or choices_of(group)  # of a list Hydra names none
    more = "; `pip install mulligan[slurm]` adds others" if group == "hydra/launcher" else ""
    if choice == "null":
        more = "; left out it has its default"
    return f"{group}={choice} is not one of {', '.join(known) or 'its choices'}{suggestion(choice, known)}{more}"


def no_such_key(key: str, verb: str) -> str:
    known = known_keys(verb)
    if files := known.get(key):
        return f"{key}: the chosen files do not have this key; choose {_either(sorted(files))}"
    group, dot, name = key.rpartition(".")
    beside = [other.removeprefix(group + dot) for other in known if dot and other.rpartition(".")[0] == group]
    meant = (
        [other for other in known if other.endswith(f".{key}")]  # its group was left out
        or [other for other in known if dot and other.startswith(f"{group}.") and other.endswith(f".{name}")]
        or [other for other in known if other == name]  # or is one too many, as in trainer.max_steps
        or [other for other in known if beside and other.endswith(f".{name}")]
    )
    if meant:
        told = f"; did you mean {_either(sorted(meant, key=lambda other: (len(known[other]), other)))}?"
    else:
        told = suggestion(name, beside, group + dot) if beside else suggestion(key, known)
    return f"{key}: there is no such key{told} (`mulligan {verb} --help` shows them)"


def suggestion(key: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def _either(names: Sequence[str]) -> str:
    shown, more = list(names[:_MOST_MEANT]), len(names) - _MOST_MEANT
    return " or ".join([*shown, f"{more} others"] if more > 0 else shown)


def known_keys(verb: str) -> dict[str, set[str]]:
    """Every dotted key that the verb's file sets, those it builds on, and any file of the groups it chooses from; with
    the choices that set it, none where it is always there.
    """
    content = OmegaConf.load(CONF / f"{verb}.yaml")
    assert isinstance(content, DictConfig)
    keys: dict[str, set[str]] = {key: set() for key in _dotted(content) if key.split(".")[0] != "hydra"}
    for default in content["defaults"]:
        if isinstance(default, DictConfig):
            group = str(next(iter(default))).split()[-1]  # behind "override" or "optional"
            keys[group] = set()
            for file in sorted((CONF / group).glob("*.yaml")):
                for key in _keys_of(file, group):
                    keys.setdefault(key, set()).add(f"{group}={file.stem}")
        elif default != "_self_":
            keys |= known_keys(default)
    return keys


def _keys_of(file: Path, group: str) -> Iterator[str]:
    place = "" if file.read_text().startswith(_GLOBAL) else f"{group}."
    return (place + key for key in _dotted(OmegaConf.load(file)))


def _dotted(node: Any) -> Iterator[str]:
    if isinstance(node, DictConfig):
        for key in node:
            if str(key) != "defaults" and not str(key).startswith("_"):  # those are Hydra's own
                yield str(key)
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_interpolation() and not child._is_missing():
                yield from (f"{key!s}.{below}" for below in _dotted(child))
