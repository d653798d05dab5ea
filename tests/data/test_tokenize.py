"""One part becomes one file: documents framed, filtered, counted and put on a side of the split."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mulligan.data.documents import Document
from mulligan.data.tokenize import PartJob, in_validation, tokenize_part
from mulligan.data.tokens import Tokenizer

Tokenize = Callable[[list[str | None]], dict[str, np.ndarray]]


@pytest.fixture
def tokenize(tokenizer: Tokenizer, memory_source: Any, tmp_path: Path) -> Tokenize:
    def run(texts: list[str | None]) -> dict[str, np.ndarray]:
        source = memory_source([Document(str(n), f"group {n}", text) for n, text in enumerate(texts)])
        path = tmp_path / "part.npz"
        tokenize_part(PartJob(source, "web", source.parts()[0], 0, tokenizer.model, 0.5, 1, path))
        with np.load(path, allow_pickle=False) as part:
            return dict(part)

    return run


def test_documents_are_framed_and_measured(tokenize: Tokenize, tokenizer: Tokenizer) -> None:
    texts = ["one\n", "zwölf \u2581 😀", " three"]
    part = tokenize(texts)
    framed = [[tokenizer.begin_id, *tokenizer.encode(text), tokenizer.end_id] for text in texts]
    assert part["tokens"].tolist() == list(chain(*framed))
    assert part["rows"][:, 0].tolist() == [len(ids) for ids in framed]
    assert part["rows"][:, 1].tolist() == [len(text.encode()) for text in texts]
    assert part["rows"][:, 2].tolist() == [in_validation(f"group {n}", fraction=0.5, seed=1) for n in range(3)]


def test_missing_empty_and_repetitive_documents_are_dropped_and_counted(tokenize: Tokenize) -> None:
    part = tokenize(["", "kept", None, " \n\t\r ", "0" * 32, "0" * 31, "\t1" * 40])
    assert part["counts"].tolist() == [1, 2, 2, 0]
    assert part["rows"][:, 1].tolist() == [4, 31]


def test_documents_with_replacement_characters_are_counted(tokenize: Tokenize) -> None:
    assert tokenize(["clean", "bad \ufffd", "worse \ufffd\ufffd"])["counts"].tolist() == [0, 0, 0, 2]


def test_lone_surrogates_which_utf8_cannot_hold_read_as_replacement_characters(
    tokenize: Tokenize, tokenizer: Tokenizer
) -> None:
    part = tokenize(["a\ud800b"])
    assert tokenizer.decode(part["tokens"].tolist()) == "a\ufffdb"
    assert part["rows"][0, 1] == 5
    assert part["counts"][3] == 1


def test_equal_texts_have_equal_digests_and_no_others(tokenize: Tokenize) -> None:
    digests = tokenize(["same", "other", "same", "same "])["digests"].tolist()
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_a_part_without_documents_is_a_file_too(tokenize: Tokenize) -> None:
    part = tokenize(["", " "])
    assert (len(part["tokens"]), part["rows"].shape, len(part["digests"])) == (0, (0, 3), 0)


def test_the_split_holds_out_its_share_of_groups() -> None:
    groups = [f"group {n}" for n in range(4000)]
    first, second = ([in_validation(group, fraction=0.1, seed=seed) for group in groups] for seed in (1, 2))
    assert 320 < sum(first) < 480  # 400 expected, deviation 19
    assert first != second
    larger = [in_validation(group, fraction=0.2, seed=1) for group in groups]
    assert all(wide for narrow, wide in zip(first, larger, strict=True) if narrow)
