"""From a composed config to objects: their signatures check it, and Hydra makes what each ``_target_`` names."""

import functools
import inspect
import logging
from collections.abc import Generator, Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from mulligan.cli.choices import CONF, suggestion

_FLAGS = {"_partial_": bool, "_recursive_": bool, "_convert_": str}  # Hydra's own keys beside _target_
_SCALARS = {bool, float, int, str, NoneType}
EXTRAS = {"lm_eval": "lm-eval", "torchao": "float8"}  # libraries that not every installation has, and what brings them
_GROUPS_BY_REFERENCE = ("tokenizer",)  # other nodes refer to them; no constructor takes them

for _name in ("torchao", "torch.utils._pytree"):  # both warn while torchao loads, of what float8 does not need
    logging.getLogger(_name).setLevel(logging.ERROR)


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
    target, signature = yield from _target_of(node, path)
    if target is None:
        return
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # a library names a type that it imports only for type checkers
        hints = {}
    given = {key: value for key, value in node.items() if key != "_target_"}
    accepts_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    for key, value in given.items():
        if key in _FLAGS:
            yield from _type_problems(f"{prefix}{key}", value, _FLAGS[key])
        elif key not in signature.parameters and (not accepts_any or key.startswith("_")):
            yield f"{prefix}{key}={value!r}: there is no such key{suggestion(key, signature.parameters)}"
        elif key in hints:
            yield from _value_problems(f"{prefix}{key}", value, hints[key])
    if node.get("_partial_"):
        return
    for key, parameter in signature.parameters.items():
        is_named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if parameter.default is parameter.empty and is_named and key not in given:
            yield f"{prefix}{key} is not set: give it as {prefix}{key}=VALUE"


def _target_of(node: dict[str, Any], path: str) -> Generator[str, None, tuple[Any, inspect.Signature]]:
    """What ``_target_`` names and takes; or a problem, and None."""
    name = node["_target_"]
    try:
        target = get_object(name)
        return target, inspect.signature(target)
    except Exception as error:  # whatever importing it raises
        cause = error.__cause__ or error  # Hydra wraps it in lines of its own
        extra = EXTRAS.get(getattr(cause, "name", None) or "")
        if extra is not None:
            yield f"{path} needs a library that is not installed: `pip install mulligan[{extra}]` adds it"
        else:
            reason = " ".join(str(cause).split()) if isinstance(name, str) else "it must be text"
            if isinstance(cause, ModuleNotFoundError) and cause.name == name.split(".")[0]:
                reason += "; is its folder in PYTHONPATH?"
            yield f"{path}{'.' if path else ''}_target_={name} names no class or function: {reason}"
        return None, inspect.Signature()


def _value_problems(key: str, value: Any, hint: Any) -> Iterator[str]:
    """Of a value for a parameter: what is made of a node by its class, and all else by its type."""
    if not _holds_target(value):
        yield from _type_problems(key, value, hint)
    elif "_target_" in value:
        yield from _made_problems(key, value, hint)
    elif get_origin(hint) is dict:
        for name, item in value.items():
            yield from _value_problems(f"{key}.{name}", item, get_args(hint)[1])


def _made_problems(key: str, node: dict[str, Any], hint: Any) -> Iterator[str]:
    """Whether the class that ``node`` names is one of the hint's. What a function returns is not known before."""
    wanted = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    classes = tuple(kind for kind in (get_origin(one) or one for one in wanted) if inspect.isclass(kind))
    try:
        made = functools.partial if node.get("_partial_") else get_object(node["_target_"])
        fits = any(_fits(made, kind) for kind in classes) if inspect.isclass(made) else not set(classes) <= _SCALARS
    except Exception:  # what cannot be imported its own check tells; Any knows no classes
        return
    if classes and not fits:
        partly = " and _partial_" if node.get("_partial_") else ""
        yield f"{key}._target_={node['_target_']}{partly}: it makes no {_describe(hint)}{_contract(hint)}"


def _fits(made: type, kind: type) -> bool:
    """A class that follows a protocol need not say so: it has the methods."""
    if Protocol not in kind.__bases__:
        return issubclass(made, kind)
    return all(any(name in vars(base) for base in made.__mro__) for name in _methods(kind))


def _contract(hint: Any) -> str:
    """What a protocol asks for: data, and methods with what they are called with."""
    if Protocol not in getattr(hint, "__bases__", ()):
        return ""
    calls = [f"{name}({', '.join(arguments)})" for name, arguments in _methods(hint).items()]
    return f", which has {' and '.join([*inspect.get_annotations(hint), *calls])}"


def _methods(protocol: type) -> dict[str, list[str]]:
    """The arguments of each method, by its name."""
    own = {name: member for name, member in vars(protocol).items() if name == "__call__" or name[0] != "_"}
    return {name: [*inspect.signature(one).parameters][1:] for name, one in own.items() if inspect.isfunction(one)}


def _type_problems(key: str, value: Any, hint: Any) -> Iterator[str]:
    if get_origin(hint) is dict and isinstance(value, dict):
        kinds = get_args(hint)
        for name, item in value.items():
            for part, kind in zip((name, item), kinds, strict=True):
                yield from _type_problems(f"{key}.{name}", part, kind)
        return
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
        elif isinstance(value, dict) and inspect.isclass(hint) and hint not in _SCALARS:
            yield f"{key} needs a _target_, which makes a {_describe(hint)} of its other keys"
        else:
            is_text = str in (hint, *get_args(hint)) and isinstance(value, int | float)
            quoted = f"; quoted it is text: \"{key}='{value}'\"" if is_text else ""  # the outer quotes are the shell's
            yield f"{key}={value!r}: expected {_describe(hint)}{quoted}"


def _describe(hint: Any) -> str:
    """A type as a user would write its values."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(arguments)
    if origin in (Union, UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if hint is NoneType:
        return "null"
    if origin is not None:
        inside = ", ".join("..." if argument is Ellipsis else _describe(argument) for argument in arguments)
        return f"{origin.__name__}[{inside}]"
    return str(getattr(hint, "__name__", hint))


def _holds_target(value: Any) -> bool:
    if isinstance(value, dict):
        return "_target_" in value or any(_holds_target(item) for item in value.values())
    return isinstance(value, list) and any(_holds_target(item) for item in value)
