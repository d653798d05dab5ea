"""The one gradient of tied embeddings against autograd's own sum of two."""

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


def gradient(*, tied: bool, uses_head: bool = True) -> Tensor:
    weight = WEIGHT.clone().requires_grad_()
    one = TiedGradient()
    assert one.serves(weight)
    hidden = (one.look_up(weight, TOKENS) if tied else F.embedding(TOKENS, weight)).tanh()
    head = one.for_head(weight) if tied else weight
    loss = linear_cross_entropy(hidden.flatten(0, 1), head, TARGETS.flatten(), z_loss=1e-2).loss_sum
    (loss if uses_head else hidden.sum() + 0.0 * loss.detach()).backward()
    assert one.head_grad_VD is None  # nothing is held until the next step
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("uses_head", [True, False])
def test_the_gradient_is_the_sum_of_both_uses(uses_head: bool) -> None:
    ours, wanted = gradient(tied=True, uses_head=uses_head), gradient(tied=False, uses_head=uses_head)
    torch.testing.assert_close(ours, wanted, rtol=1e-14, atol=1e-14)


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

    ours = gradients()
    looked_up = []
    monkeypatch.setattr(TiedGradient, "serves", staticmethod(lambda weight: bool(looked_up.append(weight))))
    torch.testing.assert_close(ours, gradients(), rtol=1e-13, atol=1e-13)
    assert bool(looked_up) == tied_embeddings


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
