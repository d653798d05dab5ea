"""Files are whole or absent, and their hashes are those of their bytes."""

import errno
import fcntl
import math
import os
from functools import partial
from pathlib import Path

import pytest

from mulligan.files import (
    HashingWriter,
    atomic_folder,
    atomic_write,
    exclusive,
    read_json,
    remove_temporaries,
    sha256_file,
    shared,
    write_hashed,
    write_json,
)


def test_atomic_write_makes_the_folder_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_may_be_renamed_as_soon_as_a_file_is_seen_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rank zero renames a checkpoint when the word of the last rank stands in it."""
    early, late = tmp_path / "early", tmp_path / "late"
    replace = Path.replace

    def seen_at_once(source: Path, target: Path) -> None:
        replace(source, target)
        replace(early, late)

    monkeypatch.setattr(Path, "replace", seen_at_once)
    write_json(early / "word.json", {"whole": True})
    assert read_json(late / "word.json") == {"whole": True}


def test_a_writer_that_raises_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def torn() -> None:
        with atomic_write(path) as file:
            file.write(b"new bytes")
            file.flush()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        torn()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_temporaries_are_removed(tmp_path: Path) -> None:
    for name in (".a.npy.123.tmp", "a.npy", "b.tmp", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / ".c.tmp").mkdir()
    (tmp_path / ".c.tmp/part").touch()
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.npy", "b.tmp"]


@pytest.mark.parametrize("chunks", [[], [b"one"], [b"one", memoryview(b"two" * 1000), b""]])
def test_write_hashed_gives_the_hash_of_the_file(tmp_path: Path, chunks: list[bytes]) -> None:
    path = tmp_path / "file.bin"
    counted = []

    def write(file: HashingWriter) -> None:
        for chunk in chunks:
            file.write(chunk)
        counted.append(file.num_bytes)

    assert write_hashed(path, write) == sha256_file(path)
    assert path.read_bytes() == b"".join(chunks)
    assert counted == [path.stat().st_size]


def test_json_comes_back_and_keys_are_sorted(tmp_path: Path) -> None:
    content = {"zwei": [1, 2.5, None], "eins": "é\n\u2581"}
    write_json(tmp_path / "a.json", content)
    write_json(tmp_path / "b.json", dict(reversed(content.items())))
    assert read_json(tmp_path / "a.json") == content
    assert sha256_file(tmp_path / "a.json") == sha256_file(tmp_path / "b.json")


@pytest.mark.parametrize("torn", [b"", b'{"shards": [{"fi', b'{"a": "\xff"}'])
def test_a_torn_json_file_is_named(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(torn)
    with pytest.raises(ValueError, match=r"manifest\.json is not whole JSON"):
        read_json(path)


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": [1.5, math.nan, (2, -math.inf)], "b": {"c": math.inf, "d": "nan"}})
    assert read_json(tmp_path / "a.json") == {"a": [1.5, None, [2, None]], "b": {"c": None, "d": "nan"}}


def test_a_lock_is_shared_by_some_or_held_by_one(tmp_path: Path) -> None:
    path, waited = tmp_path / "new" / ".lock", []
    alone = partial(exclusive, path, patience_seconds=0.0, waiting=lambda: waited.append("alone"))
    refused = partial(pytest.raises, ValueError, match=f"{path.parent} is in use by another process")
    with shared(path), shared(path, waiting=lambda: waited.append("shared")), refused(), alone():
        pass
    assert waited == ["alone"], "those who share waited for each other"
    with alone(), refused(), alone():
        pass


def test_who_shares_waits_for_who_holds_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, waited = tmp_path / ".lock", []
    alone = exclusive(path)
    alone.__enter__()
    monkeypatch.setattr("time.sleep", lambda seconds: alone.__exit__(None, None, None))
    with shared(path, waiting=lambda: waited.append("shared")):
        assert waited == ["shared"]


def test_storage_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, kind: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(
        ValueError, match=r"\.lock cannot be locked \(Function not implemented\): the storage must offer"
    ):
        exclusive(tmp_path / ".lock").__enter__()


def test_a_folder_is_complete_or_absent(tmp_path: Path) -> None:
    def fill(name: str) -> None:
        with atomic_folder(tmp_path / name) as folder:
            (folder / "one").write_text("1")
            assert not (tmp_path / name).exists()
            assert name == "whole", "stopped"

    fill("whole")
    with pytest.raises(AssertionError, match="stopped"):
        fill("torn")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert (tmp_path / "whole/one").read_text() == "1"
