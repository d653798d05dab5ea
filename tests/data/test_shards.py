"""Windows of prepared data against plain slices of the arrays on disk."""

from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mulligan.data.shards import Shards
from mulligan.data.tokens import Tokenizer

BEGIN, END = 1, 2
Documents = list[list[int]]


def made_up(seed: int, num_documents: int) -> Documents:
    random = Random(seed)
    return [[BEGIN, *random.choices(range(3, 60000), k=random.randint(1, 25)), END] for _ in range(num_documents)]


TRAIN = [made_up(0, 12), [[BEGIN, 5, END]], made_up(1, 30), made_up(2, 7)]  # the second holds no window of 8 tokens


@pytest.fixture
def folder(write_shards: Callable[..., Path], tmp_path: Path) -> Path:
    sources = ("web", "web", "web", "code")
    shards = [("train", source, documents) for source, documents in zip(sources, TRAIN, strict=True)]
    return write_shards(tmp_path, [*shards[:2], ("validation", "web", made_up(3, 5)), *shards[2:]])


def slices(sequence_length: int) -> list[list[list[int]]]:
    """The windows of each training shard, by slicing."""
    windows = []
    for documents in TRAIN:
        tokens = list(chain(*documents))
        starts = range(0, len(tokens) - sequence_length, sequence_length)
        windows.append([tokens[start : start + sequence_length + 1] for start in starts])
    return windows


def read(shards: Shards, windows: np.ndarray) -> np.ndarray:
    out = np.full((len(windows), shards.sequence_length + 1), -1, dtype=np.int64)
    shards.read(windows, out)
    return out


@pytest.mark.parametrize("sequence_length", [1, 2, 7, 64])
def test_windows_are_slices_that_overlap_by_one(folder: Path, sequence_length: int) -> None:
    shards = Shards(folder, "train", sequence_length)
    expected = slices(sequence_length)
    windows = list(chain(*expected))
    assert sum(shards.windows_by_source().values()) == len(windows)
    assert read(shards, np.arange(len(windows))).tolist() == windows
    order = np.random.default_rng(0).permutation(len(windows))
    assert read(shards, order).tolist() == [windows[number] for number in order]
    for of_shard in expected:
        assert all(left[-1] == right[0] for left, right in pairwise(of_shard))


def test_windows_are_counted_by_source(folder: Path) -> None:
    counts = [len(windows) for windows in slices(7)]
    assert Shards(folder, "train", 7).windows_by_source() == {"web": sum(counts[:3]), "code": counts[3]}
    assert counts[1] == 0


@pytest.mark.parametrize("sequence_length", [1, 2, 7, 64])
def test_boundaries_are_begin_tokens_among_the_targets(folder: Path, sequence_length: int) -> None:
    shards = Shards(folder, "train", sequence_length)
    windows = np.array(list(chain(*slices(sequence_length))))
    rng = np.random.default_rng(1)
    for chosen in (np.arange(len(windows)), rng.integers(len(windows), size=9), *np.arange(len(windows))[:40, None]):
        assert shards.count_boundaries(chosen) == int((windows[chosen, 1:] == BEGIN).sum())


@pytest.mark.parametrize("sequence_length", [1, 2, 7, 64])
def test_a_place_leads_back_to_the_window(folder: Path, sequence_length: int) -> None:
    shards = Shards(folder, "train", sequence_length)
    numbers = np.arange(sum(shards.windows_by_source().values()))
    for place, window in zip(shards.places(numbers), read(shards, numbers).tolist(), strict=True):
        tokens = np.load(folder / place.file).tolist()
        assert tokens[place.offset : place.offset + sequence_length + 1] == window
        assert place.source == ("code" if place.file == "4.npy" else "web")
        assert place.document == tokens[: place.offset + 1].count(BEGIN) - 1
        assert place.begun == window.count(BEGIN)


def test_splits_are_apart_and_their_tokens_counted(folder: Path) -> None:
    assert Shards(folder, "train", 7).num_tokens == sum(len(document) for shard in TRAIN for document in shard)
    validation = list(chain(*made_up(3, 5)))
    assert read(Shards(folder, "validation", 7), np.array([0])).tolist() == [validation[:8]]


def test_texts_come_back(
    write_shards: Callable[..., Path], tmp_path: Path, tokenizer: Tokenizer, texts: list[str]
) -> None:
    documents = [[BEGIN, *tokenizer.encode(text), END] for text in ("", *texts, "\u2581 é\r\n")]
    write_shards(tmp_path, [("train", "web", documents[:9]), ("train", "web", documents[9:])])
    found = Shards(tmp_path, "train", 8).texts(tokenizer)
    assert found == [text.encode() for text in ("", *texts, "\u2581 é\r\n")]


def test_a_folder_that_is_not_prepared_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no prepared data"):
        Shards(tmp_path, "train", 8)


def test_a_shard_of_another_length_is_named(folder: Path) -> None:
    np.save(folder / "0.npy", np.load(folder / "0.npy")[:-1])
    with pytest.raises(ValueError, match=r"0\.npy has \d+ tokens, its manifest says"):
        Shards(folder, "train", 8)


@pytest.mark.parametrize("size", [0, 20, 130])
def test_a_torn_shard_is_named(write_shards: Callable[..., Path], tmp_path: Path, size: int) -> None:
    folder = write_shards(tmp_path, [("train", "web", [[1, *range(3, 99), 2]])])
    path = folder / "0.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"0\.npy is not a whole \.npy file"):
        Shards(folder, "train", 8)
