"""Cross-entropy of long texts, by windows that overlap: each token is predicted once, with enough before it.

Shapes: B windows, T positions, D width, V vocabulary.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from mulligan.model.transformer import Transformer
from mulligan.objective.next_token import IGNORE_INDEX, NextToken, targets_within_documents

Tokens = NDArray[Any]


@torch.no_grad()
def score_texts(
    model: Transformer,
    texts: Iterable[Tokens],
    *,
    sequence_length: int,
    stride: int | None,
    batch_size: int,
    begin_id: int,
    document_mask: bool = False,
    autocast_dtype: torch.dtype | None = None,
) -> tuple[float, int]:
    """Summed cross-entropy in nats, and the number of tokens counted: all of each text but its first.

    A token is given ``sequence_length - stride`` tokens before it or more. ``stride`` is how far a window moves, half
    its length by default: shorter gives more context for more work.
    """
    stride = max(1, sequence_length // 2) if stride is None else stride
    if not 1 <= stride <= sequence_length:
        raise ValueError(f"stride={stride} must be in [1, sequence_length={sequence_length}]")
    objective, device = NextToken(z_loss=0.0), next(model.parameters()).device
    total, count = torch.zeros((), dtype=torch.float64), 0
    was_training = model.training
    model.eval()
    for batch in _batches(texts, sequence_length, stride, batch_size):
        inputs_BT, targets_BT = (part.to(device) for part in batch)
        document_BT = None
        if document_mask:
            targets_BT, document_BT = targets_within_documents(inputs_BT, targets_BT, begin_id)

        def head(hidden_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor = targets_BT) -> object:
            return objective(hidden_BTD, weight_VD, targets_BT, softcap=model.config.logit_softcap, regularized=False)

        with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
            terms = model(inputs_BT, document_BT=document_BT, head=head)
        total += terms.cross_entropy_sum.double().cpu()
        count += int(terms.num_counted)
    model.train(was_training)
    return float(total), count


def _batches(texts: Iterable[Tokens], length: int, stride: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows as inputs and targets, (B, T) each. A target that an earlier window has scored is -100, as is padding."""
    places = (
        (tokens, start) for tokens in texts for start in range(0, max(1, len(tokens) - 1 - (length - stride)), stride)
    )
    while batch := list(islice(places, batch_size)):
        windows = [torch.from_numpy(tokens[start : start + length + 1].astype("int64")) for tokens, start in batch]
        inputs_BT = torch.zeros((len(batch), max(1, max(map(len, windows)) - 1)), dtype=torch.int64)
        targets_BT = torch.full_like(inputs_BT, IGNORE_INDEX)
        for row, (window, (_, start)) in enumerate(zip(windows, batch, strict=True)):
            seen = 0 if start == 0 else length - stride
            inputs_BT[row, : len(window) - 1] = window[:-1]
            targets_BT[row, seen : len(window) - 1] = window[1 + seen :]
        yield inputs_BT, targets_BT
