"""One gradient for a weight that both looks tokens up and makes their logits.

Autograd would make a second one for the lookup, as large as the vocabulary and nearly all zeros, and add the two. Here
the head's waits for the lookup's turn, which comes last, and takes the rows of the tokens in place: a pass less to fill
and one to add.

Shapes: B batch, T positions, V vocabulary, D width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class TiedGradient:
    """Of one forward pass: ``look_up`` first, ``for_head`` last. The head must give a gradient that is its own, with a
    place in memory for each entry.
    """

    def __init__(self) -> None:
        self.head_grad_VD: Tensor | None = None  # between the backward pass of the head and that of the lookup

    @staticmethod
    def serves(weight_VD: Tensor) -> bool:
        """Not on a GPU, which would add the rows in any order, nor for the shards of tensor parallelism."""
        asks = torch.is_grad_enabled() and weight_VD.requires_grad
        return asks and weight_VD.device.type == "cpu" and not isinstance(weight_VD, DTensor)

    def look_up(self, weight_VD: Tensor, tokens_BT: Tensor) -> Tensor:
        return _LookUp.apply(weight_VD, tokens_BT, self)

    def for_head(self, x_BTD: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]:
        """What the head takes: the last hidden states, which come from the lookup, and the weight."""
        return _ForHead.apply(x_BTD, weight_VD, self)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_VD: Tensor, tokens_BT: Tensor, tied: TiedGradient) -> Tensor:
        ctx.tied, ctx.num_rows = tied, len(weight_VD)
        ctx.save_for_backward(tokens_BT)
        return torch.nn.functional.embedding(tokens_BT, weight_VD)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (tokens_BT,), (grad_BTD,) = ctx.saved_tensors, grads
        grad_VD, ctx.tied.head_grad_VD = ctx.tied.head_grad_VD, None
        if grad_VD is None:  # the head's weight had no part in the loss
            grad_VD = grad_BTD.new_zeros(ctx.num_rows, grad_BTD.shape[-1])
        return grad_VD.index_add_(0, tokens_BT.flatten(), grad_BTD.flatten(0, 1).to(grad_VD.dtype)), None, None


class _ForHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, weight_VD: Tensor, tied: TiedGradient) -> tuple[Tensor, Tensor]:
        ctx.tied = tied
        ctx.set_materialize_grads(False)
        return x_BTD.view_as(x_BTD), weight_VD.view_as(weight_VD)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, None]:
        grad_BTD, grad_VD = grads
        if grad_BTD is None or not ctx.needs_input_grad[0]:  # the lookup's turn will not come
            return None, grad_VD, None
        ctx.tied.head_grad_VD = grad_VD
        return grad_BTD, None, None
