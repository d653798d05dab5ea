"""Held-out sums against a plain loop over single windows."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mulligan.evaluation.held_out import HeldOutSuite, held_out
from mulligan.evaluation.suites import Subject
from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer

LENGTH, BEGIN = 8, 1


def model() -> Transformer:
    config = ModelConfig(vocab_size=40, max_length=LENGTH, width=16, num_layers=1, num_heads=2, feedforward_width=24)
    with torch.device("meta"):
        built = Transformer(config)
    return built.materialize("cpu", 0)


def shards(*lengths: int) -> SimpleNamespace:
    """What held_out reads of Shards: random tokens that begin with a document."""
    generator = np.random.default_rng(0)
    tokens = [np.concatenate(([BEGIN], generator.integers(3, 40, length - 1))).astype(np.uint16) for length in lengths]
    return SimpleNamespace(
        tokens=tokens, sequence_length=LENGTH, utf8_bytes=123, entries=[{}] * len(lengths), folder=Path("data")
    )


def by_hand(network: Transformer, stream: torch.Tensor, stride: int) -> float:
    """Each target in the first window that reaches it, one window at a time."""
    total, scored = 0.0, 0
    start = 0
    while scored < len(stream) - 1:
        window = stream[start : start + LENGTH + 1]
        logits = network(window[None, :-1])[0]
        losses = F.cross_entropy(logits, window[1:], reduction="none")
        fresh = start + len(losses) - scored
        total += float(losses[len(losses) - fresh :].sum())
        scored += fresh
        start += stride
    return total


@pytest.mark.parametrize("stride", [1, 3, 4, LENGTH])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_every_target_is_scored_once(stride: int, batch_size: int) -> None:
    network, data = model(), shards(30, 9, 3, 8)
    scores = held_out(network, data, batch_size=batch_size, begin_id=BEGIN, stride=stride)
    with torch.no_grad():
        wanted = sum(by_hand(network, torch.from_numpy(tokens.astype("int64")), stride) for tokens in data.tokens)
    assert scores.num_tokens == sum(len(tokens) - 1 for tokens in data.tokens)
    assert scores.cross_entropy_sum == pytest.approx(wanted, rel=1e-5)
    assert scores.bits_per_byte == pytest.approx(wanted / 123 / math.log(2))
    assert scores.perplexity == pytest.approx(math.exp(wanted / scores.num_tokens), rel=1e-5)
    assert scores.bits_per_token == pytest.approx(math.log2(scores.perplexity))


class Recorded:
    """Tokens that keep what was read of them."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = tokens
        self.read: list[slice] = []

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, part: slice) -> np.ndarray:
        self.read.append(part)
        return self.tokens[part]


def test_a_batch_is_read_when_its_turn_comes() -> None:
    """A shard may be larger than memory."""
    network, data = model(), shards(300)
    data.tokens = [Recorded(data.tokens[0])]
    seen: list[int] = []
    network.register_forward_pre_hook(lambda *_: seen.append(len(data.tokens[0].read)))
    held_out(network, data, batch_size=4, begin_id=BEGIN, stride=LENGTH)
    assert seen[:3] == [4, 8, 12]
    assert max(part.stop - part.start for part in data.tokens[0].read) == LENGTH + 1


def test_an_untrained_model_knows_nothing() -> None:
    scores = held_out(model(), shards(200), batch_size=8, begin_id=BEGIN)
    assert scores.bits_per_token == pytest.approx(math.log2(40), abs=0.1)


def test_document_mask_leaves_out_begin_marks_and_other_documents() -> None:
    network, data = model(), shards(9)
    data.tokens[0][4] = BEGIN
    scores = held_out(network, data, batch_size=1, begin_id=BEGIN, document_mask=True, stride=LENGTH)
    apart = SimpleNamespace(**(vars(data) | {"tokens": [data.tokens[0][:4], data.tokens[0][4:]]}))
    assert scores.num_tokens == 7
    assert scores.cross_entropy_sum == pytest.approx(
        held_out(network, apart, batch_size=1, begin_id=BEGIN).cross_entropy_sum, rel=1e-5
    )


def test_the_suite_heeds_its_own_options_and_the_subjects_mask(subject: Subject) -> None:
    data, asked = shards(40), []
    data.tokens[0][20] = BEGIN

    def opened(max_bytes: int | None) -> SimpleNamespace:
        asked.append(max_bytes)
        return data

    found = HeldOutSuite(stride=1, max_bytes=7)(subject._replace(held_out=opened, document_mask=True))
    wanted = held_out(subject.model, data, batch_size=3, begin_id=BEGIN, document_mask=True, stride=1)
    assert found == wanted.scores
    assert asked == [7]


def test_the_model_is_left_in_its_mode() -> None:
    network = model().train()
    held_out(network, shards(20), batch_size=4, begin_id=BEGIN)
    assert network.training


@pytest.mark.parametrize("stride", [-1, LENGTH + 1])
def test_a_wrong_stride_is_named(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride={stride}"):
        held_out(model(), shards(20), batch_size=4, begin_id=BEGIN, stride=stride)
