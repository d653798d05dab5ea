"""From the command line to objects: Hydra composes, signatures check, a mistake becomes one line and exit code 2."""

import errno
import inspect
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import hydra
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from mulligan.cli.choices import CONF, known_keys, no_such_choice, suggestion
from mulligan.cli.help_text import print_help
from mulligan.cli.initial_model import initial_model
from mulligan.cli.sweep import JobFailed, Sweep, is_sweep
from mulligan.distributed import RANKS_LOST, check_launcher, end_with_starter, launched_as, loss_of_ranks

USER_ERROR = 2
# The user's; what else is raised is ours.
MISTAKES = (ValueError, OSError, HydraException, OmegaConfBaseException, JobFailed)
FULL = (errno.ENOSPC, errno.EDQUOT)
HELD_BACK_SECONDS = 5.0  # ranks that start together reach the same mistake within this time
_OF_RESOLVER = "ValueError raised while resolving interpolation: "  # omegaconf's words before those of our own
_PLACE = re.compile(r"^full_key: (\S+)$", re.MULTILINE)  # of a node, in Hydra's words
_OWN_KEY = re.compile(r"\w+=")  # a constructor knows its own keys, not where it stands
EXTRAS = {"lm_eval": "lm-eval", "torchao": "float8"}  # libraries that not every installation has, and what brings them
_GROUPS_BY_REFERENCE = ("tokenizer",)  # other nodes refer to them; no constructor takes them

OmegaConf.register_new_resolver("initial_model", initial_model)
logging.getLogger("hydra").addHandler(logging.NullHandler())  # it logs what it then raises, and we say it once
for _name in ("torchao", "torch.utils._pytree"):  # both warn while torchao loads, of what float8 does not need
    logging.getLogger(_name).setLevel(logging.ERROR)


def run_verb(verb: str, task: Callable[[DictConfig], None]) -> int:
    """Compose ``conf/VERB.yaml`` with the command line, run ``task`` on it, and return the exit code."""
    shown = os.environ.get("MULLIGAN_TRACEBACK") == "1"
    failures: list[Exception] = []
    sweep = Sweep(verb)
    asks_for_help = {"-h", "--help"} & set(sys.argv)
    sys.argv = [word for word in sys.argv if word not in asks_for_help]

    def guarded(config: DictConfig) -> None:
        try:
            if asks_for_help:
                print_help(verb, CONF, config)
            elif is_sweep():
                sweep.run_job()
            else:
                task(config)
        except Exception as error:
            is_loss = loss_of_ranks(error) is not None
            if not is_loss:
                _let_rank_zero_speak()
            if shown or sweep.is_elsewhere or not (is_loss or isinstance(error, MISTAKES)):
                raise
            failures.append(error)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand us the exception itself
    try:
        check_launcher()
        end_with_starter()
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)(guarded)()
    except MISTAKES as error:
        if shown:
            raise
        _let_rank_zero_speak()
        failures.append(error)
    for failure in failures:
        print(" ".join(["mulligan", verb, *launched_as()]) + f": {_one_line(failure, verb)}", file=sys.stderr)
    if any(loss_of_ranks(failure) for failure in failures):
        return RANKS_LOST
    if failures and isinstance(failures[0], JobFailed):
        return failures[0].exit_code
    return USER_ERROR if failures else 0


def _let_rank_zero_speak() -> None:
    """Wait in any other rank: the launcher ends it meanwhile if rank zero made the same mistake, or one before it."""
    if launched_as():
        time.sleep(HELD_BACK_SECONDS)


def plain(config: DictConfig) -> dict[str, Any]:
    """The composed config as plain resolved containers, without Hydra's own part."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]} is not set: give it as {missing[0]}=VALUE")
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): node for key, node in content.items() if key != "hydra"}


def build(content: dict[str, Any]) -> Any:
    """Check a plain config against the signatures of its targets, then make the objects."""
    check(content)
    content = {key: node for key, node in content.items() if key not in _GROUPS_BY_REFERENCE}
    return instantiate(content, _convert_="all")


def check(content: dict[str, Any]) -> None:
    """Raise ValueError for what the constructors of a plain config would not take."""
    for problem in problems({key: node for key, node in content.items() if key not in _GROUPS_BY_REFERENCE}, ""):
        raise ValueError(problem)


def problems(node: Any, path: str) -> Iterator[str]:
    """What the constructors would not take: unknown keys, missing keys, values of another type."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from problems(item, f"{path}[{number}]")
        return
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        yield from _call_problems(node, path)
    for key, value in node.items():
        yield from problems(value, f"{path}.{key}" if path else str(key))


def _call_problems(node: dict[str, Any], path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    try:
        target = get_object(node["_target_"])
        signature = inspect.signature(target)
    except Exception as error:  # whatever importing it raises
        cause = error.__cause__ or error  # Hydra wraps it in lines of its own
        extra = EXTRAS.get(getattr(cause, "name", None) or "")
        if extra is not None:
            yield f"{path} needs a library that is not installed: `pip install mulligan[{extra}]` adds it"
            return
        yield f"{prefix}_target_={node['_target_']} names no class or function: {' '.join(str(cause).split())}"
        return
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # a library names a type that it imports only for type checkers
        hints = {}
    given = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    accepts_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    for key, value in given.items():
        if key not in signature.parameters and not accepts_any:
            yield f"{prefix}{key}={value!r}: there is no such key{suggestion(key, signature.parameters)}"
        elif key in hints and not _holds_target(value):
            yield from _type_problems(f"{prefix}{key}", value, hints[key])
    if not node.get("_partial_"):
        for key, parameter in signature.parameters.items():
            if parameter.default is parameter.empty and parameter.kind is parameter.KEYWORD_ONLY and key not in given:
                yield f"{prefix}{key} is not set: give it as {prefix}{key}=VALUE"


def _type_problems(key: str, value: Any, hint: Any) -> Iterator[str]:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
    except (PydanticSchemaGenerationError, PydanticUserError):
        try:
            adapter = TypeAdapter(hint)  # a type that brings its own config
        except (PydanticSchemaGenerationError, PydanticUserError):
            return
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError:
        if isinstance(value, dict) and (CONF / key).is_dir():  # a file such as none.yaml, and an experiment's keys
            below = ", ".join(f"{key}.{name}" for name in value)
            yield f"{key}: the chosen file has no _target_ that takes {below}; choose another, or leave these keys out"
        else:
            yield f"{key}={value!r}: expected {_describe(hint)}"


def _describe(hint: Any) -> str:
    """A type as a user would write its values."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return ", ".join(arguments)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if hint is NoneType:
        return "null"
    return hint.__name__ if isinstance(hint, type) and not arguments else str(hint).replace("typing.", "")


def _holds_target(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(_holds_target(item) for item in value.values())
    return isinstance(value, list) and any(_holds_target(item) for item in value)


def _one_line(error: BaseException, verb: str) -> str:
    """The message of what the user did wrong, without the layers that passed it on."""
    place = ""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        if found := _PLACE.search(str(error)):
            place = f"{found.group(1)}."
        error = error.__cause__
    if reason := loss_of_ranks(error):
        return (
            "the ranks have lost each other; one has died, is out of reach, or has not answered for "
            f"trainer.strategy.timeout_seconds: {reason}"
        )
    if isinstance(error, OSError) and error.errno in FULL:  # what we write ourselves has a name
        path = error.filename or "a file of a logger or a callback"
        return f"{path}: {error.strerror}; make room there, and the same command goes on"
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename)}: {error.strerror}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {str(error).splitlines()[0]}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return no_such_choice(error.missing_cfg_file, error.options or [])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, InterpolationResolutionError) and lines[0].startswith(_OF_RESOLVER):
        return lines[0].removeprefix(_OF_RESOLVER)
    message = " ".join(lines) or type(error).__name__
    if isinstance(error, ValueError) and _OWN_KEY.match(message):
        message = place + message
    unknown = re.match(r"Could not override '([^']+)'", message)
    if unknown:
        key = unknown.group(1)
        if key in known_keys(verb):
            return f"{key}: the chosen files do not have this key; choose the file of its group that has it"
        return f"{key}: there is no such key{suggestion(key, known_keys(verb))} (`mulligan {verb} --help` shows them)"
    return message
