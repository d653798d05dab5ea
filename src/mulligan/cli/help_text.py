"""``mulligan VERB --help``: the groups, and the keys of the chosen files with the comments that stand beside them."""

import re
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from mulligan.cli.choices import CONF, choices_of, conf_folders

_LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>[^#]*)(?P<comment>#.*)?$")
COMMENT_COLUMN = 40


def print_help(verb: str, config: DictConfig) -> None:
    """Of ``config`` as it is composed: after ``model=gpt2_124m --help`` the keys are that model's."""
    file = CONF / f"{verb}.yaml"
    print(file.read_text().splitlines()[0].removeprefix("# "))
    chosen = reversed(HydraConfig.get().runtime.choices.items())  # Hydra turns the file's order round
    choices = {group: [choice] for group, choice in chosen if choices_of(group)}
    choices |= {group: list(config[group]) for group in _lists(file)}  # which Hydra does not name
    if choices:
        print("\nGroups, as GROUP=CHOICE or suite=[CHOICE,CHOICE]; in brackets what is chosen:")
    for group, taken in choices.items():
        names = (f"[{name}]" if name in taken else name for name in choices_of(group))
        print(f"  {group:<12}" + " ".join(names))
    comments = dict(_comments(f"{verb}.yaml", ""))
    for group, taken in choices.items():
        for choice in taken:
            comments |= dict(_comments(f"{group}/{choice}.yaml", f"{group}."))
    print("\nKeys, as KEY=VALUE; of those in groups as model.width=256:")
    for line in _annotated(OmegaConf.to_yaml(config), comments):
        print(f"  {line}")
    print(f"\n`mulligan {verb} --cfg job` prints them as YAML alone; `mulligan {verb} -m KEY=1,2` does both in turn")


def _lists(file: Path) -> list[str]:
    """The groups of which ``file`` takes several choices at once."""
    content = OmegaConf.load(file)
    defaults = content.get("defaults", []) if isinstance(content, DictConfig) else []
    chosen = [default for default in defaults if isinstance(default, DictConfig)]
    return [str(group) for one in chosen for group, value in one.items() if isinstance(value, ListConfig)]


def _annotated(yaml: str, comments: dict[str, str]) -> Iterator[str]:
    above = ""
    for path, line in _keys(yaml):
        if not path.endswith("_"):  # _target_ and _partial_ are the files' to set
            comment = "" if path == above else comments.get(path, "")  # an item of a list has that of the list
            yield f"{line:<{COMMENT_COLUMN - 1}} {comment}".rstrip()
        above = path


def _comments(name: str, prefix: str) -> Iterator[tuple[str, str]]:
    """(dotted key, comment) of a file and those it builds on, which come first; of one that is elsewhere none."""
    file = next((folder / name for folder in conf_folders() if (folder / name).is_file()), None)
    if file is None:
        return
    content = OmegaConf.load(file)
    for default in content.get("defaults", []) if isinstance(content, DictConfig) else []:
        if isinstance(default, str) and default != "_self_":
            yield from _comments(f"{Path(name).parent}/{default}.yaml", prefix)
    for path, line in _keys(file.read_text()):
        found = _LINE.match(line)
        if found is not None and found["comment"]:
            yield prefix + path, found["comment"]


def _keys(yaml: str) -> Iterator[tuple[str, str]]:
    """(dotted key, line); a line that sets no key belongs to the one before."""
    above: list[tuple[int, str]] = []
    for line in yaml.splitlines():
        found = _LINE.match(line)
        if found is not None:
            indent = len(found["indent"])
            above = [one for one in above if one[0] < indent] + [(indent, found["key"])]
        yield ".".join(key for _, key in above), line
