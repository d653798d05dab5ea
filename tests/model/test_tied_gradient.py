"""The one gradient of tied embeddings against autograd's own sum of two."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mulligan.model.config import ModelConfig
from mulligan.model.tied_gradient import TiedGradient
from mulligan.model.transformer import Transformer
from mulligan.objective.linear_cross_entropy import linear_cross_entropy

TOKENS = torch.tensor([[3, 1, 3, 3], [0, 1, 6, 3]])  # some of them more than once
GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(7, 5, dtype=torch.float64, generator=GENERATOR)
TARGETS = torch.tensor([[1, 3, 3, 5], [1, 6, 3, 2]])


def loss_of(weight: Tensor, tokens: Tensor, *, tied: TiedGradient | None, detached: bool = False) -> Tensor:
    hidden = (tied.look_up(weight, tokens) if tied else F.embedding(tokens, weight)).tanh()
    if detached:
        hidden = hidden.detach()
    hidden, head = tied.for_head(hidden, weight) if tied else (hidden, weight)
    return linear_cross_entropy(hidden.flatten(0, 1), head, TARGETS.flatten(), z_loss=1e-2).loss_sum


def two_losses(weight: Tensor, tied: list[TiedGradient]) -> Tensor:
    first, second = tied or (None, None)
    return loss_of(weight, TOKENS, tied=first) + 2.0 * loss_of(weight, TOKENS.flip(1), tied=second)


def penalized(weight: Tensor, tied: list[TiedGradient]) -> Tensor:
    return loss_of(weight, TOKENS, tied=tied[0] if tied else None) + weight.square().sum()


def head_alone(weight: Tensor, tied: list[TiedGradient]) -> Tensor:
    return loss_of(weight, TOKENS, tied=tied[0] if tied else None, detached=True)


def lookup_alone(weight: Tensor, tied: list[TiedGradient]) -> Tensor:
    hidden = tied[0].look_up(weight, TOKENS) if tied else F.embedding(TOKENS, weight)
    return (tied[0].for_head(hidden, weight)[0] if tied else hidden).square().sum()


@pytest.mark.parametrize("loss", [two_losses, penalized, head_alone, lookup_alone])
def test_the_gradient_is_the_sum_of_all_uses(loss: Callable[[Tensor, list[TiedGradient]], Tensor]) -> None:
    wanted, ours, tied = WEIGHT.clone().requires_grad_(), WEIGHT.clone().requires_grad_(), []
    for _ in range(2):  # micro-batches add up
        tied = [TiedGradient(), TiedGradient()]
        loss(ours, tied).backward()
        loss(wanted, []).backward()
        assert [one.head_grad_VD for one in tied] == [None, None]  # nothing is held until the next
    assert wanted.grad is not None
    torch.testing.assert_close(ours.grad, wanted.grad, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("tied_embeddings", [True, False])
def test_a_model_has_the_gradient_it_had(monkeypatch: pytest.MonkeyPatch, tied_embeddings: bool) -> None:
    config = ModelConfig(
        vocab_size=7, max_length=8, width=8, num_layers=1, num_heads=2, feedforward_width=16,
        tied_embeddings=tied_embeddings,
    )  # fmt: skip
    with torch.device("meta"):
        empty = Transformer(config).double()
    model = empty.materialize("cpu", 0)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        for _ in range(2):  # two micro-batches add up
            loss = model(TOKENS, head=lambda x, w: linear_cross_entropy(x.flatten(0, 1), w, TARGETS.flatten()).loss_sum)
            loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    looked_up = []
    look_up = TiedGradient.look_up
    monkeypatch.setattr(TiedGradient, "look_up", lambda *inputs: looked_up.append(inputs) or look_up(*inputs))
    ours = gradients()
    assert bool(looked_up) == tied_embeddings
    monkeypatch.setattr(TiedGradient, "serves", lambda weight: False)
    torch.testing.assert_close(ours, gradients(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("weight", "serves"),
    [
        (torch.ones(2, 2, requires_grad=True), True),
        (torch.ones(2, 2), False),
        (torch.ones(2, 2, device="meta", requires_grad=True), False),
    ],
)
def test_it_serves_gradients_on_a_cpu(weight: Tensor, serves: bool) -> None:
    assert TiedGradient.serves(weight) == serves
    with torch.no_grad():
        assert not TiedGradient.serves(weight)
