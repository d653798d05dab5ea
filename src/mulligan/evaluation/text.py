"""Perplexity and bits per byte of text files, for any model that has a tokenizer."""

from collections.abc import Iterable, Iterator

import numpy as np

from mulligan.data.documents import TextFiles
from mulligan.evaluation.held_out import HeldOut
from mulligan.evaluation.suites import Score, Subject
from mulligan.evaluation.vocabulary import check_tokens
from mulligan.evaluation.windows import Tokens, score_texts


def score_documents(subject: Subject, texts: Iterable[str], *, stride: int | None = None) -> HeldOut:
    """Each text as a document of its own: behind a begin mark, and without the end mark being counted."""
    num_bytes = 0

    def framed() -> Iterator[Tokens]:
        nonlocal num_bytes
        for text in texts:
            num_bytes += len(text.encode())
            tokens = np.concatenate(([subject.tokenizer.begin_id], subject.tokenizer.encode(text)))
            check_tokens(tokens, subject.model.config.vocab_size)
            yield tokens

    total, count = score_texts(
        subject.model,
        framed(),
        sequence_length=subject.sequence_length,
        stride=stride,
        batch_size=subject.batch_size,
        begin_id=subject.tokenizer.begin_id,
        autocast_dtype=subject.autocast_dtype,
    )
    return HeldOut(total, count, num_bytes)


class TextSuite:
    """Plain text files, a document each, also gzipped; ``paths`` are names or globs."""

    def __init__(self, *, paths: list[str] | str, stride: int | None = None) -> None:
        self.source, self.stride = TextFiles(paths=paths), stride

    def __call__(self, subject: Subject) -> dict[str, Score]:
        parts = self.source.parts()
        texts = (document.text or "" for part in parts for document in self.source.read(part))
        scores = score_documents(subject, (text for text in texts if text), stride=self.stride)
        if not scores.num_tokens:
            raise ValueError(f"{self.source.root} holds no text in {', '.join(self.source.files)}")
        return scores.scores
