"""Prepared data, opened: a manifest and its token files.

Shapes: S samples, T tokens in a window (sequence_length + 1).
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mulligan.data.rows import Rows
from mulligan.data.tokens import Tokenizer
from mulligan.files import read_json


class Place(NamedTuple):
    """Where a window lies: ``offset`` tokens into a file. ``document`` is the number in that file of the document which
    its first token belongs to, and ``begun`` counts the documents that begin in it.
    """

    source: str
    file: str
    offset: int
    document: int
    begun: int


class Shards:
    """One split of a folder of prepared data, cut into windows of ``sequence_length + 1`` tokens.

    Windows overlap by one token, so that each token of a shard but the first is predicted once; what is left at the end
    of a shard is shorter than a window and is not trained on.
    """

    def __init__(self, folder: Path, split: str, sequence_length: int, max_bytes: int | None = None) -> None:
        """``max_bytes`` keeps the first shards that together hold so much text, and at least one."""
        if not (folder / "manifest.json").is_file():
            raise ValueError(f"{folder} holds no prepared data (no manifest.json); run `mulligan prepare` first")
        self.folder, self.split, self.sequence_length = folder, split, sequence_length
        self.manifest: dict[str, Any] = read_json(folder / "manifest.json", "shards")
        self.entries = [entry for entry in self.manifest["shards"] if entry["split"] == split]
        if max_bytes is not None:
            before = np.cumsum([0, *(entry["utf8_bytes"] for entry in self.entries)])[:-1]
            self.entries = [entry for entry, start in zip(self.entries, before, strict=True) if start < max_bytes]
        self.tokens = Rows(folder, [entry["file"] for entry in self.entries])
        for entry, length in zip(self.entries, self.tokens.lengths, strict=True):
            if length != entry["tokens"]:
                raise ValueError(f"{folder / entry['file']} has {length} tokens, its manifest says {entry['tokens']}")
        self._documents = Rows(folder, [offsets_name(entry["file"]) for entry in self.entries])
        windows = [max(0, (length - 1) // sequence_length) for length in self.tokens.lengths]
        self._first_window = np.concatenate(([0], np.cumsum(windows))).astype(np.int64)

    @property
    def num_tokens(self) -> int:
        return sum(entry["tokens"] for entry in self.entries)

    @property
    def utf8_bytes(self) -> int:
        return sum(entry["utf8_bytes"] for entry in self.entries)

    def windows_by_source(self) -> dict[str, int]:
        """Windows of each source, in the order of their numbers."""
        sizes: dict[str, int] = {}
        for entry, count in zip(self.entries, np.diff(self._first_window), strict=True):
            sizes[entry["source"]] = sizes.get(entry["source"], 0) + int(count)
        return sizes

    def read(self, windows_S: NDArray[np.int64], out_ST: NDArray[np.int64]) -> None:
        """Copy the tokens of each window into the rows of ``out``."""
        shards, starts = self._starts(windows_S)
        for row, (shard, start) in enumerate(zip(shards.tolist(), starts.tolist(), strict=True)):
            out_ST[row] = self.tokens[shard][start : start + self.sequence_length + 1]

    def count_boundaries(self, windows_S: NDArray[np.int64]) -> int:
        """Documents that begin after the first token of a window, summed: targets that ``document_mask`` leaves out."""
        shards, starts = self._starts(windows_S)
        total = 0
        for shard in np.unique(shards):
            first = starts[shards == shard] + 1
            bounds = np.searchsorted(self._documents[shard], (first, first + self.sequence_length))
            total += int((bounds[1] - bounds[0]).sum())
        return total

    def places(self, windows_S: NDArray[np.int64]) -> list[Place]:
        places = []
        for shard, start in zip(*(numbers.tolist() for numbers in self._starts(windows_S)), strict=True):
            entry, documents = self.entries[shard], self._documents[shard]
            first, end = np.searchsorted(documents, (start, start + self.sequence_length + 1)).tolist()
            document = first if first < end and documents[first] == start else first - 1
            places.append(Place(entry["source"], entry["file"], start, document, end - first))
        return places

    def texts(self, tokenizer: Tokenizer) -> list[bytes]:
        """Every document of the split as UTF-8 bytes."""
        texts = []
        for tokens, offsets in zip(self.tokens, self._documents, strict=True):
            texts += [tokenizer.decode_bytes(ids.tolist()) for ids in np.split(tokens, offsets[1:])]
        return texts

    def _starts(self, windows_S: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shard of each window, and the offset of its first token there."""
        shards = np.searchsorted(self._first_window, windows_S, side="right") - 1
        return shards, (windows_S - self._first_window[shards]) * self.sequence_length


def offsets_name(tokens_name: str) -> str:
    """The file of document offsets beside a file of tokens."""
    return tokens_name.removesuffix(".npy") + ".documents.npy"
