"""Prepared data is the same to the byte with any number of workers and machines, and after a kill at any stage."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mulligan.data.documents import Document, TextFiles
from mulligan.data.join import SPLITS, verify
from mulligan.data.json_tokenizer import JsonTokenizer
from mulligan.data.prepare import DataRecipe
from mulligan.data.sequencer import Sequencer
from mulligan.data.shards import Shards
from mulligan.data.share import Share
from mulligan.data.tokenizer import TokenizerRecipe, tokenizer_in
from mulligan.data.tokens import Tokenizer
from mulligan.files import read_json, sha256_file
from tests.data import prepare_and_stop
from tests.data.prepare_and_stop import hashes, recipe, silent
from tests.data.test_json_tokenizer import byte_level

pytestmark = pytest.mark.usefixtures("in_two_sources")
PROGRAM = [sys.executable, prepare_and_stop.__file__]


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


def test_finished_parts_stay(prepared: Path, tmp_path: Path) -> None:
    started = halted(tmp_path)
    (started.folder / "parts" / ".000000.npz.7.tmp").write_bytes(b"torn")
    reports: list[tuple[str, int, int]] = []
    said: list[str] = []
    started.prepare(lambda *report: reports.append(report), said.append)
    assert "tokenizer" not in {what for what, *_ in reports}
    parts = reports[0][2]
    assert reports[0] == ("tokenizing", 2, parts)
    assert said == [f"2 of {parts} parts are tokenized already, {parts - 2} are left to do here"]
    assert hashes(started.folder) == hashes(prepared)


@pytest.mark.parametrize(
    ("files", "difference"),
    [
        ({"web": ["web/*"], "code": ["code/0*"]}, "it had 12.txt in data.sources.code"),
        ({"web": ["web/*", "code/*"], "code": ["code/*"]}, "it had 01.txt in data.sources.web"),
        ({"code": ["code/*"], "web": ["web/*"]}, "the same files had other sizes, or another order"),
        ({"web": ["web/*"], "code": ["code/*"], "more": ["code/*"]}, "it had no 00.txt in data.sources.more"),
    ],
)
def test_parts_of_other_sources_are_refused_and_left_alone(
    tmp_path: Path, files: dict[str, list[str]], difference: str
) -> None:
    started = halted(tmp_path)
    before = hashes(started.folder)
    started.sources = {name: TextFiles(paths=paths, part_bytes=2500) for name, paths in files.items()}
    for call in (started.prepare, partial(started.prepare_share, Share(part=0, parts=2))):
        with pytest.raises(ValueError, match=f"{started.folder} was begun with other sources: {difference}"):
            call(silent)
    assert hashes(started.folder) == before


def test_a_tokenizer_without_its_parts_is_not_kept(prepared: Path, tmp_path: Path) -> None:
    started = halted(tmp_path)
    shutil.rmtree(started.folder / "parts")
    (started.folder / "tokenizer.model").write_bytes(b"of other sources")
    started.prepare(silent)
    assert hashes(started.folder) == hashes(prepared)


def test_of_two_processes_one_does_the_work(prepared: Path, tmp_path: Path) -> None:
    programs = [subprocess.Popen([*PROGRAM, str(tmp_path), "never 0"]) for _ in range(2)]
    assert [program.wait(timeout=60) for program in programs] == [0, 0]
    assert hashes(recipe(str(tmp_path)).folder) == hashes(prepared)


@pytest.mark.parametrize("stage", ["tokenizer 1", "tokenizing 3", "joining 0", "joining 1"])
def test_killed_and_started_again_it_gives_the_same_bytes(prepared: Path, tmp_path: Path, stage: str) -> None:
    killed = subprocess.run([*PROGRAM, str(tmp_path), stage], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    resumed = recipe(str(tmp_path))
    assert (resumed.folder / "manifest.json").exists() is (stage == "joining 1")
    resumed.prepare(silent)
    assert hashes(resumed.folder) == hashes(prepared)


def test_finished_data_is_left_alone(prepared: Path) -> None:
    reports: list[str] = []
    assert recipe(str(prepared.parent)).prepare(lambda *report: reports.append(report[0])) == prepared
    assert set(reports) == {"verifying"}


def test_finished_data_may_be_on_storage_that_is_only_read(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mulligan.data.prepare.exclusive", refuse)
    monkeypatch.setattr("mulligan.data.join.write_json", refuse)
    assert recipe(str(prepared.parent)).prepare(silent) == prepared


def test_the_name_of_a_file_need_not_be_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("some words\n" * 20)
    (tmp_path / "more.txt").write_text("more words\n" * 20)
    own = recipe(str(tmp_path), sources={"web": TextFiles(paths=[f"{tmp_path}/*.txt"])}, weights=None)
    own.validation_fraction, own.split_seed = 0.5, 2
    own.tokenizer = TokenizerRecipe(vocab_size=270)
    manifest = read_json(own.prepare(silent) / "manifest.json")
    assert sum(shard["documents"] for shard in manifest["shards"]) == 2
    assert "caf\udce9.txt" in manifest["request"]["sources"][0][2]["files"]


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


@pytest.mark.parametrize(
    ("fraction", "message"), [(0.01, "all 1 document.s. are trained on"), (0.99, "none outside the held-out part")]
)
def test_one_document_is_not_on_both_sides_of_the_split(tmp_path: Path, fraction: float, message: str) -> None:
    (tmp_path / "one.txt").write_text("".join(f"word {number}\n" for number in range(500)))
    sources = {"web": TextFiles(paths=[str(tmp_path / "one.txt")])}
    made = recipe(
        str(tmp_path),
        sources=sources,
        weights=None,
        validation_fraction=fraction,
        tokenizer=TokenizerRecipe(vocab_size=280),
    )
    with pytest.raises(ValueError, match=message):
        made.prepare(silent)


@pytest.mark.parametrize(
    ("vocab_size", "message"), [(900, "it has pieces for 301 at most"), (262, "its characters take 2.., or fewer with")]
)
def test_a_vocabulary_that_does_not_fit_the_text_is_told_the_size_that_does(vocab_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=rf"tokenizer\.vocab_size={vocab_size} cannot be trained .*: {message}"):
        TokenizerRecipe(vocab_size=vocab_size).make(["abcdefghij klm\n"])


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
    tokenizer = tokenizer_in(prepared)
    found = []
    for split in SPLITS:
        shards = Shards(prepared, split, 16)
        kept = shards.texts(tokenizer)
        assert kept
        assert shards.utf8_bytes == sum(map(len, kept))
        found += kept
    assert sorted(found) == sorted(text.encode() for text in (*texts, "se\ufffdor"))


@pytest.mark.parametrize("marks", [("<s>", "</s>"), ("</s>",)])
def test_a_tokenizer_json_prepares_data(
    marks: tuple[str, ...], tmp_path: Path, memory_source: Any, texts: list[str]
) -> None:
    lacking = chr(256 + 4)  # how GPT-2's alphabet writes the byte 4
    model = tmp_path / "own.json"
    model.write_bytes(byte_level(lacking=lacking, marks=marks))
    made = TokenizerRecipe(vocab_size=JsonTokenizer(model.read_bytes()).vocab_size, model_file=str(model))
    documents = [Document(str(number), str(number), text) for number, text in enumerate([*texts, "a\x04b <s>"])]
    sources = {"web": memory_source(documents, per_part=9)}
    folder = recipe(str(tmp_path), sources=sources, weights=None, tokenizer=made).prepare(silent)
    assert (folder / "tokenizer.json").read_bytes() == model.read_bytes()
    manifest = read_json(folder / "manifest.json")
    assert manifest["tokenizer_sha256"] == sha256_file(model)
    assert set(manifest["versions"]) == {"python", "numpy", "tokenizers", "datasets"}
    assert manifest["documents_with_replacement_characters"] == 1
    tokenizer, found = tokenizer_in(folder), []
    for split in SPLITS:
        shards = Shards(folder, split, 16)
        found += shards.texts(tokenizer)
        assert shards.utf8_bytes == sum(map(len, shards.texts(tokenizer)))
        for entry, tokens in zip(shards.entries, shards.tokens, strict=True):
            assert entry["documents"] == int((tokens == tokenizer.begin_id).sum())
            assert (tokens[-1] == tokenizer.end_id) == (len(marks) == 2)
    assert sorted(found) == sorted(text.encode() for text in (*texts, "a\ufffdb <s>"))
    (folder / "tokenizer.json").write_bytes(byte_level())
    with pytest.raises(ValueError, match=r"tokenizer\.json differs from its manifest"):
        verify(folder)


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
    tokenizer = tokenizer_in(prepared)
    held_out = {text.decode() for text in Shards(prepared, "validation", 16).texts(tokenizer)}
    own = recipe(str(tmp_path))
    sample = list(own.sample([(name, part) for name, source in own.sources.items() for part in source.parts()]))
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
        {"sources": {name: TextFiles(paths=[f"{name}/*"], part_bytes=2500) for name in ("code", "web")}},
    ]
    assert len({recipe("data", **change).folder for change in [{}, *changes]}) == 6
    assert recipe("data", workers=3, loader_workers=2, document_mask=True).folder == recipe("data").folder
