"""The stretches, the sums by hand, and a model for which there is no difference between its text and people's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mulligan.evaluation.exposure_bias import ExposureBiasSuite, stretches
from mulligan.evaluation.likelihood import Pair, likelihoods
from mulligan.evaluation.suites import Subject

SIZES = {"num_prefixes": 8, "prefix_tokens": 6, "rollout_tokens": 8, "continuation_tokens": 4, "seed": 0}
BEGIN, END = 1, 2


def shards(*documents: list[int]) -> SimpleNamespace:
    framed = [np.array([BEGIN, *document, END], dtype=np.uint16) for document in documents]
    return SimpleNamespace(tokens=[np.concatenate(framed[:2]), np.concatenate(framed[2:])], folder=Path("data"))


def random_shards(length: int = 40, count: int = 9) -> SimpleNamespace:
    rng = np.random.default_rng(0)
    return shards(*(rng.integers(3, 300, length).tolist() for _ in range(count)))


def test_stretches_lie_within_documents_and_apart() -> None:
    data = shards(list(range(10, 19)), list(range(30, 35)), list(range(50, 52)), list(range(60, 63)))
    found = stretches(data, length=4, count=4, begin_id=BEGIN, seed=0)  # type: ignore[arg-type]  # what it reads of them
    assert sorted(found.tolist()) == [[1, 10, 11, 12], [1, 30, 31, 32], [1, 60, 61, 62], [13, 14, 15, 16]]
    with pytest.raises(ValueError, match="num_prefixes=5: data holds 4 stretches of 4 tokens"):
        stretches(data, length=4, count=5, begin_id=BEGIN, seed=0)  # type: ignore[arg-type]  # as above


def test_the_seed_draws_stretches_and_tokens(subject: Subject) -> None:
    given = subject._replace(held_out=lambda _: random_shards())
    first, again, other = (ExposureBiasSuite(**SIZES | {"seed": seed})(given) for seed in (0, 0, 1))
    assert first == again != other


def test_human_loss_is_that_of_plain_scoring(subject: Subject) -> None:
    data = random_shards()
    scores = ExposureBiasSuite(**SIZES)(subject._replace(held_out=lambda _: data))
    found = stretches(data, length=18, count=8, begin_id=BEGIN, seed=0).tolist()  # type: ignore[arg-type]  # as above
    banned = [BEGIN, END, *range(subject.tokenizer.vocab_size, 320)]
    plain = likelihoods(subject.model, [Pair(one[:6], one[6:14]) for one in found], batch_size=1, banned=banned)
    losses = [np.mean(one.losses) for one in plain]
    assert scores["human_loss"].value == pytest.approx(np.mean(losses), rel=1e-5)
    assert scores["human_loss"].standard_error == pytest.approx(np.std(losses, ddof=1) / 8**0.5, rel=1e-4)
    assert scores["gap"].value == pytest.approx(scores["own_loss"].value - scores["human_loss"].value, rel=1e-4)


def test_where_people_write_as_the_model_does_there_is_no_gap(subject: Subject) -> None:
    """Held-out text drawn from the model itself: what is left is noise. Noise of its standard errors' size."""
    suite = ExposureBiasSuite(**SIZES | {"num_prefixes": 60})
    begun = [[BEGIN]] * 60
    drawn = ExposureBiasSuite(**SIZES | {"rollout_tokens": 17, "seed": 5})._own_continuations(subject, begun)
    scores = suite(subject._replace(held_out=lambda _: shards(*drawn), batch_size=60))
    assert abs(scores["gap"].value) < 3.0 * scores["gap"].standard_error
    assert abs(scores["drift"].value) < 3.0 * scores["drift"].standard_error
    wild = suite(subject._replace(held_out=lambda _: random_shards(count=30), batch_size=60))
    assert wild["gap"].value < -5.0 * wild["gap"].standard_error, "random tokens are harder than the model's own"


def test_the_excess_is_of_the_same_human_text_behind_other_contexts(subject: Subject) -> None:
    data = random_shards()
    scores = ExposureBiasSuite(**SIZES)(subject._replace(held_out=lambda _: data))
    found = stretches(data, length=18, count=8, begin_id=BEGIN, seed=0).tolist()  # type: ignore[arg-type]  # as above
    banned = [BEGIN, END, *range(subject.tokenizer.vocab_size, 320)]
    others = [*found[1:], found[0]]
    behind = {
        "human": [Pair(one[:14], one[14:]) for one in found],
        "unrelated": [Pair(one[:6] + other[6:14], one[14:]) for one, other in zip(found, others, strict=True)],
    }
    human, unrelated = (
        np.mean([one.losses for one in likelihoods(subject.model, pairs, batch_size=2, banned=banned)])
        for pairs in behind.values()
    )
    assert scores["excess_after_unrelated"].value == pytest.approx(unrelated - human, rel=1e-4)
    assert scores["excess_after_own"].value != pytest.approx(unrelated - human, rel=1e-2)


def test_drift_is_the_gap_in_the_last_quarter_minus_that_in_the_first(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    human, own = np.zeros((8, 12)), np.tile(np.arange(12.0), (8, 1))  # 8 tokens of the rollout, and 4 that follow
    losses = iter([human, own, human])  # the last behind unrelated text
    monkeypatch.setattr(ExposureBiasSuite, "_losses", lambda *_: next(losses))
    scores = ExposureBiasSuite(**SIZES)(subject._replace(held_out=lambda _: random_shards()))
    assert scores["drift"].value == (6 + 7) / 2 - (0 + 1) / 2
    assert scores["gap"].value == 3.5
    assert scores["excess_after_own"].value == 9.5


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"num_prefixes": 1}, "num_prefixes=1 must be at least 2"),
        ({"prefix_tokens": 0}, "prefix_tokens=0 must be at least 1"),
        ({"rollout_tokens": 3}, "rollout_tokens=3 must be at least 4"),
        ({"seed": -1}, "seed=-1 must not be negative"),
    ],
)
def test_wrong_sizes_are_named(option: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ExposureBiasSuite(**SIZES | option)


def test_stretches_longer_than_the_model_reads_are_named(subject: Subject) -> None:
    with pytest.raises(ValueError, match="together more than the 64 tokens that the model reads"):
        ExposureBiasSuite(**SIZES | {"prefix_tokens": 60})(subject)
