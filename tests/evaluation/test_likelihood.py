"""Continuations in batches against each by itself."""

from typing import Any

import pytest
import torch

from mulligan.evaluation.likelihood import NotScorable, Pair, likelihoods
from tests.evaluation.conftest import make_model

PAIRS = [Pair([1], [5]), Pair([1, 5, 6], [7, 8, 9]), Pair(list(range(1, 30)), [3, 4]), Pair([2], list(range(3, 19)))]


def alone(pair: Pair, banned: list[int], **options: Any) -> tuple[list[float], list[int]]:
    """Losses and likeliest tokens, the last 16 tokens of the context before each whole continuation."""
    network = make_model(init_std=0.5, **options).eval()
    tokens = torch.tensor([*pair.context, *pair.continuation][-17:])
    with torch.no_grad():
        logits_TV = network(tokens[None, :-1])[0][-len(pair.continuation) :]
    logits_TV[:, banned] = -torch.inf
    losses = -logits_TV.log_softmax(1).gather(1, torch.tensor(pair.continuation).unsqueeze(1)).squeeze(1)
    return losses.tolist(), logits_TV.argmax(1).tolist()


@pytest.mark.parametrize("batch_size", [1, 3, 9])
@pytest.mark.parametrize("banned", [[], [1, 2, 39]])
def test_every_row_as_if_alone(batch_size: int, banned: list[int]) -> None:
    found = likelihoods(make_model(init_std=0.5), PAIRS, batch_size=batch_size, banned=banned)
    for pair, one in zip(PAIRS, found, strict=True):
        losses, _ = alone(pair, banned)
        assert one.losses == pytest.approx(losses, abs=1e-5)
        assert one.log_probability == pytest.approx(-sum(losses), abs=1e-4)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"logit_softcap": 0.5}])
def test_losses_are_those_of_the_logits_it_gives_when_not_in_training(options: dict[str, float]) -> None:
    network = make_model(init_std=0.5, **options)
    found = likelihoods(network, PAIRS, batch_size=9)
    assert network.training
    for pair, one in zip(PAIRS, found, strict=True):
        assert one.losses == pytest.approx(alone(pair, [], **options)[0], abs=1e-5)


def test_greedy_is_what_holds_the_likeliest_tokens_only() -> None:
    first = alone(Pair([1, 5], [3]), [])[1][0]
    second = alone(Pair([1, 5], [first, 3]), [])[1][1]
    pairs = [Pair([1, 5], [first, second]), Pair([1, 5], [first, (second + 1) % 40])]
    found = likelihoods(make_model(init_std=0.5), pairs, batch_size=2)
    assert [one.is_greedy for one in found] == [True, False]


def test_tokens_without_a_row_are_refused() -> None:
    for pair in (Pair([40], [5]), Pair([1], [40])):
        with pytest.raises(ValueError, match="the token 40, which must be below the model's vocab_size=40"):
            likelihoods(make_model(vocab_size=40), [pair], batch_size=1)


@pytest.mark.parametrize("continuation", [[], list(range(17))])
def test_what_cannot_be_scored_is_named(continuation: list[int]) -> None:
    pairs = [*PAIRS, Pair([1], continuation)]
    with pytest.raises(NotScorable, match=r"must have 1 to model\.max_length=16") as raised:
        likelihoods(make_model(), pairs, batch_size=1)
    assert raised.value.number == len(PAIRS)


def test_a_continuation_of_nothing_is_named() -> None:
    with pytest.raises(NotScorable, match="a continuation needs a context"):
        likelihoods(make_model(), [Pair([], [5, 6])], batch_size=1)
