"""Published runs come out, each optimum is one, and the laws give what their papers say."""

import pytest

from mulligan.planning.scaling_laws import (
    BESIROGLU,
    HOFFMANN,
    Budget,
    ParametricLaw,
    filled_in,
    is_extrapolated,
    kaplan_loss,
    smaller_models,
)


@pytest.mark.parametrize(
    ("params", "tokens", "published", "within"),
    [
        (174.6e9, 300e9, 3.14e23, 0.002),  # Brown et al. 2020, table D.1
        (175e9, 300e9, 3.14e23, 0.004),
        (70e9, 2e12, 8e23, 0.06),  # Llama 2
        (70e9, 15e12, 6e24, 0.06),  # Llama 3
    ],
    ids=["gpt3", "gpt3_rounded", "llama2", "llama3"],
)
def test_public_runs(params: float, tokens: float, published: float, within: float) -> None:
    budget = filled_in(flops=None, params=params, tokens=tokens)
    assert budget.flops == 6 * params * tokens
    assert budget.flops == pytest.approx(published, rel=within)
    again = filled_in(flops=budget.flops, params=None, tokens=tokens)
    assert again.params == pytest.approx(params)
    assert filled_in(flops=budget.flops, params=params, tokens=None).tokens == pytest.approx(tokens)


@pytest.mark.parametrize("law", [BESIROGLU, HOFFMANN], ids=["besiroglu", "hoffmann"])
def test_no_other_size_of_the_same_compute_is_better(law: ParametricLaw) -> None:
    best = law.best_for_flops(1e21)
    assert best.flops == pytest.approx(1e21)
    for factor in (0.9, 1.1):
        assert law.loss(Budget(best.params * factor, best.tokens / factor)) > law.loss(best)
    for same in (
        law.best_for_params(best.params), law.best_for_tokens(best.tokens), law.best_for_loss(law.loss(best))
    ):  # fmt: skip
        assert same == pytest.approx(best)


def test_besiroglus_optimum_is_chinchilla() -> None:
    """Their abstract: it agrees with the 20 tokens a parameter that Hoffmann's approaches 1 and 2 gave Chinchilla."""
    best = BESIROGLU.best_for_flops(5.76e23)
    assert best.params == pytest.approx(70e9, rel=0.1)
    assert best.tokens / best.params == pytest.approx(20.0, rel=0.1)


def test_hoffmanns_optimum_is_that_of_approach_3() -> None:
    assert HOFFMANN.best_for_flops(5.76e23).params == pytest.approx(40e9, rel=0.1)  # section 3.4: 40 billion


def test_kaplan_without_a_limit_of_data() -> None:
    """Equation 1.1 is what is left of 1.5 with endless data."""
    assert kaplan_loss(Budget(1e9, 1e30)) == pytest.approx((6.4e13 / 1e9) ** 0.076)


def test_one_alone_gives_the_optimum() -> None:
    assert filled_in(flops=1e21, params=None, tokens=None) == BESIROGLU.best_for_flops(1e21)
    assert filled_in(flops=None, params=1e9, tokens=None) == BESIROGLU.best_for_params(1e9)
    assert filled_in(flops=None, params=None, tokens=1e10) == BESIROGLU.best_for_tokens(1e10)


def test_smaller_models_reach_the_same_loss_and_pay_in_the_end() -> None:
    loss = 2.2
    best = BESIROGLU.best_for_loss(loss)
    found = smaller_models(loss, shares=(0.75, 0.5, 0.05))
    assert len(found) == 2, "a twentieth of the size never gets there"
    for one in found:
        assert BESIROGLU.loss(one.budget) == pytest.approx(loss)
        assert one.training_ratio > 1.0
        used = one.pays_after_tokens
        assert one.budget.flops + 2 * one.budget.params * used == pytest.approx(best.flops + 2 * best.params * used)
    assert found[0].training_ratio < found[1].training_ratio


def test_what_was_not_fitted_is_told() -> None:
    assert not is_extrapolated(Budget(1e9, 20e9))
    assert is_extrapolated(Budget(1e6, 20e9))
    assert is_extrapolated(Budget(1e9, 2e12))
