"""Sources read through Hugging Face datasets: JSON lines and Parquet files, and data sets of the hub, streamed."""

import logging
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import datasets
import pyarrow

from mulligan.data.documents import Document, Part, find_files

# They log what they then raise, and we say it once.
datasets.logging.set_verbosity(datasets.logging.CRITICAL)
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


class TableFiles:
    """JSON lines (.jsonl, .json, also .gz) or Parquet; a row is a document and its own group, a file is a part."""

    def __init__(self, *, paths: list[str] | str, text_column: str = "text") -> None:
        self.root, self.files = find_files(paths)
        self.sizes = [(self.root / name).stat().st_size for name in self.files]  # the prepared data is named by it too
        self.text_column = text_column
        for name in self.files:
            _builder_of(name)

    def parts(self) -> list[Part]:
        return [(name,) for name in self.files]

    def read(self, part: Part) -> Iterator[Document]:
        (name,) = part
        path, builder = str(self.root / name), _builder_of(name)
        # datasets heeds encoding_errors only when the encoding is not spelled "utf-8".
        options = {"encoding": "UTF-8", "encoding_errors": "replace"} if builder == "json" else {}
        open_rows = partial(datasets.load_dataset, builder, data_files=[path], split="train", streaming=True, **options)
        yield from _documents(open_rows, path, self.text_column, name)


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
        yield from _documents(open_rows, origin, self.text_column, origin)

    def _stream(self) -> datasets.IterableDataset:
        return _open_stream(self.path, self.name, self.split, self.revision)


@cache  # listing asks the hub several questions, of which it limits the number, and there may be thousands of parts
def _open_stream(path: str, name: str | None, split: str, revision: str | None) -> datasets.IterableDataset:
    try:
        return datasets.load_dataset(path, name, split=split, revision=revision, streaming=True)
    except (datasets.exceptions.DatasetNotFoundError, ConnectionError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"path={path!r} cannot be opened as a data set of the hub: {reason}") from None


def _documents(
    open_rows: Callable[[], datasets.IterableDataset], origin: str, text_column: str, part_name: str
) -> Iterator[Document]:
    for number, row in enumerate(_whole(open_rows, origin)):
        if text_column not in row:
            raise ValueError(
                f"{origin}, row {number} has no column text_column={text_column!r}; it has {', '.join(row)}"
            )
        text = row[text_column]
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{origin}, row {number}: text_column={text_column!r} holds {text!r}, which is not text")
        name = f"{part_name}:{number}"
        yield Document(name, name, text)


def _whole(open_rows: Callable[[], datasets.IterableDataset], origin: str) -> Iterator[dict[str, Any]]:
    """The rows; whatever the reader of a torn or empty file raises becomes one error that names the file."""
    try:
        yield from open_rows()
    except (pyarrow.ArrowException, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{origin} cannot be read to its end: {reason}") from None


def _builder_of(name: str) -> str:
    stem = name.removesuffix(".gz")
    if stem.endswith((".jsonl", ".json")):
        return "json"
    if name.endswith(".parquet"):
        return "parquet"
    raise ValueError(f"{name} is neither .jsonl, .json, .jsonl.gz nor .parquet")
