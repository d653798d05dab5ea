"""Causal attention on a CPU, over whole rows or inside documents, in one operator that stays closed to the compiler.

A document is a call of PyTorch's flash attention by itself. In bfloat16 that kernel's backward pass takes three to
seven times as long as its forward pass. Where the processor has matrix instructions for the type, rows of a few hundred
positions get their gradients from batched products over all pairs instead, in 0.3 to 0.75 of that time, and documents
of so many together get them from one: many small products keep the processor's cores waiting.

Shapes: B batch, T positions, H query heads, G key-value heads, K head width, N = B * H.
"""

from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor

HAS_MATRIX_UNITS = bool(torch.cpu.get_capabilities().get("amx_bf16"))
# Positions whose backward pass is faster by products, 1.9 times at 256, 1.3 times at 512; shorter ones where they are
# documents, which stand beside others.
SHORTEST, LONGEST = 64, 512

PAIRS = 2**21  # of query and key whose weights are held at once, in 17 MB; those of a key-value head at least

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def goes_by_products(q_BHTK: Tensor) -> bool:
    """Whether the backward pass of such queries, each row one document, is made of products."""
    return _has_units_for(q_BHTK) and SHORTEST <= q_BHTK.shape[2] <= LONGEST


def _has_units_for(x: Tensor) -> bool:
    return HAS_MATRIX_UNITS and x.device.type == "cpu" and x.dtype == torch.bfloat16


@torch.library.custom_op("mulligan::attend_apart", mutates_args=())
def attend_apart(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, begins_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """The result, (B, H, T, K), and the logarithm of each row's softmax denominator, (B, H, T), which the backward pass
    starts from. ``begins_BT`` tells which tokens begin a document; without it each row is one.
    """
    out_BHTK, log_sum_BHT = _outputs(q_BHTK)
    for at in _pieces(begins_BT):
        out_BHTK[at], log_sum_BHT[at] = flash(q_BHTK[at], k_BGTK[at], v_BGTK[at], is_causal=True)
    return out_BHTK, log_sum_BHT


@torch.library.custom_op("mulligan::attend_apart_backward", mutates_args=())
def attend_apart_backward(
    grad_BHTK: Tensor,
    q_BHTK: Tensor,
    k_BGTK: Tensor,
    v_BGTK: Tensor,
    out_BHTK: Tensor,
    log_sum_BHT: Tensor,
    begins_BT: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    q_grad, k_grad, v_grad = (_empty(x) for x in (q_BHTK, k_BGTK, v_BGTK))
    inputs = (grad_BHTK, q_BHTK, k_BGTK, v_BGTK, out_BHTK, log_sum_BHT)
    longest = LONGEST if _has_units_for(q_BHTK) else 0
    for at in _pieces(begins_BT, longest):
        piece = [x[at] for x in inputs]
        length = q_BHTK[at].shape[2]
        if length > longest:
            q_grad[at], k_grad[at], v_grad[at] = flash_backward(*piece, 0.0, True)
            continue
        sees_TT = None if begins_BT is None else _sees(begins_BT[at[0], at[2]][0])
        for *part, q_part, k_part, v_part in _parts((*piece, q_grad[at], k_grad[at], v_grad[at])):
            q_part[:], k_part[:], v_part[:] = by_products(*part, sees_TT=sees_TT)
    return q_grad, k_grad, v_grad


def _parts(tensors: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Rows, and key-value heads with their queries, of no more than ``PAIRS``. ``tensors`` are (B, H or G, ...), the
    first and the third as ``attend_apart_backward`` takes them.
    """
    (_, num_heads, length), num_groups = tensors[0].shape[:3], tensors[2].shape[1]
    pairs = num_heads * length**2
    num_rows, groups = max(1, PAIRS // pairs), min(num_groups, max(1, PAIRS * num_groups // pairs))
    for rows in zip(*(x.split(num_rows) for x in tensors), strict=True):
        yield from zip(*(x.split(groups * x.shape[1] // num_groups, 1) for x in rows), strict=True)


def by_products(
    grad_BHTK: Tensor,
    q_BHTK: Tensor,
    k_BGTK: Tensor,
    v_BGTK: Tensor,
    out_BHTK: Tensor,
    log_sum_BHT: Tensor,
    *,
    sees_TT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values: Dao et al. 2022, algorithm 4, with all pairs in one block.
    ``sees_TT`` is 1.0 where a query sees a key, and else 0.0; without it a query sees all that are not behind it.

    The products come rounded to their inputs' type. What a row takes from its scores is therefore made part of the
    product, three columns more, so that the larger a weight, the nearer 0 and the more exact its logarithm.
    """
    num_queries, scale = q_BHTK.shape[1] // k_BGTK.shape[1], q_BHTK.shape[3] ** -0.5
    k_BHTK, v_BHTK = (x.repeat_interleave(num_queries, 1) if num_queries > 1 else x for x in (k_BGTK, v_BGTK))
    grad_NTK, q_NTK, k_NTK, v_NTK, out_NTK = (x.flatten(0, 1) for x in (grad_BHTK, q_BHTK, k_BHTK, v_BHTK, out_BHTK))
    pull_NT = (grad_NTK.float() * out_NTK).sum(-1)  # the mean of the weights' gradients, by weight
    weights_NTT = (_less(q_NTK, log_sum_BHT.flatten(0, 1) / scale) @ _with_ones(k_NTK).mT).float()
    if sees_TT is None:
        weights_NTT = weights_NTT.mul_(scale).exp_().tril_().to(q_NTK.dtype)
    else:  # 0 before the exponential as well, which takes 20 times as long over minus infinity
        weights_NTT = weights_NTT.mul_(sees_TT * scale).exp_().mul_(sees_TT).to(q_NTK.dtype)
    v_grad_NTK = weights_NTT.mT @ grad_NTK
    scores_grad_NTT = weights_NTT.mul_(_less(grad_NTK, pull_NT) @ _with_ones(v_NTK).mT)
    q_grad_NTK = (scores_grad_NTT @ k_NTK).mul_(scale)
    k_grad_NTK = (scores_grad_NTT.mT @ q_NTK).mul_(scale)
    q_grad, k_grad, v_grad = (x.view(q_BHTK.shape) for x in (q_grad_NTK, k_grad_NTK, v_grad_NTK))
    if num_queries > 1:
        k_grad, v_grad = (x.unflatten(1, (-1, num_queries)).sum(2) for x in (k_grad, v_grad))
    return q_grad, k_grad, v_grad


def _less(x_NTK: Tensor, taken_NT: Tensor) -> Tensor:
    """``x`` and what its product with ``_with_ones`` is to be less by, whose 24 bits take three numbers of 8."""
    columns = [x_NTK]
    for _ in range(3):
        columns.append(-taken_NT.to(x_NTK.dtype).unsqueeze(-1))
        taken_NT = taken_NT + columns[-1].squeeze(-1)
    return torch.cat(columns, -1)


def _with_ones(x_NTK: Tensor) -> Tensor:
    return torch.cat((x_NTK, x_NTK.new_ones(*x_NTK.shape[:-1], 3)), -1)


def _sees(begins_T: Tensor) -> Tensor:
    """(T, T): 1.0 where a query sees a key, of its own document and not behind it, and else 0.0."""
    number_T = begins_T.cumsum(0)
    return (number_T.unsqueeze(1) == number_T).float().tril_()


def _pieces(begins_BT: Tensor | None, longest: int = 0) -> Iterator[tuple[slice, slice, slice]]:
    """Where each document is in (B, H, T). Rows in a row that hold one document each are one piece, and so are
    documents of one row that are together no longer than ``longest``.
    """
    if begins_BT is None:
        yield slice(None), slice(None), slice(None)
        return
    length = begins_BT.shape[1]
    places = begins_BT.flatten().nonzero().flatten().tolist()
    spans = pairwise([*places, begins_BT.numel()])
    for fills_rows, group in groupby(spans, lambda span: span[1] - span[0] == length):
        together = list(group)
        if fills_rows:
            yield slice(together[0][0] // length, together[-1][1] // length), slice(None), slice(None)
            continue
        for begin, end in _packed(together, length, longest):
            row, start = divmod(begin, length)
            yield slice(row, row + 1), slice(None), slice(start, start + end - begin)


def _packed(spans: list[tuple[int, int]], length: int, longest: int) -> list[tuple[int, int]]:
    """Neighbours within a row of ``length`` put together up to ``longest``."""
    packs = spans[:1]
    for begin, end in spans[1:]:
        first = packs[-1][0]
        if end - first <= longest and begin // length == first // length:
            packs[-1] = first, end
        else:
            packs.append((begin, end))
    return packs


def _outputs(q_BHTK: Tensor) -> tuple[Tensor, Tensor]:
    return _empty(q_BHTK), _empty(q_BHTK[..., 0], torch.promote_types(q_BHTK.dtype, torch.float32))


def _empty(x_BHTK: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Like ``x``, with the heads of a token side by side in memory, as the projection back takes them."""
    x_BTHK = x_BHTK.transpose(1, 2)
    return torch.empty_like(x_BTHK, dtype=dtype, memory_format=torch.contiguous_format).transpose(1, 2)


@attend_apart.register_fake
def _(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, begins_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    return _outputs(q_BHTK)


@attend_apart_backward.register_fake
def _(grad_BHTK: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(_empty(x) for x in inputs[:3])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    *qkv, begins_BT = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*qkv, *output, begins_BT)


def _backward(ctx: Any, grad_BHTK: Tensor, _: None) -> tuple[Tensor | None, ...]:
    return *attend_apart_backward(grad_BHTK, *ctx.saved_tensors), None


attend_apart.register_autograd(_backward, setup_context=_keep)
