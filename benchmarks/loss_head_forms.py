"""Forms of the loss head: sums of a loss over tokens, from hidden states and the head's weight.

Ours is ``mulligan.objective.linear_cross_entropy`` with z-loss and label smoothing, and "ours, bare" the same without.
The others:

    plain              the logits of all tokens in float32, ``F.cross_entropy`` with label smoothing, and a logsumexp of
                       its own for the z-loss
    compiled plain     the same through ``torch.compile``; with --full
    torch              ``F.linear_cross_entropy`` of torch 2.13 in chunks of its own choice, bare: it chunks only
                       without label smoothing and knows no z-loss
    torch, 1,024 rows  the same in chunks of 1,024 rows, as fast as it gets
    liger              ``LigerFusedLinearCrossEntropyLoss`` with z-loss and label smoothing, on a GPU where installed
    cut-cross-entropy  its ``linear_cross_entropy``, bare, on a GPU where installed

Shapes: N tokens, V vocabulary, D width.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from mulligan.objective.linear_cross_entropy import linear_cross_entropy

Z_LOSS, LABEL_SMOOTHING = 1e-4, 0.1

Form = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    terms = linear_cross_entropy(hidden_ND, weight_VD, targets_N, z_loss=Z_LOSS, label_smoothing=LABEL_SMOOTHING)
    return terms.loss_sum


def ours_bare(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    return linear_cross_entropy(hidden_ND, weight_VD, targets_N).loss_sum


def plain(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    logits_NV = (hidden_ND @ weight_VD.T).float()
    loss = F.cross_entropy(logits_NV, targets_N, reduction="sum", label_smoothing=LABEL_SMOOTHING)
    return loss + Z_LOSS * torch.logsumexp(logits_NV, dim=1).square().sum()


def torch_chunked(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, **options: int | None) -> Tensor:
    chosen = torch.nn.LinearCrossEntropyOptions(**options)
    return F.linear_cross_entropy(hidden_ND, weight_VD, targets_N, reduction="sum", options=chosen)


def liger(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    head = import_module("liger_kernel.transformers").LigerFusedLinearCrossEntropyLoss(
        lse_square_scale=Z_LOSS, label_smoothing=LABEL_SMOOTHING, reduction="sum"
    )
    return head(weight_VD, hidden_ND, targets_N)


def cut_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
    return import_module("cut_cross_entropy").linear_cross_entropy(hidden_ND, weight_VD, targets_N, reduction="sum")


OF_THIS_REPOSITORY = ("ours", "ours, bare", "plain", "compiled plain")
REGULARIZED = ("ours", "plain", "compiled plain", "liger")
FORMS: dict[str, Form] = {
    "ours": ours,
    "ours, bare": ours_bare,
    "plain": plain,
    "compiled plain": torch.compile(plain),
    "torch": torch_chunked,
    "torch, 1,024 rows": partial(torch_chunked, batch_chunk_size=1024, chunking_method=None),
    "liger": liger,
    "cut-cross-entropy": cut_cross_entropy,
}
