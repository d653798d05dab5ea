"""Tables read through Hugging Face datasets, from files and from a folder in the hub's format."""

import builtins
import gzip
import json
import logging
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub.utils import http_backoff

from mulligan.data.documents import Source
from mulligan.data.hub import HubDataset, TableFiles
from mulligan.data.prepare import DataRecipe
from mulligan.data.share import Share
from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.data.tokens import Tokenizer

TEXTS = ["one\r\n\t two", "é \u2581 😀\x00", "three"]


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_parquet(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "id": list(range(len(texts)))}), path)


def read(source: Source) -> list[str | None]:
    return [document.text for part in source.parts() for document in source.read(part)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    content = lines([{"id": n, "text": text} for n, text in enumerate(TEXTS)])
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(TableFiles(paths=[str(tmp_path / name)])) == TEXTS


def test_parquet(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", TEXTS)
    assert read(TableFiles(paths=[str(tmp_path / "a.parquet")])) == TEXTS


def test_a_file_is_a_part_and_a_row_its_own_group(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_bytes(lines([{"text": f"{name} {n}"} for n in range(3)]))
    source = TableFiles(paths=[str(tmp_path / "*.jsonl")])
    assert source.parts() == [("a.jsonl",), ("b.jsonl",)]
    documents = [document for part in source.parts() for document in source.read(part)]
    assert [document.text for document in documents] == [f"{name}.jsonl {n}" for name in "ab" for n in range(3)]
    assert {document.group for document in documents} == {f"{name}.jsonl:{n}" for name in "ab" for n in range(3)}


def test_another_column_and_missing_values(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"body": "x"}, {"body": None}, {"text": "y"}, {"body": ""}]))
    assert read(TableFiles(paths=[str(tmp_path / "a.jsonl")], text_column="body")) == ["x", None, None, ""]


def test_rows_of_json_may_differ_in_all_but_their_text(tmp_path: Path) -> None:
    rows = [
        {"text": "first"},
        {"text": "a\ud800b", "meta": {"a": 1}},
        {"id": "x", "text": "b"},
        {"id": [2], "meta": ""},
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(rows).replace(b"b", b"\xff") + b"\r\n \n")
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2))
    assert read(TableFiles(paths=[str(tmp_path / "a.jsonl")])) == ["first", "a\ud800\ufffd", "\ufffd", None]
    assert read(TableFiles(paths=[str(tmp_path / "a.json")])) == ["first", "a\ud800b", "b", None]


def test_the_first_rows_may_lack_a_text(tmp_path: Path) -> None:
    for number, texts in ((10, [*[None] * 10, "x"]), (1200, None)):
        (tmp_path / "a.jsonl").write_bytes(lines([{"id": n} for n in range(number)] + [{"text": "x"}]))
        if texts is None:
            with pytest.raises(ValueError, match="has no column text_column='text'; it has id"):
                read(TableFiles(paths=[str(tmp_path / "a.jsonl")]))
        else:
            assert read(TableFiles(paths=[str(tmp_path / "a.jsonl")])) == texts


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.parquet"])
def test_a_file_may_hold_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"\n")
    if name.endswith(".parquet"):
        write_parquet(tmp_path / name, [])
    assert read(TableFiles(paths=[str(tmp_path / name)])) == []


@pytest.mark.parametrize(
    ("torn", "message"),
    [
        (b'{"text": "a"}\n{"text": "b', "a.json, row 1 is not JSON: Unterminated string"),
        (b'["a"]', "a.json, row 0 is 'a', and not an object"),
        (b"[" * 100_000, "a.json, row 0 is not JSON: maximum recursion depth"),
    ],
)
def test_what_is_no_row_is_named(tmp_path: Path, torn: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(torn)
    with pytest.raises(ValueError, match=message):
        read(TableFiles(paths=[str(tmp_path / "a.json")]))


def test_a_missing_column_is_named_with_those_there(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"body": "x", "id": 1}]))
    with pytest.raises(ValueError, match=r"a\.jsonl has no column text_column='text'; it has body, id"):
        read(TableFiles(paths=[str(tmp_path / "a.jsonl")]))


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.parquet.gz", "jsonl"])
def test_another_format_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="is neither"):
        TableFiles(paths=[str(tmp_path / name)])


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    for number in range(3):
        write_parquet(
            tmp_path / "data" / f"train-{number:05d}-of-00003.parquet", [f"{number} {text}" for text in TEXTS]
        )
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", ["held out"])
    return tmp_path


def test_a_file_of_the_hub_is_a_part(hub_folder: Path) -> None:
    source = HubDataset(path=str(hub_folder))
    assert len(source.parts()) == 3
    for number, part in enumerate(source.parts()):
        assert [document.text for document in source.read(part)] == [f"{number} {text}" for text in TEXTS]
    groups = [document.group for part in source.parts() for document in source.read(part)]
    assert len(set(groups)) == 9


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The Parquet files that are opened, each as often as it is."""
    names: list[str] = []
    really_open = builtins.open

    def spy(file: Any, *options: Any, **more: Any) -> Any:
        if str(file).endswith(".parquet"):
            names.append(Path(file).name)
        return really_open(file, *options, **more)

    monkeypatch.setattr(builtins, "open", spy)
    return names


def test_a_part_of_the_hub_is_read_from_its_own_file(hub_folder: Path, opened: list[str]) -> None:
    source = HubDataset(path=str(hub_folder))
    parts = source.parts()
    assert opened == ["train-00000-of-00003.parquet"], "listing looks up the columns in the first file, and no more"
    opened.clear()
    for _ in source.read(parts[2]):
        assert opened == ["train-00002-of-00003.parquet"]
    assert len(source.parts()) == 3
    assert opened == ["train-00002-of-00003.parquet"], "the data set was listed again"


def test_a_share_reads_its_own_files_of_the_hub(hub_folder: Path, tokenizer: Tokenizer, opened: list[str]) -> None:
    model = hub_folder / "own.model"
    model.write_bytes(tokenizer.model)
    recipe = DataRecipe(
        name="hub",
        folder=str(hub_folder / "prepared"),
        sources={"hub": HubDataset(path=str(hub_folder))},
        tokenizer=TokenizerRecipe(vocab_size=400, model_file=str(model)),
        workers=1,
    )
    recipe.sources["hub"].parts()
    opened.clear()
    recipe.prepare_share(Share(part=1, parts=2), lambda what, done, total: None)
    assert opened == ["train-00001-of-00003.parquet"]
    recipe.prepare_share(Share(part=0, parts=2), lambda what, done, total: None)
    assert opened[1:] == ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"]


def test_another_split_of_the_hub(hub_folder: Path) -> None:
    assert read(HubDataset(path=str(hub_folder), split="validation")) == ["held out"]


def test_what_the_hub_does_not_hold_is_named(hub_folder: Path) -> None:
    with pytest.raises(ValueError, match="has no column text_column='body'; it has text, id"):
        read(HubDataset(path=str(hub_folder), text_column="body"))
    with pytest.raises(ValueError, match="nope"):
        HubDataset(path=str(hub_folder), split="nope").parts()
    with pytest.raises(ValueError, match="nowhere' cannot be opened as a data set of the hub"):
        HubDataset(path=str(hub_folder / "nowhere")).parts()


def test_what_the_hub_library_tries_again_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[logging.LogRecord] = []
    keep = logging.Handler()
    keep.emit = logged.append  # type: ignore[method-assign]  # all that a handler does
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [keep])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(Exception, match="refused"):
        http_backoff("HEAD", "http://127.0.0.1:9/nobody-listens", max_retries=2)
    assert logged == []


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_a_broken_table_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08garbage")
    with pytest.raises(ValueError, match=rf"{name} cannot be read to its end"):
        read(TableFiles(paths=[str(tmp_path / name)]))
