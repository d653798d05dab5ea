"""Prepared data is the same to the byte with any number of workers, and after a kill at any stage."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mulligan.data.documents import Document, TextFiles
from mulligan.data.join import SPLITS, VERIFIED, verify
from mulligan.data.prepare import DataRecipe
from mulligan.data.sequencer import Sequencer
from mulligan.data.shards import Shards
from mulligan.data.tokenizer import Tokenizer, TokenizerRecipe
from mulligan.files import read_json, sha256_file


def recipe(folder: str, workers: int = 1, **changes: object) -> DataRecipe:
    options: dict = {
        "name": "two",
        "folder": folder,
        "sources": {name: TextFiles(paths=[f"{name}/*"], part_bytes=2500) for name in ("web", "code")},
        "tokenizer": TokenizerRecipe(vocab_size=330, sample_bytes=4000),
        "weights": {"web": 3.0, "code": 1.0},
        "validation_fraction": 0.25,
        "workers": workers,
    }
    return DataRecipe(**options | changes)


def silent(what: str, done: int, total: int) -> None:
    pass


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != VERIFIED)
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
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


@pytest.fixture(autouse=True)
def in_corpus(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(corpus)


@pytest.fixture(scope="module")
def prepared(corpus: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(corpus)
        return recipe(str(corpus / "reference")).prepare(silent)


def test_workers_do_not_show(prepared: Path, tmp_path: Path) -> None:
    folder = recipe(str(tmp_path), workers=2).prepare(silent)
    assert folder.name == prepared.name
    assert hashes(folder) == hashes(prepared)


class Halt(Exception):
    """Stands for whatever ends the process after two parts."""


def halted(folder: Path) -> DataRecipe:
    def stop(what: str, done: int, total: int) -> None:
        if (what, done) == ("tokenizing", 2):
            raise Halt

    started = recipe(str(folder))
    with pytest.raises(Halt):
        started.prepare(stop)
    return started


@pytest.mark.parametrize("sources_changed", [False, True])
def test_finished_parts_stay_unless_the_sources_are_cut_anew(
    prepared: Path, tmp_path: Path, sources_changed: bool
) -> None:
    started = halted(tmp_path)
    (started.folder / "parts" / ".000000.npz.7.tmp").write_bytes(b"torn")
    if sources_changed:
        (started.folder / "parts" / "cut.json").write_text("{}")
    reports: list[tuple[str, int, int]] = []
    started.prepare(lambda *report: reports.append(report))
    assert (("tokenizer", 0, 1) in reports) is sources_changed
    assert min(done for what, done, _ in reports if what == "tokenizing") == (0 if sources_changed else 2)
    assert hashes(started.folder) == hashes(prepared)


def test_of_two_processes_one_does_the_work(prepared: Path, tmp_path: Path) -> None:
    programs = [subprocess.Popen([sys.executable, __file__, str(tmp_path), "never 0"]) for _ in range(2)]
    assert [program.wait(timeout=60) for program in programs] == [0, 0]
    assert hashes(recipe(str(tmp_path)).folder) == hashes(prepared)


@pytest.mark.parametrize("stage", ["tokenizer 1", "tokenizing 3", "joining 0", "joining 1"])
def test_killed_and_started_again_it_gives_the_same_bytes(prepared: Path, tmp_path: Path, stage: str) -> None:
    killed = subprocess.run([sys.executable, __file__, str(tmp_path), stage], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    resumed = recipe(str(tmp_path))
    assert (resumed.folder / "manifest.json").exists() is (stage == "joining 1")
    resumed.prepare(silent)
    assert hashes(resumed.folder) == hashes(prepared)


def test_finished_data_is_left_alone(prepared: Path) -> None:
    reports: list[str] = []
    assert recipe(str(prepared.parent)).prepare(lambda *report: reports.append(report[0])) == prepared
    assert set(reports) == {"verifying"}


def test_a_damaged_shard_is_named_unless_told_not_to_look(prepared: Path, tmp_path: Path) -> None:
    damaged = recipe(str(tmp_path))
    shutil.copytree(prepared, damaged.folder)
    path = damaged.folder / "train_000000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train_000000\.npy differs from its manifest"):
        damaged.prepare(silent)
    recipe(str(tmp_path), verify=False).prepare(silent)


def test_a_torn_manifest_is_named(prepared: Path, tmp_path: Path) -> None:
    torn = recipe(str(tmp_path))
    shutil.copytree(prepared, torn.folder)
    (torn.folder / "manifest.json").write_text('{"shards": [')
    with pytest.raises(ValueError, match=r"manifest\.json is not whole JSON"):
        torn.prepare(silent)


def test_what_is_dropped_is_counted(prepared: Path) -> None:
    manifest = read_json(prepared / "manifest.json")
    assert manifest["dropped"] == {"missing": 0, "empty": 1, "repetitive": 1, "duplicate": 1}
    assert manifest["documents_with_replacement_characters"] == 1
    verify(prepared)


def test_documents_without_a_text_are_counted_as_missing_and_no_tokenizer_is_trained_on_them(
    tmp_path: Path, memory_source: Any, texts: list[str]
) -> None:
    documents = [Document(str(number), str(number), text) for number, text in enumerate([None, *texts, None])]
    own = recipe(str(tmp_path), sources={"web": memory_source(documents)}, weights=None)
    assert read_json(own.prepare(silent) / "manifest.json")["dropped"]["missing"] == 2


def test_every_text_comes_back_and_its_bytes_are_counted(prepared: Path, texts: list[str]) -> None:
    tokenizer = Tokenizer.load(prepared / "tokenizer.model")
    found = []
    for split in SPLITS:
        shards = Shards(prepared, split, 16)
        kept = shards.texts(tokenizer)
        assert kept
        assert shards.utf8_bytes == sum(map(len, kept))
        found += kept
    assert sorted(found) == sorted(text.encode() for text in (*texts, "se\ufffdor"))


def test_sources_keep_their_order_and_get_their_shares(prepared: Path) -> None:
    sizes = Shards(prepared, "train", 16).windows_by_source()
    assert list(sizes) == ["web", "code"]
    sequencer = Sequencer(source_sizes=list(sizes.values()), weights=[3.0, 1.0], seed=0)
    windows = sequencer.windows(sequencer.sample_indices(0, 1024))
    assert int((windows < sizes["web"]).sum()) == 768


def test_other_text_under_the_same_names_is_prepared_apart(tmp_path: Path, tokenizer: Tokenizer) -> None:
    text, model = tmp_path / "a.txt", tmp_path / "own.model"
    text.write_text("some text\n")
    model.write_bytes(tokenizer.model)

    def folder() -> Path:
        made = TokenizerRecipe(vocab_size=400, model_file=str(model))
        return recipe(str(tmp_path), sources={"web": TextFiles(paths=[str(text)])}, weights=None, tokenizer=made).folder

    first = folder()
    assert folder() == first
    text.write_text("other text\n")
    second = folder()
    model.write_bytes(tokenizer.model[:-1])
    assert len({first, second, folder()}) == 3


def test_the_tokenizer_never_sees_what_is_held_out(prepared: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(prepared / "tokenizer.model")
    held_out = {text.decode() for text in Shards(prepared, "validation", 16).texts(tokenizer)}
    own = recipe(str(tmp_path))
    sample = list(own._sample([(name, part) for name, source in own.sources.items() for part in source.parts()]))
    assert sample
    assert not held_out & set(sample)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_fraction": 0.0}, r"data\.validation_fraction=0\.0 must be between 0 and 1"),
        ({"validation_fraction": 1.0}, r"data\.validation_fraction=1\.0 must be between 0 and 1"),
        ({"sources": {}}, r"data\.sources is empty"),
        ({"weights": {"web": 1.0}}, r"data\.weights={'web': 1\.0} gives code no share"),
        ({"weights": {"wbe": 2.0}}, r"data\.weights\.wbe=2\.0 names no source; data\.sources has web, code"),
        ({"workers": -1}, r"data\.workers=-1 must be at least 1"),
        ({"loader_workers": -1}, r"data\.loader_workers=-1 must be 0"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe("data", **changes)


def test_the_folder_is_named_after_all_that_decides_the_bytes() -> None:
    changes: list[dict[str, object]] = [
        {"validation_fraction": 0.3},
        {"split_seed": 2},
        {"tokenizer": TokenizerRecipe(vocab_size=331, sample_bytes=4000)},
        {"sources": {name: TextFiles(paths=[f"{name}/*"], part_bytes=99) for name in ("web", "code")}},
    ]
    assert len({recipe("data", **change).folder for change in [{}, *changes]}) == 5
    assert recipe("data", workers=3, loader_workers=2, document_mask=True).folder == recipe("data").folder


def killed_at(stage: str, folder: str) -> None:
    def report(what: str, done: int, total: int) -> None:
        if f"{what} {done}" == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    recipe(folder).prepare(report)


if __name__ == "__main__":
    killed_at(sys.argv[2], sys.argv[1])
