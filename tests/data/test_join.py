"""Parts become shards: exact duplicates go, groups keep to one side, and every byte is hashed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mulligan.data.documents import Document
from mulligan.data.join import join_parts, verify
from mulligan.data.shards import Shards
from mulligan.data.tokenize import PartJob, in_validation, tokenize_part
from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.data.tokens import Tokenizer
from mulligan.files import sha256_file, write_json

Join = Callable[..., dict[str, Any]]


@pytest.fixture
def join(tokenizer: Tokenizer, memory_source: Any, tmp_path: Path) -> Join:
    """Tokenize documents, ten to a part, join the parts in ``tmp_path`` and return the manifest."""

    def run(documents: list[Document], vocab_size: int = 400) -> dict[str, Any]:
        source = memory_source(documents, per_part=10)
        jobs = [
            PartJob(source, "web", part, n, tokenizer.model, 0.3, 1, tmp_path / "parts" / f"{n}.npz")
            for n, part in enumerate(source.parts())
        ]
        for job in jobs:
            tokenize_part(job)
        manifest = join_parts(tmp_path, jobs, vocab_size=vocab_size)
        (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
        write_json(
            tmp_path / "manifest.json", manifest | {"tokenizer_sha256": sha256_file(tmp_path / "tokenizer.model")}
        )
        return manifest

    return run


@pytest.fixture
def documents(texts: list[str]) -> list[Document]:
    """Forty documents in eight groups, each group spread over all parts."""
    return [Document(str(n), f"group {n % 8}", text) for n, text in enumerate(texts)]


def texts_of(folder: Path, split: str, tokenizer: Tokenizer) -> list[str]:
    return [text.decode() for text in Shards(folder, split, 8).texts(tokenizer)]


def test_no_group_is_on_both_sides(join: Join, documents: list[Document], tokenizer: Tokenizer, tmp_path: Path) -> None:
    join(documents)
    for split, held_out in (("train", False), ("validation", True)):
        expected = [
            document.text for document in documents if in_validation(document.group, fraction=0.3, seed=1) is held_out
        ]
        assert texts_of(tmp_path, split, tokenizer) == expected
        assert expected


def test_a_document_seen_before_is_dropped_in_its_part_and_in_others(
    join: Join, documents: list[Document], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    again = [documents[0], *documents, documents[3], documents[3]._replace(name="copy", group="new")]
    assert join(again)["dropped"] == {"missing": 0, "empty": 0, "repetitive": 0, "duplicate": 3}
    kept = texts_of(tmp_path, "train", tokenizer) + texts_of(tmp_path, "validation", tokenizer)
    assert sorted(kept) == sorted(document.text for document in documents)


def test_counts_and_hashes_are_those_of_the_files(
    join: Join, documents: list[Document], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for shard in join(documents)["shards"]:
        tokens = np.load(tmp_path / shard["file"])
        assert shard["tokens"] == len(tokens)
        assert shard["documents"] == int((tokens == tokenizer.begin_id).sum())
        assert shard["utf8_bytes"] == len(tokenizer.decode_bytes(tokens.tolist()))
        assert shard["sha256"] == sha256_file(tmp_path / shard["file"])
        offsets = np.load(tmp_path / shard["file"].replace(".npy", ".documents.npy"))
        assert offsets.tolist() == np.flatnonzero(tokens == tokenizer.begin_id).tolist()


def test_a_large_vocabulary_gets_wider_tokens_of_the_same_value(
    join: Join, documents: list[Document], tmp_path: Path
) -> None:
    arrays = []
    for vocab_size, dtype in ((2**16, np.uint16), (2**16 + 1, np.uint32)):
        shards = join(documents, vocab_size)["shards"]
        arrays.append(np.concatenate([np.load(tmp_path / shard["file"]) for shard in shards]))
        assert arrays[-1].dtype == dtype
    assert np.array_equal(*arrays)


def test_the_fingerprint_follows_the_tokens(join: Join, documents: list[Document]) -> None:
    first, again, fewer = (join(part)["fingerprint"] for part in (documents, documents, documents[1:]))
    assert first == again != fewer


@pytest.mark.parametrize("damage", ["flipped", "torn", "absent", "empty"])
def test_a_part_that_is_not_whole_is_named(
    tokenizer: Tokenizer, memory_source: Any, documents: list[Document], tmp_path: Path, damage: str
) -> None:
    job = PartJob(memory_source(documents), "web", ("0",), 0, tokenizer.model, 0.3, 1, tmp_path / "0.npz")
    tokenize_part(job)
    content = bytearray(job.path.read_bytes())
    content[len(content) // 2] ^= 1
    job.path.write_bytes({"flipped": content, "torn": content[:-30]}.get(damage, b""))
    if damage == "absent":
        job.path.unlink()
    with pytest.raises(ValueError, match=r"0\.npz is not a whole part \(.*\); remove it to have it made again"):
        join_parts(tmp_path, [job], vocab_size=400)


def test_a_part_of_another_tokenizer_is_refused(
    tokenizer: Tokenizer, memory_source: Any, documents: list[Document], texts: list[str], tmp_path: Path
) -> None:
    job = PartJob(memory_source(documents), "web", ("0",), 0, tokenizer.model, 0.3, 1, tmp_path / "0.npz")
    tokenize_part(job)
    other = TokenizerRecipe(vocab_size=400).make(texts[1:]).model
    with pytest.raises(ValueError, match=r"0\.npz was made with another tokenizer; remove it"):
        join_parts(tmp_path, [job._replace(model=other)], vocab_size=400)


@pytest.mark.parametrize("suffix", [".npy", ".documents.npy"])
def test_verify_finds_a_flipped_bit(join: Join, documents: list[Document], tmp_path: Path, suffix: str) -> None:
    stem = join(documents)["shards"][-1]["file"].removesuffix(".npy")
    verify(tmp_path)
    path = tmp_path / (stem + suffix)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{stem}{suffix} differs from its manifest"):
        verify(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=f"{stem}{suffix} differs from its manifest"):
        verify(tmp_path)


def test_what_was_found_good_is_not_read_again_until_it_changes(
    join: Join, documents: list[Document], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(documents)
    read: list[Path] = []
    monkeypatch.setattr("mulligan.data.join.sha256_file", lambda path: [read.append(path), sha256_file(path)][1])
    verify(tmp_path, ["validation"])
    some = len(read)
    verify(tmp_path)
    every = len(read)
    assert 0 < some < every
    verify(tmp_path)
    assert len(read) == every
    (tmp_path / "tokenizer.model").touch()
    verify(tmp_path)
    assert len(read) == every + 1
