"""Passages of files; a data set of the hub is read as tests/data/test_hub.py shows."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mulligan.data.passages import Passages

TEXTS = ["one two", "three  four"]


def test_a_line_or_a_row_each(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n\nthree  four\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "a.parquet")
    for name in ("a.txt", "a.jsonl", "a.parquet"):
        assert Passages(path=str(tmp_path / name), split="test").read() == TEXTS
        assert Passages(path=str(tmp_path / name), split="test", limit=1).read() == TEXTS[:1]


def test_a_folder_in_the_hubs_format_and_its_split(tmp_path: Path) -> None:
    folder = tmp_path / "passages"
    folder.mkdir()
    for split, text in (("train", "of no use"), ("test", "one two")):
        (folder / f"{split}.jsonl").write_text(json.dumps({"text": text}) + "\n")
    assert Passages(path=str(folder), split="test").read() == ["one two"]


def test_they_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n")
    passages = Passages(path=str(tmp_path / "a.txt"), split="test")
    passages.read()
    (tmp_path / "a.txt").unlink()
    assert passages.read() == ["one two"]


def test_what_is_no_file_of_passages_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    (tmp_path / "a.txt").touch()
    for name, reason in (("a.csv", "must end in .txt, or in one of .jsonl"), ("none.jsonl", "is not a file")):
        with pytest.raises(ValueError, match=reason):
            Passages(path=str(tmp_path / name), split="test")
    with pytest.raises(ValueError, match="holds no passage"):
        Passages(path=str(tmp_path / "a.txt"), split="test").read()
