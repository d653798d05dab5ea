"""Causal attention that stays inside documents, at no more than the cost of plain causal attention.

On the CPU each document is a call of PyTorch's flash attention by itself (``cpu_attention``); on a GPU the block-sparse
FlexAttention (Dong et al. 2024) leaves out the blocks that hold no pair of one document. Both read where documents are
from tensors whose shape does not depend on them, so nothing is compiled again and, on a GPU, nothing waits for the
host. (``torch.nn.attention.varlen`` would need their number on the host.)

Shapes: B batch, T positions, H query heads, G key-value heads, K head width, N blocks of ``BLOCK`` positions.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from mulligan.model.cpu_attention import attend_apart

BLOCK = 128  # FlexAttention's own, which its kernels are tuned for
FLEX_HEAD_WIDTH = 16  # at least: what the smallest matrix product of a GPU takes


def begins_of(document_BT: Tensor) -> Tensor:
    """Whether each token is the first of a document: of a row, or of a run of equal numbers in it."""
    differs_BT = document_BT[:, 1:] != document_BT[:, :-1]
    return F.pad(differs_BT, (1, 0), value=True)


def dense_mask(begins_BT: Tensor) -> Tensor:
    """(B, 1, T, T): whether the query may see the key. It costs every kernel its causal half, and is for those cases
    that the other two forms do not know.
    """
    number_BT = begins_BT.cumsum(1)
    return (number_BT.unsqueeze(2) == number_BT.unsqueeze(1)).tril().unsqueeze(1)


def block_mask(begins_BT: Tensor) -> BlockMask:
    """What ``create_block_mask`` would make of ``dense_mask``, out of N x N blocks instead of T x T pairs."""
    length = begins_BT.shape[1]
    number_BT = begins_BT.cumsum(1, dtype=torch.int32)
    blocks_BNT = F.pad(number_BT, (0, -length % BLOCK), value=length + 1).unflatten(1, (-1, BLOCK))
    first_BN, last_BN = blocks_BNT[..., 0], blocks_BNT[..., -1]
    # Numbers only grow along a row, so the ends of two blocks tell whether they share a document, or are all of one.
    shared_BNN = (last_BN.unsqueeze(1) >= first_BN.unsqueeze(2)).tril()
    full_BNN = (first_BN.unsqueeze(1) == last_BN.unsqueeze(2)).tril(-1)

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (number_BT[b, q] == number_BT[b, k])

    return BlockMask.from_kv_blocks(
        *_listed(shared_BNN & ~full_BNN), *_listed(full_BNN), BLOCK, sees, seq_lengths=(length, length)
    )


def _listed(chosen_BNN: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are chosen, (B, 1, N), and which: their indices first, (B, 1, N, N)."""
    indices_BNN = chosen_BNN.int().argsort(dim=-1, descending=True, stable=True)
    return chosen_BNN.sum(-1, dtype=torch.int32).unsqueeze(1), indices_BNN.int().unsqueeze(1)


def attend_inside(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, documents: Tensor | BlockMask) -> Tensor:
    """(B, H, T, K). ``documents`` is ``begins_of`` on the CPU and ``block_mask`` on a GPU."""
    if isinstance(documents, Tensor):
        return attend_apart(q_BHTK, k_BGTK, v_BGTK, documents)[0]
    attend = flex_attention if torch.compiler.is_compiling() else _compiled_flex_attention()
    return attend(q_BHTK, k_BGTK, v_BGTK, block_mask=documents, enable_gqa=q_BHTK.shape[1] != k_BGTK.shape[1])


@cache
def _compiled_flex_attention() -> Any:
    return torch.compile(flex_attention)  # in a model that is not: uncompiled, it would hold every score
