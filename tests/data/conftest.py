"""Made-up documents, a tiny tokenizer trained on them, a source in memory, and shards written by hand or prepared."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mulligan.data.documents import Document, Part
from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.data.tokens import Tokenizer
from mulligan.files import write_json
from tests.data.prepare_and_stop import recipe, silent

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


@pytest.fixture(scope="session")
def two_sources(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """Forty good files in two sources; one file each that is empty, repetitive, a duplicate, or not UTF-8."""
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("web", "code"):
        (folder / name).mkdir()
    for number, text in enumerate(texts):
        (folder / ("web" if number % 3 else "code") / f"{number:02d}.txt").write_text(text)
    (folder / "web" / "empty.txt").write_text(" \n")
    (folder / "web" / "repetitive.txt").write_text("0" * 50)
    (folder / "web" / "duplicate.txt").write_text(texts[0])
    (folder / "web" / "latin.txt").write_bytes("señor".encode("latin-1"))
    return folder


@pytest.fixture
def in_two_sources(two_sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe names its files from there."""
    monkeypatch.chdir(two_sources)


@pytest.fixture(scope="session")
def prepared(two_sources: Path) -> Path:
    """What the recipe makes of them. It is to stay so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(two_sources)
        return recipe(str(two_sources / "reference")).prepare(silent)
