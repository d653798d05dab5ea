"""Scores of single samples against plain autograd, and what stands first when one of them is a stuck record."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mulligan.data.sequencer import Sequencer
from mulligan.evaluation.offenders import offenders, ranks, score
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer

LENGTH, BEGIN, VOCABULARY = 24, 1, 60


def model(**options: Any) -> Transformer:
    shape = {"width": 16, "num_layers": 2, "num_heads": 2, "feedforward_width": 24}
    config = ModelConfig(vocab_size=VOCABULARY, max_length=LENGTH, **shape, **options)
    with torch.device("meta"):
        built = Transformer(config)
    return built.materialize("cpu", 0)


def windows(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, VOCABULARY, (count, LENGTH + 1))


def norm_by_hand(network: Transformer, loss: torch.Tensor) -> float:
    network.zero_grad()
    loss.backward()
    return math.sqrt(sum(float(weight.grad.double().square().sum()) for weight in network.parameters()))


@pytest.mark.parametrize("options", [{}, {"tied_embeddings": True, "positions": "learned"}, {"logit_softcap": 5.0}])
def test_losses_and_norm_are_those_of_autograd(options: dict[str, Any]) -> None:
    network, tokens = model(**options), torch.from_numpy(windows(1)[0])
    found = score(network, tokens, begin_id=BEGIN)
    losses = F.cross_entropy(network(tokens[None, :-1])[0], tokens[1:], reduction="none")
    assert torch.allclose(found.token_losses_T, losses, rtol=1e-5, atol=0)
    assert found.loss == pytest.approx(float(losses.detach().mean()), rel=1e-6)
    assert found.gradient_norm == pytest.approx(norm_by_hand(network, losses.mean()), rel=1e-5)


def test_document_mask_counts_no_loss_at_begin_marks() -> None:
    network, tokens = model(), torch.from_numpy(windows(1)[0])
    tokens[10] = BEGIN
    found = score(network, tokens, begin_id=BEGIN, document_mask=True)
    parts = [score(network, part, begin_id=BEGIN) for part in (tokens[:10], tokens[10:])]
    assert found.token_losses_T.isnan().nonzero().flatten().tolist() == [9]
    together = torch.cat([part.token_losses_T for part in parts])
    assert torch.allclose(found.token_losses_T[~found.token_losses_T.isnan()], together, rtol=1e-4)
    assert found.loss == pytest.approx(float(together.mean()), rel=1e-5)


def test_of_float16_the_gradient_is_that_of_float32() -> None:
    network, tokens = model(), torch.from_numpy(windows(1)[0])
    found, wanted = (score(network, tokens, begin_id=BEGIN, autocast_dtype=dtype) for dtype in (torch.float16, None))
    assert found.gradient_norm == wanted.gradient_norm


def test_scoring_leaves_the_model_as_it_was() -> None:
    network, tokens = model(dropout=0.5).train(), torch.from_numpy(windows(1)[0])
    first, second = (score(network, tokens, begin_id=BEGIN) for _ in range(2))
    assert first.loss == second.loss, "dropout was on"
    assert network.training
    assert all(weight.grad is None for weight in network.parameters())


def test_ranks_begin_with_the_greatest_and_what_is_no_number() -> None:
    assert ranks([1.0, 3.0, math.nan, 2.0]) == [4, 2, 1, 3]
    assert ranks([1.0, 1.0]) == [1, 2]


def test_a_stuck_record_pulls_hardest() -> None:
    """Of eight samples of the updates 3 and 4, that which repeats two tokens has the greatest gradient."""
    data, sequencer = windows(20), Sequencer(source_sizes=[20], seed=0)
    samples = sequencer.sample_indices(2, 4, num_steps=2)
    assert samples.tolist() == list(range(8, 16))
    data[sequencer.windows(samples)[5]] = np.resize([7, 9], LENGTH + 1)

    def read(numbers: np.ndarray, out: np.ndarray) -> None:
        out[:] = data[numbers]

    shards: Any = SimpleNamespace(sequence_length=LENGTH, read=read, places=lambda numbers: numbers.tolist())
    done: list[tuple[int, int]] = []
    found = offenders(
        model(), shards, sequencer, range(3, 5), global_batch=4, begin_id=BEGIN, report=lambda *it: done.append(it)
    )
    assert [one.norm_rank for one in found] == list(range(1, 9))
    assert sorted((one.sample, one.step) for one in found) == [(8 + n, 3 + n // 4) for n in range(8)]
    assert [one.score.gradient_norm for one in found] == sorted(
        (one.score.gradient_norm for one in found), reverse=True
    )
    assert done[-1] == (8, 8)
    worst = found[0]
    assert (worst.sample, worst.step, worst.repetition) == (13, 4, (0, 2, 12))
    for one in found:
        assert one.tokens.tolist() == data[one.place].tolist()
        alone = score(model(), torch.from_numpy(one.tokens), begin_id=BEGIN)
        assert alone.loss == pytest.approx(one.score.loss, rel=1e-6)
