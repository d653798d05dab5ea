"""The samples of the batches around a spike, by how badly a model predicts them and how hard they pull at its weights.

Shapes: S samples, T positions, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mulligan.data.repetition import Repetition, worst_repetition
from mulligan.data.sequencer import Sequencer
from mulligan.data.shards import Place, Shards
from mulligan.model.transformer import Transformer
from mulligan.objective.next_token import IGNORE_INDEX, targets_within_documents


class Score(NamedTuple):
    """Of one sample, in nats of the bare cross-entropy. ``token_losses_T`` is NaN where no loss is counted."""

    loss: float
    gradient_norm: float
    token_losses_T: Tensor


class Offender(NamedTuple):
    """One sample of ``step``'s global batch. ``tokens`` are its T + 1 tokens; rank 1 is the greatest loss or norm."""

    sample: int
    step: int
    place: Place
    tokens: NDArray[np.int64]
    repetition: Repetition
    score: Score
    loss_rank: int
    norm_rank: int

    @property
    def rank(self) -> int:
        """The better of both."""
        return min(self.loss_rank, self.norm_rank)


def score(
    model: Transformer,
    tokens: Tensor,
    *,
    begin_id: int,
    document_mask: bool = False,
    autocast_dtype: torch.dtype | None = None,
) -> Score:
    """Judge one window of T + 1 tokens, without dropout and regularisers.

    The gradient is that of the mean loss over the sample's counted tokens, its norm taken over all weights before any
    clipping: on the scale of the norm that training reports for a whole batch. In place of float16, in which it would
    vanish without a loss scale, it is taken in float32.
    """
    device = next(model.parameters()).device
    tokens_BT = tokens.unsqueeze(0).to(device)
    inputs_BT, targets_BT, document_BT = tokens_BT[:, :-1], tokens_BT[:, 1:], None
    if document_mask:
        targets_BT, document_BT = targets_within_documents(inputs_BT, targets_BT, begin_id)
    was_training = model.training
    model.eval()
    with torch.autocast(device.type, dtype=autocast_dtype, enabled=autocast_dtype not in (None, torch.float16)):
        logits_BTV = model(inputs_BT, document_BT=document_BT)
    model.train(was_training)
    losses_T = F.cross_entropy(logits_BTV[0].float(), targets_BT[0], ignore_index=IGNORE_INDEX, reduction="none")
    counted_T = targets_BT[0] != IGNORE_INDEX
    loss = losses_T.sum() / counted_T.sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norms = torch.stack([torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients])
    return Score(float(loss.detach()), float(norms.norm()), losses_T.detach().masked_fill(~counted_T, math.nan).cpu())


def ranks(values: Sequence[float]) -> list[int]:
    """1 for the greatest; what is no number comes first."""
    order = sorted(range(len(values)), key=lambda n: -math.inf if math.isnan(values[n]) else -values[n])
    places = [0] * len(values)
    for rank, number in enumerate(order, start=1):
        places[number] = rank
    return places


def offenders(
    model: Transformer,
    shards: Shards,
    sequencer: Sequencer,
    steps: range,
    *,
    global_batch: int,
    begin_id: int,
    document_mask: bool = False,
    autocast_dtype: torch.dtype | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Offender]:
    """Judge every sample that the updates ``steps`` (the first update is 1) were made on, greatest gradient first.

    ``report`` is called with the samples done and their total.
    """
    samples = sequencer.sample_indices(steps[0] - 1, global_batch, num_steps=len(steps))
    windows = sequencer.windows(samples)
    tokens = np.empty((len(windows), shards.sequence_length + 1), dtype=np.int64)
    shards.read(windows, tokens)
    scores = []
    for done, window in enumerate(torch.from_numpy(tokens)):
        report(done, len(tokens))
        scores.append(
            score(model, window, begin_id=begin_id, document_mask=document_mask, autocast_dtype=autocast_dtype)
        )
    report(len(tokens), len(tokens))
    rows = zip(
        samples.tolist(),
        np.repeat(steps, global_batch).tolist(),
        shards.places(windows),
        tokens,
        map(worst_repetition, tokens),
        scores,
        ranks([one.loss for one in scores]),
        ranks([one.gradient_norm for one in scores]),
        strict=True,
    )
    return sorted((Offender(*row) for row in rows), key=lambda offender: offender.norm_rank)
