"""Sources on disk: what they leave out, the order of their parts, and how bytes become text."""

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mulligan.data.documents import Document, PythonStdlib, SitePackages, Source, TextFiles, described


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def documents(source: Source) -> list[Document]:
    return [document for part in source.parts() for document in source.read(part)]


def test_stdlib_is_the_library_without_its_tests() -> None:
    names = [name for part in PythonStdlib().parts() for name in part]
    assert {"ast.py", "json/decoder.py"} <= set(names)
    assert not [name for name in names if {"site-packages", "test", "tests", "idle_test"} & set(name.split("/"))]
    assert [Path(name) for name in names] == sorted({Path(name) for name in names})


def test_stdlib_parts_do_not_change_and_are_cut_by_size() -> None:
    source = PythonStdlib(part_bytes=2**19)
    assert source.parts() == PythonStdlib(part_bytes=2**19).parts()
    *full, last = source.parts()
    for part in (*full, last[:-1]):
        sizes = [(source.root / name).stat().st_size for name in part]
        assert sum(sizes[:-1]) < 2**19
        assert part == last[:-1] or sum(sizes) >= 2**19


def test_stdlib_leaves_out_what_lies_below_test_folders(folder: Path) -> None:
    for name in ("a.py", "pkg/b.py", "test/c.py", "pkg/tests/d.py", "site-packages/e/f.py", "pkg/data.txt"):
        write(folder / name, name.encode())
    source = PythonStdlib()
    source.root = folder
    assert documents(source) == [Document("a.py", "a", "a.py"), Document("pkg/b.py", "pkg.b", "pkg/b.py")]


def test_a_site_package_is_one_group(folder: Path) -> None:
    for name in ("one/a.py", "one/deep/b.py", "two/a.py", "single.py"):
        write(folder / name, b"x")
    source = SitePackages()
    source.root = folder
    groups = {document.name: document.group for document in documents(source)}
    assert groups == {"one/a.py": "one", "one/deep/b.py": "one", "two/a.py": "two", "single.py": "single.py"}


def test_text_files_are_read_in_the_order_of_their_names(folder: Path) -> None:
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "d.md"):
        write(folder / name, name.encode() + b"\r\n\t")
    source = TextFiles(paths=["**/*.txt", "a.txt"], part_bytes=1)
    assert source.parts() == [("a.txt",), ("b.txt",), ("deep/er/c.txt",)]
    assert documents(source)[2] == Document("deep/er/c.txt", "deep/er/c.txt", "deep/er/c.txt\r\n\t")


def test_bytes_that_are_not_utf8_read_as_replacement_characters(folder: Path) -> None:
    write(folder / "a.txt", b"caf\xe9 \xf0\x9f\x98 end")
    assert [document.text for document in documents(TextFiles(paths=["a.txt"]))] == ["caf\ufffd \ufffd end"]


def test_gzip_is_opened(folder: Path) -> None:
    write(folder / "a.txt.gz", gzip.compress("héllo\n".encode()))
    assert [document.text for document in documents(TextFiles(paths=["*.gz"]))] == ["héllo\n"]


TORN_BODY = gzip.compress(b"x", mtime=0)[:10] + b"\xff" * 20


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9], TORN_BODY])
def test_a_broken_gzip_file_is_named(folder: Path, content: bytes) -> None:
    write(folder / "broken.gz", content)
    with pytest.raises(ValueError, match=r"broken\.gz is not a whole gzip file"):
        documents(TextFiles(paths=["broken.gz"]))


@pytest.mark.parametrize("kind", [PythonStdlib, SitePackages, partial(TextFiles, paths=["a.txt"])])
def test_a_part_has_a_size(kind: Callable[..., Source], folder: Path) -> None:
    write(folder / "a.txt", b"x")
    assert kind(part_bytes=1)
    for size in (0, -5):
        with pytest.raises(ValueError, match=f"part_bytes={size} of a source must be at least 1"):
            kind(part_bytes=size)


def test_a_pattern_without_a_match_is_named(folder: Path) -> None:
    write(folder / "a.txt", b"x")
    for pattern in ("*.md", str(folder / "nowhere" / "*.txt"), "missing.txt"):
        with pytest.raises(ValueError, match="matches no file") as error:
            TextFiles(paths=["a.txt", pattern])
        assert pattern in str(error.value)


def test_a_name_with_brackets_is_a_name(folder: Path) -> None:
    for name in ("a[1].txt", "a1.txt"):
        write(folder / name, name.encode())
    assert [document.text for document in documents(TextFiles(paths=["a[1].txt"]))] == ["a[1].txt"]


def test_an_absolute_pattern_finds_files(folder: Path) -> None:
    write(folder / "deep" / "a.txt", b"x")
    source = TextFiles(paths=[str(folder / "**" / "*.txt")])
    assert source.parts() == [("a.txt",)]
    assert [document.text for document in documents(source)] == ["x"]


def test_documents_keep_their_names_where_their_folder_moves(folder: Path) -> None:
    for place in ("here", "there/deeper"):
        for name in ("a.txt", "one/b.txt", "one/c.txt"):
            write(folder / place / name, name.encode())
    here, there = (
        TextFiles(paths=["here/**/*.txt"]),
        TextFiles(paths=["there/deeper/a.txt", f"{folder}/there/deeper/one/*"]),
    )
    assert documents(here) == documents(there)
    assert {document.group for document in documents(here)} == {"a.txt", "one/b.txt", "one/c.txt"}


def test_a_source_of_ones_own_is_not_taken_for_one_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    ours = TextFiles(paths=[str(tmp_path / "*.txt")])
    theirs = type("TextFiles", (TextFiles,), {"__module__": "mylab.data"})(paths=[str(tmp_path / "*.txt")])
    assert described("files", ours)[:2] == ["files", "TextFiles"]
    assert described("files", theirs) == ["files", "mylab.data.TextFiles", vars(ours)]


def test_a_source_that_would_be_another_in_each_process_is_refused() -> None:
    source = PythonStdlib()
    source.pattern = object()  # type: ignore[attr-defined]  # of a class of one's own
    with pytest.raises(ValueError, match=r"data.sources.mine \(PythonStdlib\) keeps pattern as a object, .*keep text"):
        described("mine", source)
