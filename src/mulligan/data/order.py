"""The order in which a run sees the windows of its shards."""

from collections.abc import Sequence

from mulligan.data.sequencer import Sequencer
from mulligan.data.shards import Shards


def order_of(
    shards: Shards, *, weights: dict[str, float] | None, seed: int, skips: Sequence[tuple[int, int]]
) -> Sequencer:
    """``weights`` are the sources' shares of the samples; without them the sources are one pool."""
    sizes = shards.windows_by_source()
    if weights is None:
        return Sequencer(source_sizes=[sum(sizes.values())], seed=seed, skips=skips)
    if set(weights) != set(sizes):
        raise ValueError(f"data.weights names {sorted(weights)}, but only {sorted(sizes)} have training documents")
    for name, count in sizes.items():
        if not count:
            raise ValueError(
                f"data.sources.{name} has no shard as long as sequence_length={shards.sequence_length} and can have "
                f"no share: make it shorter, or leave the source out"
            )
    return Sequencer(
        source_sizes=list(sizes.values()), weights=[weights[name] for name in sizes], seed=seed, skips=skips
    )
