"""Causal attention that stays inside documents, at no more than the cost of plain causal attention.

On the CPU each document is a call of PyTorch's flash attention by itself, hidden from the compiler in one operator; on
a GPU the block-sparse FlexAttention (Dong et al. 2024) leaves out the blocks that hold no pair of one document. Both
read the documents' places from tensors whose shape does not depend on the documents, so nothing is compiled again and,
on a GPU, nothing waits for the host. (``torch.nn.attention.varlen`` would need their number on the host.)

Shapes: B batch, T positions, H query heads, G key-value heads, K head width, N blocks of ``BLOCK`` positions.
"""

from collections.abc import Iterator
from functools import cache
from itertools import groupby, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

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
        return _attend_apart(q_BHTK, k_BGTK, v_BGTK, documents)[0]
    attend = flex_attention if torch.compiler.is_compiling() else _compiled_flex_attention()
    return attend(q_BHTK, k_BGTK, v_BGTK, block_mask=documents, enable_gqa=q_BHTK.shape[1] != k_BGTK.shape[1])


@cache
def _compiled_flex_attention() -> Any:
    return torch.compile(flex_attention)  # in a model that is not: uncompiled, it would hold every score


@torch.library.custom_op("mulligan::attend_apart", mutates_args=())
def _attend_apart(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, begins_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Also the logarithm of each row's softmax denominator, (B, H, T), which the backward pass starts from."""
    out_BHTK, log_sum_BHT = _outputs(q_BHTK)
    for at in _pieces(begins_BT):
        out_BHTK[at], log_sum_BHT[at] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_BHTK[at], k_BGTK[at], v_BGTK[at], is_causal=True
        )
    return out_BHTK, log_sum_BHT


@torch.library.custom_op("mulligan::attend_apart_backward", mutates_args=())
def _attend_apart_backward(
    grad_BHTK: Tensor,
    q_BHTK: Tensor,
    k_BGTK: Tensor,
    v_BGTK: Tensor,
    out_BHTK: Tensor,
    log_sum_BHT: Tensor,
    begins_BT: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    q_grad, k_grad, v_grad = (_empty(x) for x in (q_BHTK, k_BGTK, v_BGTK))
    inputs = (grad_BHTK, q_BHTK, k_BGTK, v_BGTK, out_BHTK, log_sum_BHT)
    for at in _pieces(begins_BT):
        q_grad[at], k_grad[at], v_grad[at] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *(x[at] for x in inputs), 0.0, True
        )
    return q_grad, k_grad, v_grad


def _pieces(begins_BT: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Where each document is in (B, H, T); rows in a row that hold one document each are one piece."""
    length = begins_BT.shape[1]
    places = begins_BT.flatten().nonzero().flatten().tolist()
    spans = pairwise([*places, begins_BT.numel()])
    for fills_rows, group in groupby(spans, lambda span: span[1] - span[0] == length):
        together = list(group)
        if fills_rows:
            yield slice(together[0][0] // length, together[-1][1] // length), slice(None), slice(None)
            continue
        for begin, end in together:
            row, start = divmod(begin, length)
            yield slice(row, row + 1), slice(None), slice(start, start + end - begin)


def _outputs(q_BHTK: Tensor) -> tuple[Tensor, Tensor]:
    return _empty(q_BHTK), _empty(q_BHTK[..., 0], torch.promote_types(q_BHTK.dtype, torch.float32))


def _empty(x_BHTK: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Like ``x``, with the heads of a token side by side in memory, as the projection back takes them."""
    x_BTHK = x_BHTK.transpose(1, 2)
    return torch.empty_like(x_BTHK, dtype=dtype, memory_format=torch.contiguous_format).transpose(1, 2)


@_attend_apart.register_fake
def _(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, begins_BT: Tensor) -> tuple[Tensor, Tensor]:
    return _outputs(q_BHTK)


@_attend_apart_backward.register_fake
def _(grad_BHTK: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(_empty(x) for x in inputs[:3])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    *qkv, begins_BT = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*qkv, *output, begins_BT)


def _backward(ctx: Any, grad_BHTK: Tensor, _: None) -> tuple[Tensor | None, ...]:
    return *_attend_apart_backward(grad_BHTK, *ctx.saved_tensors), None


_attend_apart.register_autograd(_backward, setup_context=_keep)
