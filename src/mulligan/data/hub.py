"""Sources read through Hugging Face datasets: JSON lines and Parquet files, and data sets of the hub, streamed."""

import json
import logging
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain
from typing import Any

import datasets
import pyarrow

from mulligan.data.documents import Document, Part, find_files

# They log what they then raise, and we say it once.
datasets.logging.set_verbosity(datasets.logging.CRITICAL)
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

Row = dict[str, Any]
JSON, PARQUET = (".jsonl", ".json"), ".parquet"
_ROWS_WITHOUT_TEXT = 1000  # at the beginning of a file, before its column is said to be missing


class TableFiles:
    """JSON lines (.jsonl, .json, also .gz) or Parquet; a row is a document and its own group, a file is a part.

    A file of JSON may also be one array of rows. Beside their text, rows may differ in all they hold.
    """

    def __init__(self, *, paths: list[str] | str, text_column: str = "text") -> None:
        self.root, self.files = find_files(paths)
        self.sizes = [(self.root / name).stat().st_size for name in self.files]  # the prepared data is named by it too
        self.text_column = text_column
        for name in self.files:
            if not name.removesuffix(".gz").endswith(JSON) and not name.endswith(PARQUET):
                raise ValueError(f"{name} is neither .jsonl, .json, .jsonl.gz nor .parquet")

    def parts(self) -> list[Part]:
        return [(name,) for name in self.files]

    def read(self, part: Part) -> Iterator[Document]:
        (name,) = part
        path = str(self.root / name)
        rows = _parquet_rows(path) if name.endswith(PARQUET) else _json_rows(path)
        yield from _documents(rows, path, self.text_column, name)


class HubDataset:
    """A data set of the hub, or a local folder in the hub's format, streamed; one of its files is a part."""

    def __init__(
        self,
        *,
        path: str,
        name: str | None = None,
        split: str = "train",
        revision: str | None = None,
        text_column: str = "text",
    ) -> None:
        self.path, self.name, self.split, self.revision = path, name, split, revision
        self.text_column = text_column

    def parts(self) -> list[Part]:
        return [(str(number),) for number in range(self._stream().num_shards)]

    def read(self, part: Part) -> Iterator[Document]:
        stream = self._stream()
        open_rows = partial(stream.shard, num_shards=stream.num_shards, index=int(part[0]))
        origin = f"{self.path}/{self.split}/{part[0]}"
        yield from _documents(_whole(open_rows, origin), origin, self.text_column, origin)

    def _stream(self) -> datasets.IterableDataset:
        return _open_stream(self.path, self.name, self.split, self.revision)


@cache  # listing asks the hub several questions, of which it limits the number, and there may be thousands of parts
def _open_stream(path: str, name: str | None, split: str, revision: str | None) -> datasets.IterableDataset:
    try:
        return datasets.load_dataset(path, name, split=split, revision=revision, streaming=True)
    except (datasets.exceptions.DatasetNotFoundError, *_UNREADABLE) as error:
        raise ValueError(f"path={path!r} cannot be opened as a data set of the hub: {_reason(error)}") from None


def _documents(rows: Iterator[Row], origin: str, text_column: str, part_name: str) -> Iterator[Document]:
    number, row, is_known = -1, Row(), False
    for number, row in enumerate(rows):
        is_known = is_known or text_column in row
        if not is_known and number == _ROWS_WITHOUT_TEXT:
            break
        text = row.get(text_column)
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{origin}, row {number}: text_column={text_column!r} holds {text!r}, which is not text")
        name = f"{part_name}:{number}"
        yield Document(name, name, text)
    if number >= 0 and not is_known:
        raise ValueError(f"{origin} has no column text_column={text_column!r}; it has {', '.join(row) or 'none'}")


def _json_rows(path: str) -> Iterator[Row]:
    """Parsed one by one: datasets' own reader of JSON wants a column to hold one type through all rows."""
    read = _rows_of_file("text", path, encoding="utf-8-sig", encoding_errors="replace")
    written = filter(str.strip, (row["text"] for row in read))
    first = next(written, None)
    if first is None:
        return
    lines, is_array = chain([first], written), first.lstrip().startswith("[")
    for number, text in enumerate(["\n".join(lines)] if is_array else lines):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, row {number} is not JSON: {error}") from None
        for row in value if is_array else [value]:
            if not isinstance(row, dict):
                raise ValueError(f"{path}, row {number} is {str(row)[:40]!r}, and not an object with a text")
            yield row


def _parquet_rows(path: str) -> Iterator[Row]:
    return _rows_of_file("parquet", path, batch_size=1024)  # not a row group, which may be empty


def _rows_of_file(builder: str, path: str, **options: Any) -> Iterator[Row]:
    return _whole(
        partial(datasets.load_dataset, builder, data_files=[path], split="train", streaming=True, **options), path
    )


# What the readers of a torn or empty file raise, and those of one whose columns change.
_FOREIGN = (pyarrow.ArrowException, zlib.error)
_UNREADABLE = (EOFError, OSError, RuntimeError, StopIteration, TypeError, ValueError, *_FOREIGN)


def _whole(open_rows: Callable[[], datasets.IterableDataset], origin: str) -> Iterator[Row]:
    """The rows; whatever their reader raises becomes one error that names the file."""
    try:
        yield from open_rows()
    except _UNREADABLE as error:
        raise ValueError(f"{origin} cannot be read to its end: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
