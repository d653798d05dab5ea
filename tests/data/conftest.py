"""Made-up documents, a tiny tokenizer trained on them, a source in memory, and shards written by hand."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mulligan.data.documents import Document, Part
from mulligan.data.tokenizer import Tokenizer, TokenizerRecipe
from mulligan.files import write_json

os.environ["HF_HUB_OFFLINE"] = "1"  # read when datasets is imported; no test may touch the network

Shard = tuple[str, str, list[list[int]]]  # split, source, documents as token ids


class MemorySource:
    """Documents held in memory, ``per_part`` of them in a part."""

    def __init__(self, documents: list[Document], per_part: int = 100) -> None:
        self.documents, self.per_part = documents, per_part

    def parts(self) -> list[Part]:
        return [(str(start),) for start in range(0, len(self.documents), self.per_part)]

    def read(self, part: Part) -> Iterator[Document]:
        yield from self.documents[int(part[0]) : int(part[0]) + self.per_part]


@pytest.fixture(scope="session")
def memory_source() -> type[MemorySource]:
    return MemorySource


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Forty documents of lower-case words, each different from the others."""
    random = Random(0)
    words = ["".join(random.choices("abcdefghijklmnop", k=random.randint(2, 7))) for _ in range(200)]
    return [f"{n}: {' '.join(random.choices(words, k=random.randint(40, 200)))}\n" for n in range(40)]


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> Tokenizer:
    return TokenizerRecipe(vocab_size=400).make(texts)


@pytest.fixture(scope="session")
def write_shards() -> Callable[[Path, list[Shard]], Path]:
    """Write a folder of prepared data from token ids, without a tokenizer."""

    def write(folder: Path, shards: list[Shard]) -> Path:
        entries = []
        for number, (split, source, documents) in enumerate(shards):
            lengths = np.array([len(document) for document in documents], dtype=np.int64)
            np.save(folder / f"{number}.npy", np.concatenate(documents).astype(np.uint16))
            np.save(folder / f"{number}.documents.npy", np.cumsum(lengths) - lengths)
            entries.append({"file": f"{number}.npy", "split": split, "source": source, "tokens": int(lengths.sum())})
        write_json(folder / "manifest.json", {"shards": entries})
        return folder

    return write
