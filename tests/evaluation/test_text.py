"""Text files against plain sums over their tokens."""

import math
from pathlib import Path

import pytest
import torch

from mulligan.evaluation.suites import Subject
from mulligan.evaluation.text import TextSuite
from tests.evaluation.conftest import make_model

TEXTS = {"a.txt": "the cat sat", "b.txt": "def foo(bar): é" * 9, "empty.txt": ""}


def test_each_file_is_a_document_and_every_byte_counts(subject: Subject, tmp_path: Path) -> None:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    scores = TextSuite(paths=[f"{tmp_path}/*.txt"], stride=1)(subject)
    wanted, count = 0.0, 0
    for text in TEXTS.values():
        ids = subject.tokenizer.encode(text).tolist()
        for place, token in enumerate(ids):
            context = [subject.tokenizer.begin_id, *ids[:place]][-64:]
            with torch.no_grad():
                logits_V = subject.model.eval()(torch.tensor([context]))[0, -1]
            wanted, count = wanted - float(logits_V.log_softmax(0)[token]), count + 1
    assert scores["tokens"].value == count
    assert scores["bits_per_byte"].value == pytest.approx(
        wanted / math.log(2) / sum(len(text.encode()) for text in TEXTS.values()), rel=1e-5
    )
    assert scores["perplexity"].value == pytest.approx(math.exp(wanted / count), rel=1e-5)


def test_files_without_text_are_named(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"holds no text in empty\.txt"):
        TextSuite(paths=[f"{tmp_path}/empty.txt"])(subject)


def test_a_text_that_the_model_has_too_few_rows_for_is_refused(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXTS["a.txt"])
    largest = int(subject.tokenizer.encode(TEXTS["a.txt"]).max())
    message = f"a text needs the token {largest}, which must be below the model's vocab_size={largest}"
    with pytest.raises(ValueError, match=message):
        TextSuite(paths=[f"{tmp_path}/a.txt"])(subject._replace(model=make_model(largest, max_length=64)))
