"""Held-out loss over every token of the validation split, and the numbers taken from it once, at the end."""

import math
from typing import NamedTuple

import torch

from mulligan.data.shards import Shards
from mulligan.evaluation.suites import Score, Subject
from mulligan.evaluation.windows import score_texts
from mulligan.model.transformer import Transformer

BITS_PER_NAT = 1.0 / math.log(2.0)


def perplexity(cross_entropy: float) -> float:
    """exp of nats a token; infinite where that is no number or too large for one."""
    return math.exp(cross_entropy) if cross_entropy < 700.0 else math.inf


class HeldOut(NamedTuple):
    """Sums over the counted tokens; nats of the bare cross-entropy."""

    cross_entropy_sum: float
    num_tokens: int
    utf8_bytes: int

    @property
    def perplexity(self) -> float:
        return perplexity(self.cross_entropy_sum / self.num_tokens)

    @property
    def bits_per_token(self) -> float:
        return self.cross_entropy_sum / self.num_tokens * BITS_PER_NAT

    @property
    def bits_per_byte(self) -> float:
        return self.cross_entropy_sum / self.utf8_bytes * BITS_PER_NAT

    @property
    def scores(self) -> dict[str, Score]:
        numbers = {name: getattr(self, name) for name in ("perplexity", "bits_per_token", "bits_per_byte")}
        return {name: Score(value) for name, value in (numbers | {"tokens": self.num_tokens}).items()}


def held_out(
    model: Transformer,
    shards: Shards,
    *,
    batch_size: int,
    begin_id: int,
    document_mask: bool = False,
    stride: int | None = None,
    autocast_dtype: torch.dtype | None = None,
) -> HeldOut:
    """Score each token of ``shards`` once, as ``score_texts`` does. All bytes of the documents count: the one token of
    a shard that is never predicted is a begin mark, which has none.
    """
    if not shards.entries:
        raise ValueError(f"{shards.folder} has no held-out documents; raise data.validation_fraction")
    total, count = score_texts(
        model,
        shards.tokens,
        sequence_length=shards.sequence_length,
        stride=stride,
        batch_size=batch_size,
        begin_id=begin_id,
        document_mask=document_mask,
        autocast_dtype=autocast_dtype,
    )
    return HeldOut(total, count, shards.utf8_bytes)


class HeldOutSuite:
    """The validation split of the run's own data, or the first shards of it that hold ``max_bytes`` of text."""

    def __init__(self, *, stride: int | None = None, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes} must be at least 1, or null for all")
        self.stride, self.max_bytes = stride, max_bytes

    def __call__(self, subject: Subject) -> dict[str, Score]:
        return held_out(
            subject.model,
            subject.held_out(self.max_bytes),
            batch_size=subject.batch_size,
            begin_id=subject.tokenizer.begin_id,
            document_mask=subject.document_mask,
            stride=self.stride,
            autocast_dtype=subject.autocast_dtype,
        ).scores
