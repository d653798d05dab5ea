"""The distribution that a token is drawn from."""

from typing import Any

import pytest
import torch

from mulligan.evaluation.sampler import Sampler

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])  # probabilities 0.64, 0.24, 0.09, 0.03


def num_kept(**options: Any) -> int:
    return int((Sampler(**options).probabilities(LOGITS) > 0).sum())


def test_temperature_divides_the_logits() -> None:
    torch.testing.assert_close(Sampler(temperature=0.5).probabilities(LOGITS), (LOGITS * 2).softmax(0))
    assert Sampler(temperature=0.0).probabilities(LOGITS).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_top_k_keeps_the_likeliest() -> None:
    kept = Sampler(top_k=2).probabilities(LOGITS)
    torch.testing.assert_close(kept, torch.cat((LOGITS[:2].softmax(0), torch.zeros(2))))


@pytest.mark.parametrize(("top_p", "kept"), [(0.1, 1), (0.65, 2), (0.9, 3), (1.0, 4)])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: int) -> None:
    assert num_kept(top_p=top_p) == kept


def test_a_top_p_of_one_keeps_all_of_a_large_vocabulary() -> None:
    logits_V = 6.0 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert Sampler(top_p=1.0).probabilities(logits_V).equal(Sampler().probabilities(logits_V))


@pytest.mark.parametrize(("min_p", "kept"), [(0.04, 4), (0.06, 3), (0.2, 2), (0.4, 1), (1.0, 1)])
def test_min_p_keeps_what_is_not_far_below_the_likeliest(min_p: float, kept: int) -> None:
    """Shares of the likeliest: 1, 0.37, 0.14, 0.05."""
    assert num_kept(min_p=min_p) == kept
    assert Sampler(min_p=min_p).probabilities(LOGITS).sum() == pytest.approx(1.0)


def test_min_p_is_a_share_of_what_temperature_makes() -> None:
    assert num_kept(min_p=0.2, temperature=4.0) == 4
    assert num_kept(min_p=0.2, temperature=0.5) == 1


@pytest.mark.parametrize("temperature", [1e-46, 1e-40, 1e-3])
def test_a_tiny_temperature_takes_the_likeliest(temperature: float) -> None:
    assert Sampler(temperature=temperature).probabilities(LOGITS).tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": 0.0}, {"seed": 2**63}]
)
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Sampler(**options)
