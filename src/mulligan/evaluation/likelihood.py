"""How likely a model holds continuations of contexts to be.

Shapes: B rows, T positions, D width, V vocabulary, N positions that are scored.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mulligan.evaluation.vocabulary import check_tokens
from mulligan.model.transformer import Transformer, softcap


class Pair(NamedTuple):
    """Tokens: a context, of at least one, and what follows it."""

    context: list[int]
    continuation: list[int]


class Likelihood(NamedTuple):
    """``losses`` are nats of each token of the continuation; greedy is one that holds the likeliest tokens only."""

    losses: list[float]
    is_greedy: bool

    @property
    def log_probability(self) -> float:
        return -sum(self.losses)


class NotScorable(ValueError):
    """A continuation of no tokens, behind none, or of more than the model reads: that of ``pairs[number]``."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


@torch.no_grad()
def likelihoods(
    model: Transformer,
    pairs: Sequence[Pair],
    *,
    batch_size: int,
    banned: Sequence[int] = (),
    autocast_dtype: torch.dtype | None = None,
) -> list[Likelihood]:
    """In the order of ``pairs``, those of like length computed together. A context that is too long for the model loses
    its beginning. Tokens that are ``banned`` have no share of the probability. Raises NotScorable before it computes.
    """
    device, limit = next(model.parameters()).device, model.config.max_length
    for number, pair in enumerate(pairs):
        if not pair.context:
            raise NotScorable("a continuation needs a context, if only of the token that texts begin with", number)
        if not 0 < len(pair.continuation) <= limit:
            message = f"a continuation of {len(pair.continuation)} tokens must have 1 to model.max_length={limit}"
            raise NotScorable(message, number)
    found: dict[int, Likelihood] = {}
    was_training = model.training
    model.eval()
    for numbers in _batches(pairs, batch_size):
        rows = [(pairs[number].context + pairs[number].continuation)[-(limit + 1) :] for number in numbers]
        lengths = [len(pairs[number].continuation) for number in numbers]
        for row in rows:
            check_tokens(row, model.config.vocab_size)
        inputs_BT = torch.zeros((len(rows), max(map(len, rows)) - 1), dtype=torch.int64)
        scored_BT = torch.zeros_like(inputs_BT, dtype=torch.bool)
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            inputs_BT[number, : len(row) - 1] = torch.tensor(row[:-1])  # what is right of it no position sees
            scored_BT[number, len(row) - 1 - length : len(row) - 1] = True
        head = _Logits(scored_BT.to(device), model.config.logit_softcap)
        with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
            logits_NV = model(inputs_BT.to(device), head=head).float()
        logits_NV[:, list(banned)] = -torch.inf
        targets_N = torch.tensor([token for number in numbers for token in pairs[number].continuation], device=device)
        losses_N = F.cross_entropy(logits_NV, targets_N, reduction="none").cpu()
        greedy_N = (logits_NV.argmax(1) == targets_N).cpu()
        parts = zip(numbers, losses_N.split(lengths), greedy_N.split(lengths), strict=True)
        found |= {number: Likelihood(losses.tolist(), bool(greedy.all())) for number, losses, greedy in parts}
    model.train(was_training)
    return [found[number] for number in range(len(pairs))]


def _batches(pairs: Sequence[Pair], batch_size: int) -> Iterator[list[int]]:
    ordered = sorted(range(len(pairs)), key=lambda number: -len(pairs[number].context + pairs[number].continuation))
    for first in range(0, len(ordered), batch_size):
        yield ordered[first : first + batch_size]


class _Logits:
    """A head for the scored positions alone."""

    def __init__(self, scored_BT: Tensor, cap: float | None) -> None:
        self.scored_BT, self.cap = scored_BT, cap

    def __call__(self, hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
        logits_NV = F.linear(hidden_BTD[self.scored_BT], weight_VD)
        return logits_NV if self.cap is None else softcap(logits_NV, self.cap)
