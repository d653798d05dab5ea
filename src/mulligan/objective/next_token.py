"""The objective of pre-training: predict each next token, cross-entropy with z-loss and label smoothing.

Shapes: B batch, T positions, D width, V vocabulary, N = B * T.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mulligan.objective.linear_cross_entropy import Terms, linear_cross_entropy

IGNORE_INDEX = -100
PLAIN_VOCABULARY = 1024  # at and below this the plain form is as fast and its logits are small


class NextToken:
    """Loss terms of a head applied to hidden states; the regularisers are off outside training."""

    def __init__(self, *, z_loss: float = 1e-4, label_smoothing: float = 0.0) -> None:
        if not 0.0 <= z_loss < math.inf:
            raise ValueError(f"objective.z_loss={z_loss} must not be negative; 0 turns it off, 1e-4 is PaLM's")
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"objective.label_smoothing={label_smoothing} must be in [0, 1)")
        self.z_loss, self.label_smoothing = z_loss, label_smoothing

    def __call__(
        self, hidden_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, *, softcap: float | None, regularized: bool
    ) -> Terms:
        """Summed terms over the targets that are not -100."""
        form = plain_cross_entropy if len(weight_VD) <= PLAIN_VOCABULARY else linear_cross_entropy
        return form(
            hidden_BTD.flatten(0, 1),
            weight_VD,
            targets_BT.flatten(),
            z_loss=self.z_loss if regularized else 0.0,
            label_smoothing=self.label_smoothing if regularized else 0.0,
            softcap=softcap,
        )


def plain_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    softcap: float | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> Terms:
    """What ``linear_cross_entropy`` computes, through the full (N, V) logits and PyTorch's own operators."""
    logits_NV = F.linear(hidden_ND, weight_VD)
    if logits_NV.dtype != torch.float64:
        logits_NV = logits_NV.float()
    if softcap is not None:
        logits_NV = softcap * torch.tanh(logits_NV / softcap)
    sum_loss = partial(F.cross_entropy, ignore_index=ignore_index, reduction="sum")
    cross_entropy = sum_loss(logits_NV, targets_N)
    smoothed = sum_loss(logits_NV, targets_N, label_smoothing=label_smoothing)
    counted_N = targets_N != ignore_index
    z = z_loss * (torch.logsumexp(logits_NV, dim=1).square() * counted_N).sum()
    target_logit_N1 = logits_NV.gather(1, targets_N.where(counted_N, 0).unsqueeze(1))
    spread_N = (target_logit_N1 - logits_NV.mean(1, keepdim=True)).squeeze(1)
    smoothing = (
        label_smoothing * (spread_N * counted_N).sum()
    )  # smoothed - cross_entropy, of which little would be left
    return Terms(smoothed + z, cross_entropy.detach(), z.detach(), smoothing.detach(), counted_N.sum())


def targets_within_documents(inputs_BT: Tensor, targets_BT: Tensor, begin_id: int) -> tuple[Tensor, Tensor]:
    """``targets`` with -100 at the first token of a document, and the document number of each input token, (B, T)."""
    document_BT = (inputs_BT == begin_id).cumsum(dim=1)
    return targets_BT.masked_fill(targets_BT == begin_id, IGNORE_INDEX), document_BT
