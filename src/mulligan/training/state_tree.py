"""Nested dicts, lists and tuples, which states are made of: their leaves by name, such as ``optimizer_states.0.lr``."""

from collections.abc import Callable, Iterator
from typing import Any


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict | list | tuple):
        for key, child in _children(node):
            yield from leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def mapped(node: Any, change: Callable[[str, Any], Any], path: str = "") -> Any:
    """A new tree with ``change(name, leaf)`` for each leaf."""
    if not isinstance(node, dict | list | tuple):
        return change(path, node)
    changed = {key: mapped(child, change, f"{path}.{key}" if path else str(key)) for key, child in _children(node)}
    if isinstance(node, dict):
        return changed
    return list(changed.values()) if isinstance(node, list) else tuple(changed.values())


def _children(node: Any) -> Any:
    return node.items() if isinstance(node, dict) else enumerate(node)
