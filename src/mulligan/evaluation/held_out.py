"""Held-out loss over every token of the validation split, and the numbers taken from it once, at the end.

Shapes: B windows, T positions.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from mulligan.data.shards import Shards
from mulligan.model.transformer import Transformer
from mulligan.objective.next_token import IGNORE_INDEX, NextToken, targets_within_documents

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


@torch.no_grad()
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
    """Score each token of ``shards`` once, given ``sequence_length - stride`` tokens before it or more.

    ``stride`` is how far a window moves, half its length by default: shorter gives more context for more work. All
    bytes of the documents count: the one token of a shard that is never predicted is a begin mark, which has none.
    """
    length = shards.sequence_length
    stride = max(1, length // 2) if stride is None else stride
    if not 1 <= stride <= length:
        raise ValueError(f"stride={stride} must be in [1, sequence_length={length}]")
    if not shards.entries:
        raise ValueError(f"{shards.folder} has no held-out documents; raise data.validation_fraction")
    objective, device = NextToken(z_loss=0.0), next(model.parameters()).device
    total, count = torch.zeros((), dtype=torch.float64), 0
    was_training = model.training
    model.eval()
    for tokens in shards.tokens:
        for batch in _batches(tokens, length, stride, batch_size):
            inputs_BT, targets_BT = (part.to(device) for part in batch)
            document_BT = None
            if document_mask:
                whole = torch.cat((inputs_BT, targets_BT[:, -1:]), dim=1)
                masked_BT, document_BT = targets_within_documents(whole, begin_id)
                targets_BT = targets_BT.masked_fill(masked_BT == IGNORE_INDEX, IGNORE_INDEX)

            def head(hidden_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor = targets_BT) -> object:
                return objective(
                    hidden_BTD, weight_VD, targets_BT, softcap=model.config.logit_softcap, regularized=False
                )

            with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                terms = model(inputs_BT, document_BT=document_BT, head=head)
            total += terms.cross_entropy_sum.double().cpu()
            count += int(terms.num_counted)
    model.train(was_training)
    return HeldOut(float(total), count, shards.utf8_bytes)


def _batches(tokens: NDArray[Any], length: int, stride: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows as inputs and targets, (B, T) each. A target that an earlier window has scored is -100, as is padding."""
    starts = range(0, max(1, len(tokens) - 1 - (length - stride)), stride)
    for first in range(0, len(starts), batch_size):
        batch = starts[first : first + batch_size]
        inputs_BT = torch.zeros((len(batch), length), dtype=torch.int64)
        targets_BT = torch.full_like(inputs_BT, IGNORE_INDEX)
        for row, start in enumerate(batch):
            window = torch.from_numpy(tokens[start : start + length + 1].astype("int64"))
            seen = 0 if start == 0 else length - stride
            inputs_BT[row, : len(window) - 1] = window[:-1]
            targets_BT[row, seen : len(window) - 1] = window[1 + seen :]
        yield inputs_BT, targets_BT
