"""Where text comes from: a source is cut into parts, and each part reads as documents, always in the same order."""

import gzip
import json
import os
import re
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LEFT_OUT = {"site-packages", "test", "tests", "idle_test"}  # many distributions ship no tests

Part = tuple[str, ...]  # what `read` needs to find the part again: names of files, say


class Document(NamedTuple):
    """``group`` decides the split: all documents of a group are trained on, or all are held out.

    ``text`` is None where a table's row has none, be it null or left out.
    """

    name: str
    group: str
    text: str | None


@runtime_checkable  # pydantic checks instances
class Source(Protocol):
    def parts(self) -> list[Part]:
        """Cut the source, in an order that depends on its content only."""
        ...

    def read(self, part: Part) -> Iterator[Document]:
        """The documents of one part. Bytes that are not UTF-8 read as U+FFFD."""
        ...


def described(name: str, source: Source) -> list[Any]:
    """What tells a source from others: its name, class and attributes. Raise ValueError for an attribute that is
    not plain: what JSON has no form for would be another one in each process.
    """
    kind, attributes = type(source), vars(source)
    for key, value in attributes.items():
        try:
            json.dumps(value, default=_path_as_text)
        except TypeError:
            raise ValueError(
                f"data.sources.{name} ({kind.__name__}) keeps {key} as a {type(value).__name__}, and prepared data is "
                "named by its attributes: keep text, numbers, paths and lists of them"
            ) from None
    is_ours = kind.__module__.startswith("mulligan.")
    return [name, kind.__name__ if is_ours else f"{kind.__module__}.{kind.__qualname__}", attributes]


def _path_as_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError


def as_utf8_can(text: str) -> str:
    """``text`` with U+FFFD for lone surrogates, which JSON can spell."""
    return _LONE_SURROGATE.sub("\ufffd", text)


class PythonStdlib:
    """The .py files of the running Python's standard library without its test suites; a module is its own group."""

    def __init__(self, *, part_bytes: int = 2**19) -> None:
        self.root = Path(sysconfig.get_path("stdlib"))
        self.part_bytes = _at_least_one(part_bytes)

    def parts(self) -> list[Part]:
        files = (path for path in self.root.rglob("*.py") if not _LEFT_OUT & set(path.relative_to(self.root).parts))
        return _parts_of_files(files, self.root, self.part_bytes)

    def read(self, part: Part) -> Iterator[Document]:
        for name in part:
            yield Document(name, name.removesuffix(".py").replace("/", "."), _read_text(self.root / name))


class SitePackages:
    """The .py files installed beside the running Python; a package forms one group."""

    def __init__(self, *, part_bytes: int = 2**22) -> None:
        self.root = Path(sysconfig.get_path("purelib"))
        self.part_bytes = _at_least_one(part_bytes)

    def parts(self) -> list[Part]:
        return _parts_of_files(self.root.rglob("*.py"), self.root, self.part_bytes)

    def read(self, part: Part) -> Iterator[Document]:
        for name in part:
            yield Document(name, Path(name).parts[0], _read_text(self.root / name))


class TextFiles:
    """Plain text, a document a file, also gzipped (.gz); each file is its own group.

    A document is named by its file's path below ``root``, the deepest folder that holds all of them, so that order and
    split stay what they were where that folder moves.
    """

    def __init__(self, *, paths: list[str] | str, part_bytes: int = 2**22) -> None:
        self.root, self.files = find_files(paths)
        self.sizes = [(self.root / name).stat().st_size for name in self.files]  # the prepared data is named by it too
        self.part_bytes = _at_least_one(part_bytes)

    def parts(self) -> list[Part]:
        return _parts_of_files([self.root / name for name in self.files], self.root, self.part_bytes)

    def read(self, part: Part) -> Iterator[Document]:
        for name in part:
            yield Document(name, name, _read_text(self.root / name))


def find_files(patterns: list[str] | str) -> tuple[Path, list[str]]:
    """The deepest folder that holds every file the glob patterns or names match, and the files' paths below it, sorted.

    Raises ValueError for a pattern without a match.
    """
    if not patterns:
        raise ValueError("paths=[] names no file; give names or a glob such as 'text/**/*.txt'")
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = [pattern] if Path(pattern).is_file() else glob(pattern, recursive=True)  # a name may hold brackets
        matches = [path for path in map(Path, names) if path.is_file()]
        if not matches:
            raise ValueError(f"paths={pattern!r} matches no file; give a file name or a glob such as 'text/**/*.txt'")
        found.update(matches)
    if any(path.is_absolute() for path in found):
        found = {path.absolute() for path in found}
    root = Path(os.path.commonpath([path.parent for path in found]))
    return root, sorted(path.relative_to(root).as_posix() for path in found)


def _at_least_one(part_bytes: int) -> int:
    if part_bytes < 1:
        raise ValueError(f"part_bytes={part_bytes} of a source must be at least 1")
    return part_bytes


def _parts_of_files(files: Iterable[Path], root: Path, part_bytes: int) -> list[Part]:
    """Group files, sorted by name, until a part has ``part_bytes``."""
    parts: list[Part] = []
    names: list[str] = []
    size = 0
    for path in sorted(files):
        names.append(path.relative_to(root).as_posix())
        size += path.stat().st_size
        if size >= part_bytes:
            parts.append(tuple(names))
            names, size = [], 0
    return [*parts, tuple(names)] if names else parts


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    return data.decode("utf-8", errors="replace")
