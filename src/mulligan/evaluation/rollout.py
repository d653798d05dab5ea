"""Tokens drawn from a model for several rows at once, one column at a time, with a key-value cache.

Rows are neither padded nor sorted: all begin in column 0 and are read as far as the shortest goes; from there on a row
whose prompt is longer takes the next token of its own prompt where others take what was drawn. So each row's positions,
context and cache are those it has alone, and the batch costs a pass for every column by which prompts differ in length.

Shapes: R rows, T positions, D width, V vocabulary.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor

from mulligan.distributed import broadcast
from mulligan.evaluation.sampler import Sampler
from mulligan.model.transformer import Transformer, softcap


class Row:
    """One sequence in the making. ``is_done`` is set at ``end_id``, after ``max_new_tokens``, or by its reader."""

    def __init__(
        self,
        prompt: list[int],
        sampler: Sampler,
        *,
        max_new_tokens: int,
        end_id: int | None = None,
        allowed_V: Tensor | None = None,
        first_V: Tensor | None = None,
    ) -> None:
        """``allowed_V`` is true for the tokens that may be drawn, ``first_V`` for those that may be drawn first."""
        if not prompt:
            raise ValueError("the prompt must hold at least one token")
        self.context, self.sampler = list(prompt), sampler
        self.max_new_tokens, self.end_id = max_new_tokens, end_id
        self.new: list[int] = []  # drawn; an end mark is not among them
        self.log_probabilities: list[float] = []  # of the new ones, in nats, by the model before the sampler
        self.is_done = self.has_ended = False
        self.logits_V = torch.empty(0)  # what the newest was drawn from
        self._allowed_V, self._first_V = allowed_V, first_V
        self._generator = torch.Generator().manual_seed(sampler.seed)

    def draw(self, logits_V: Tensor) -> int:
        if not logits_V.isfinite().all():
            raise ValueError("the model gives logits that are not finite: its training has diverged")
        for mask_V in (self._allowed_V, None if self.new else self._first_V):
            if mask_V is not None:
                logits_V = logits_V.masked_fill(~mask_V, -torch.inf)
        self.logits_V = logits_V
        return int(torch.multinomial(self.sampler.probabilities(logits_V), 1, generator=self._generator))

    def take(self, token: int) -> None:
        if token == self.end_id:
            self.is_done = self.has_ended = True
            return
        self.context.append(token)
        self.new.append(token)
        self.log_probabilities.append(float(self.logits_V.log_softmax(0)[token]))
        self.is_done = len(self.new) == self.max_new_tokens


@torch.no_grad()
def rollout(model: Transformer, rows: Sequence[Row], *, autocast_dtype: torch.dtype | None = None) -> Iterator[Row]:
    """Yield a row each time it has a token more, or its end, until all are done. Past ``max_length`` the oldest half of
    a context is dropped and the rest read again.
    """
    device, limit = next(model.parameters()).device, model.config.max_length
    is_in_parts = any(isinstance(weight, DTensor) for weight in model.parameters())
    was_training = model.training
    model.eval()
    try:
        active, caches, num_read = list(rows), _empty_caches(model), 0
        for row in active:
            row.context = row.context[-limit:]
        while active:
            length = min(len(row.context) for row in active)
            unread_RT = torch.tensor([row.context[num_read:length] for row in active], device=device)
            with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                logits_RV = model(unread_RT, caches=caches, head=_LastLogits(model.config.logit_softcap))
            num_read = length
            ready = [number for number, row in enumerate(active) if len(row.context) == length]
            drawing, logits_RV = [active[number] for number in ready], logits_RV[ready].float().cpu()
            drawn = [row.draw(logits_V) for row, logits_V in zip(drawing, logits_RV, strict=True)]
            if is_in_parts:  # the passes of all ranks must go on together: rank zero's draw is everyone's
                drawn = broadcast(drawn)
            for row, token in zip(drawing, drawn, strict=True):
                row.take(token)
                yield row
            kept = [number for number, row in enumerate(active) if not row.is_done]
            if len(kept) < len(active):
                active = [active[number] for number in kept]
                for cache in caches:
                    cache[:] = [tensor[kept] for tensor in cache]
            if num_read == limit:  # of every row: none is longer
                caches, num_read = _empty_caches(model), 0
                for row in active:
                    row.context = row.context[-(limit // 2 + 1) :]
    finally:
        model.train(was_training)


class _LastLogits:
    """A head for the last position alone: logits of a whole prompt would be far larger than all else."""

    def __init__(self, cap: float | None) -> None:
        self.cap = cap

    def __call__(self, hidden_RTD: Tensor, weight_VD: Tensor) -> Tensor:
        logits_RV = F.linear(hidden_RTD[:, -1], weight_VD)
        return logits_RV if self.cap is None else softcap(logits_RV, self.cap)


def _empty_caches(model: Transformer) -> list[list[Tensor]]:
    return [[] for _ in model.blocks]
