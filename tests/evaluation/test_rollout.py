"""Rows of a batch against each row alone, read anew for every token without a cache."""

import pytest
import torch

from mulligan.evaluation.rollout import Row, rollout
from mulligan.evaluation.sampler import Sampler
from mulligan.model.transformer import Transformer
from tests.evaluation.conftest import make_model

PROMPTS = [[1, 5, 6], [1], [1, 7, 8, 9, 10, 11], list(range(1, 31))]  # the last is longer than the model's 16


def drawn(prompts: list[list[int]], *, count: int, **options: float) -> list[list[int]]:
    rows = [Row(prompt, Sampler(**options), max_new_tokens=count) for prompt in prompts]
    for _ in rollout(make_model(init_std=0.5), rows):
        pass
    return [row.new for row in rows]


@torch.no_grad()
def without_cache(model: Transformer, prompt: list[int], sampler: Sampler, count: int) -> list[int]:
    """One row, all of its context read again for each token."""
    generator, limit, new = torch.Generator().manual_seed(sampler.seed), model.config.max_length, []
    context = prompt[-limit:]
    for _ in range(count):
        logits_V = model(torch.tensor([context]))[0, -1]
        new.append(int(torch.multinomial(sampler.probabilities(logits_V), 1, generator=generator)))
        context = [*context, new[-1]]
        if len(context) > limit:
            context = context[-(limit // 2 + 1) :]
    return new


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}, {"min_p": 0.1, "top_k": 9}])
def test_cache_and_batch_change_no_token(options: dict[str, float]) -> None:
    """Past the longest context too: 40 tokens, of 16 that the model reads."""
    network = make_model(init_std=0.5).eval()
    wanted = [without_cache(network, prompt, Sampler(**options), 40) for prompt in PROMPTS]
    assert drawn(PROMPTS, count=40, **options) == wanted
    assert [drawn([prompt], count=40, **options)[0] for prompt in PROMPTS] == wanted


def test_the_seed_decides() -> None:
    assert drawn([[1, 5]], count=10, seed=0) == drawn([[1, 5]], count=10, seed=0) != drawn([[1, 5]], count=10, seed=1)


def test_each_row_stops_by_itself_and_leaves_the_others_alone() -> None:
    whole = drawn(PROMPTS, count=30)
    end_id = whole[0][2]
    rows = [Row(prompt, Sampler(), max_new_tokens=30, end_id=end_id) for prompt in PROMPTS[:3]]
    rows.append(Row(PROMPTS[3], Sampler(), max_new_tokens=3))
    widths: list[int] = []
    network = make_model(init_std=0.5)
    network.register_forward_pre_hook(lambda _, inputs: widths.append(len(inputs[0])))
    for row in rollout(network, rows):
        row.is_done = row.is_done or (row is rows[1] and len(row.new) == 5)  # whoever reads may end a row
    ended = [one[: one.index(end_id)] if end_id in one else one for one in whole]
    assert [row.new for row in rows] == [ended[0], ended[1][:5], ended[2], whole[3][:3]]
    assert rows[0].has_ended
    assert not rows[3].has_ended
    assert widths[0] == 4
    assert widths[-1] == 1, "rows that are done are still computed"


@pytest.mark.parametrize("options", [{}, {"dropout": 0.5}, {"logit_softcap": 0.5}])
def test_log_probabilities_are_the_models(options: dict[str, float]) -> None:
    network = make_model(init_std=0.5, **options)
    row = Row([1, 5], Sampler(temperature=0.5, top_k=3), max_new_tokens=6)
    list(rollout(network, [row]))
    logits_TV = network.eval()(torch.tensor([[1, 5, *row.new]]))[0, 1:-1]
    wanted = logits_TV.log_softmax(1).gather(1, torch.tensor(row.new).unsqueeze(1)).squeeze(1)
    assert row.log_probabilities == pytest.approx(wanted.tolist(), abs=1e-5)


def test_only_the_tokens_allowed_may_come() -> None:
    allowed_V, first_V = torch.arange(40) < 20, torch.zeros(40, dtype=torch.bool)
    first_V[[7, 9]] = True
    rows = [
        Row([1, 5], Sampler(seed=seed), max_new_tokens=3, allowed_V=allowed_V, first_V=first_V) for seed in range(30)
    ]
    list(rollout(make_model(), rows))
    assert {row.new[0] for row in rows} == {7, 9}
    assert max(max(row.new) for row in rows) == 19


def test_the_model_is_left_in_its_mode() -> None:
    network = make_model().train()
    next(rollout(network, [Row([1], Sampler(), max_new_tokens=5)]))  # also where nobody reads to the end
    assert network.training


def test_logits_that_are_not_finite_are_named() -> None:
    network = make_model()
    network.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="its training has diverged"):
        list(rollout(network, [Row([1], Sampler(), max_new_tokens=1)]))
