"""Sampling: the distribution, the seed, the cache and the end of the context."""

from functools import partial
from typing import Any

import pytest
import torch

from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.evaluation.generation import Sampler, generate, generate_text
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])


def model() -> Transformer:
    config = ModelConfig(vocab_size=40, max_length=16, width=16, num_layers=2, num_heads=2, feedforward_width=24)
    with torch.device("meta"):
        built = Transformer(config)
    return built.materialize("cpu", 0)


def tokens(seed: int, count: int, temperature: float = 1.0) -> list[int]:
    sampler = Sampler(temperature=temperature, seed=seed)
    return list(generate(model(), [1, 5, 6], sampler, max_new_tokens=count, end_id=-1))


def test_temperature_divides_the_logits() -> None:
    torch.testing.assert_close(Sampler(temperature=0.5).probabilities(LOGITS), (LOGITS * 2).softmax(0))
    assert Sampler(temperature=0.0).probabilities(LOGITS).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_top_k_keeps_the_likeliest() -> None:
    kept = Sampler(top_k=2).probabilities(LOGITS)
    torch.testing.assert_close(kept, torch.cat((LOGITS[:2].softmax(0), torch.zeros(2))))


@pytest.mark.parametrize(("top_p", "kept"), [(0.1, 1), (0.65, 2), (0.9, 3), (1.0, 4)])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: int) -> None:
    assert int((Sampler(top_p=top_p).probabilities(LOGITS) > 0).sum()) == kept


def test_the_seed_decides() -> None:
    assert tokens(0, 10) == tokens(0, 10) != tokens(1, 10)


def test_the_cache_changes_no_token() -> None:
    network, context = model().eval(), [1, 5, 6]
    for token in tokens(0, 12, temperature=0.0):
        with torch.no_grad():
            assert token == int(network(torch.tensor([context]))[0, -1].argmax())
        context.append(token)


def test_it_goes_on_past_the_longest_context() -> None:
    assert len(tokens(0, 60)) == 60


def test_it_stops_at_the_end_mark() -> None:
    first = tokens(0, 5)
    stopped = list(generate(model(), [1, 5, 6], Sampler(seed=0), max_new_tokens=5, end_id=first[2]))
    assert stopped == first[: first.index(first[2])]


def test_only_the_tokens_named_may_come() -> None:
    drawn = [
        list(generate(model(), [1, 5], Sampler(seed=seed), max_new_tokens=3, end_id=-1, num_tokens=20, first=[7, 9]))
        for seed in range(30)
    ]
    assert {one[0] for one in drawn} == {7, 9}
    assert max(max(one) for one in drawn) == 19


def test_the_last_token_of_a_prompt_is_drawn_again() -> None:
    tokenizer = TokenizerRecipe(vocab_size=290).make(["def foo far fall bar\n" * 50])
    config = ModelConfig(vocab_size=290, max_length=16, width=16, num_layers=1, num_heads=2, feedforward_width=24)
    with torch.device("meta"):
        network = Transformer(config)
    network.materialize("cpu", 0)
    draw = partial(generate_text, network, tokenizer, max_new_tokens=1)
    after_blank = {"".join(draw("def ", Sampler(seed=seed))) for seed in range(60)}
    words = {tokenizer.decode([number])[1:] for number in tokenizer.beginning_with(b" ")}
    assert after_blank == words
    assert {"far", "bar", ""} <= words
    assert "".join(draw("", Sampler())) != ""


@pytest.mark.parametrize("temperature", [1e-40, 1e-3])
def test_a_tiny_temperature_takes_the_likeliest(temperature: float) -> None:
    assert Sampler(temperature=temperature).probabilities(LOGITS).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_logits_that_are_not_finite_are_named() -> None:
    network = model()
    network.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="its training has diverged"):
        list(generate(network, [1], Sampler(), max_new_tokens=1, end_id=-1))


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Sampler(**options)
