"""Which samples each attempt was made on, and what of the data a run has eaten."""

from typing import Any, NamedTuple

import numpy as np

from mulligan.data.sequencer import Indices, Skips
from mulligan.stability.ledger import Ledger


class Source(NamedTuple):
    """Of the training split. ``share`` is of all samples that the run draws."""

    name: str
    documents: int
    tokens: int
    share: float


def first_samples(ledger: Ledger, num_attempts: int, global_batch: int) -> Indices:
    """The sample that the global batch of each attempt begins with, (num_attempts,)."""
    firsts = np.empty(num_attempts, dtype=np.int64)
    start, step = 0, 0
    ends = [entry for entry in ledger.entries if "target" in entry]
    for number, entry in enumerate([*ends, None]):
        stop = num_attempts if entry is None else min(entry["attempt"], num_attempts)
        lines = 0 if number == 0 else ends[number - 1]["number"] + 1
        if start < stop:
            steps = np.arange(step, step + stop - start, dtype=np.int64)
            firsts[start:stop] = Skips(ledger.before(lines).skips).sample_indices(steps * global_batch)
            start = stop
        step = 0 if entry is None else entry["target"]
    return firsts


def sources_of(manifest: dict[str, Any], weights: dict[str, float] | None) -> list[Source]:
    """The sources in the manifest of prepared data; without ``weights`` their shares are those of their tokens."""
    counts: dict[str, list[int]] = {}
    for shard in manifest["shards"]:
        if shard["split"] == "train":
            count = counts.setdefault(shard["source"], [0, 0])
            count[0] += shard["documents"]
            count[1] += shard["tokens"]
    parts = {name: float(tokens) for name, (_, tokens) in counts.items()} if weights is None else weights
    return [
        Source(name, documents, tokens, parts.get(name, 0.0) / sum(parts.values()))
        for name, (documents, tokens) in counts.items()
    ]
