"""The samples of each attempt are those that the run's own order gives."""

from pathlib import Path

from mulligan.data.sequencer import Sequencer
from mulligan.report.sample_order import Source, first_samples, sources_of
from mulligan.stability.ledger import Ledger
from tests.report.conftest import REWIND


def test_each_attempt_reads_as_the_ledger_of_then_says(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append("rewind", **REWIND)
    ledger.append("rewind", **REWIND | {"attempt": 20, "step": 17, "target": 5, "skip": [20, 80]})
    lineages = [(0, 11, []), (8, 9, [(32, 44)]), (5, 6, [(32, 44), (20, 80)])]
    wanted = [
        Sequencer(source_sizes=[1000], seed=0, skips=skips).first_sample(step, 4)
        for first, count, skips in lineages
        for step in range(first, first + count)
    ]
    assert first_samples(ledger, 26, 4).tolist() == wanted
    assert first_samples(ledger, 12, 4).tolist() == wanted[:12], "a log that ends before the ledger does"


def test_shares_are_those_of_the_tokens_or_of_the_weights() -> None:
    parts = (("train", "a", 30), ("validation", "a", 500), ("train", "b", 10), ("train", "a", 60))
    shards = [{"split": split, "source": source, "documents": 2, "tokens": tokens} for split, source, tokens in parts]
    assert sources_of({"shards": shards}, None) == [Source("a", 4, 90, 0.9), Source("b", 2, 10, 0.1)]
    assert [one.share for one in sources_of({"shards": shards}, {"b": 3.0, "a": 1.0})] == [0.25, 0.75]
