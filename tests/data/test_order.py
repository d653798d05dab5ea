"""The order of a run over its shards: one pool or shares, and what is wrong with the shares."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mulligan.data.order import order_of
from mulligan.data.sequencer import Sequencer


def shards(**sizes: int) -> Any:
    """What order_of reads of Shards."""
    return SimpleNamespace(windows_by_source=lambda: sizes, sequence_length=32)


@pytest.mark.parametrize(
    ("weights", "sources"),
    [
        (None, {"source_sizes": [70]}),
        ({"code": 3.0, "prose": 1.0}, {"source_sizes": [50, 20], "weights": [1.0, 3.0]}),
    ],
)
def test_sources_are_a_pool_or_have_shares_by_name(weights: dict[str, float] | None, sources: dict[str, Any]) -> None:
    order = order_of(shards(prose=50, code=20), weights=weights, seed=3, skips=[(4, 9)])
    wanted = Sequencer(**sources, seed=3, skips=[(4, 9)])
    samples = order.sample_indices(1, 3, num_steps=25)  # more than there are windows
    assert samples.tolist() == [3, *range(9, 83)]
    assert np.array_equal(order.windows(samples), wanted.windows(samples))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"code": 9}, r"data\.weights names \['code', 'prose'\], but only \['code'\] have training documents"),
        ({"code": 9, "prose": 0}, r"data\.sources\.prose has no shard as long as sequence_length=32"),
    ],
)
def test_a_share_without_windows_is_named(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        order_of(shards(**sizes), weights={"code": 1.0, "prose": 1.0}, seed=0, skips=[])
