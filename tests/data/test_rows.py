"""Rows on disk: opened by their headers, however long and however many they are."""

import mmap
import os
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest

from mulligan.data.join import VERIFIED, verify
from mulligan.data.rows import Rows
from mulligan.data.shards import Shards, offsets_name
from mulligan.files import write_json

NUM_SHARDS, SHARD_TOKENS = 100, 500_000_000  # 100 GB of uint16, which no test could read
LAST = 65_000


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A hundred sparse shards. Their hashes are made up, their stamps those of files found good."""
    shards, stamps = [], {}
    for number in range(NUM_SHARDS):
        name = f"{number}.npy"
        tokens = np.lib.format.open_memmap(tmp_path / name, mode="w+", dtype=np.uint16, shape=(SHARD_TOKENS,))
        tokens[-1] = LAST
        np.lib.format.open_memmap(tmp_path / offsets_name(name), mode="w+", dtype=np.int64, shape=(SHARD_TOKENS // 99,))
        shards.append({"file": name, "split": "train", "source": "web", "tokens": SHARD_TOKENS, "utf8_bytes": 1})
        shards[-1] |= {"sha256": "made up", "documents_sha256": "made up"}
    (tmp_path / "tokenizer.model").touch()
    for path in sorted(tmp_path.iterdir()):
        stamps[path.name] = ["made up", path.stat().st_size, path.stat().st_mtime_ns]
    write_json(tmp_path / VERIFIED, stamps)
    write_json(tmp_path / "manifest.json", {"shards": shards, "tokenizer_sha256": "made up"})
    return tmp_path


def test_a_hundred_gigabytes_open_by_their_headers(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps: list[int] = []
    real = mmap.mmap
    monkeypatch.setattr(mmap, "mmap", lambda *args, **keys: maps.append(1) or real(*args, **keys))
    verify(large)  # reading a file would find another hash
    shards = Shards(large, "train", 1000)
    windows = sum(shards.windows_by_source().values())
    assert windows == NUM_SHARDS * ((SHARD_TOKENS - 1) // 1000)
    assert not maps, "opening the data has mapped files of it"
    out = np.empty((2, 1001), dtype=np.int64)
    shards.read(np.array([0, windows - 1]), out)
    assert len(maps) == 2, "a window has mapped other files than its own"
    assert shards.tokens[NUM_SHARDS - 1][-1] == LAST


def test_there_may_be_more_files_than_descriptors(tmp_path: Path) -> None:
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 40  # noqa: PTH208  # names alone
    names = [f"{number}.npy" for number in range(limit)]
    for number, name in enumerate(names):
        np.save(tmp_path / name, np.full(5, number, dtype=np.uint16))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, former[1]))
    try:
        rows = Rows(tmp_path, names)
        found = [(row[0], rows[0][0]) for row in rows]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)
    assert found == [(number, 0) for number in range(limit)]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int64"])
@pytest.mark.parametrize("length", [0, 1, 1000])
def test_a_row_is_what_numpy_saved(tmp_path: Path, dtype: str, length: int) -> None:
    saved = np.arange(length).astype(dtype)
    np.save(tmp_path / "row.npy", saved)
    (row,) = Rows(tmp_path, ["row.npy"])
    assert row.dtype == saved.dtype
    assert row.tolist() == saved.tolist()
    assert not row.flags.writeable


@pytest.mark.parametrize("array", [np.zeros((2, 3), dtype=np.uint16), np.zeros(4), np.array(["a"])])
def test_another_array_is_named(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "other.npy", array)
    with pytest.raises(ValueError, match=r"other\.npy is not a whole \.npy file of one row"):
        Rows(tmp_path, ["other.npy"])


def test_another_process_maps_for_itself(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", np.arange(9, dtype=np.uint16))
    rows = Rows(tmp_path, ["0.npy"])
    assert rows[0][3] == 3
    sent = pickle.loads(pickle.dumps(rows))  # our own, as a loader's worker gets it
    assert sent[0].tolist() == list(range(9))
