"""The order of samples: a pure function of (seed, step, global batch, skips) that knows no rank, stores no permutation.

Positions count the samples a run trains on; sample indices count those it was offered. Without skips they are the same
number; a skip removes a half-open range of sample indices. A sample index is sent to a source by the mixture and to a
window by a keyed permutation of each epoch. Every map is O(log skips), whatever the step and the size of the data.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
MIXTURE_PERIOD = 1024  # samples in which the sources' shares are exact
_ROUNDS = 2  # of two half-rounds each: four make a Feistel network a pseudo-random permutation (Luby, Rackoff 1988)
_MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): a bijection of 64-bit words."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def permute(indices: Indices, size: int, keys: NDArray[np.uint64]) -> Indices:
    """Send each index in [0, size) to another by the bijection that its key names.

    A Feistel network over an a x b grid, a = ceil(sqrt(size)) (Black and Rogaway 2002, "Ciphers with arbitrary finite
    domains"); the few cells beyond ``size`` are walked on until they fall inside.
    """
    if size == 1:
        return np.zeros_like(indices)
    rows = np.uint64(int(np.ceil(np.sqrt(size))))
    columns = np.uint64(-(-size // int(rows)))
    out = _permute_grid(indices.astype(np.uint64), rows, columns, keys)
    outside = np.flatnonzero(out >= size)
    while outside.size:
        out[outside] = _permute_grid(out[outside], rows, columns, keys[outside])
        outside = outside[out[outside] >= size]
    return out.astype(np.int64)


def _permute_grid(
    values: NDArray[np.uint64], rows: np.uint64, columns: np.uint64, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    left, right = np.divmod(values, columns)
    for _ in range(_ROUNDS):
        keys = keys + np.uint64(0x9E3779B97F4A7C15)
        left = (left + (_mix(right + keys) >> np.uint64(1))) % rows
        keys = keys + np.uint64(0x9E3779B97F4A7C15)
        right = (right + (_mix(left + keys) >> np.uint64(1))) % columns
    return left * columns + right


class Skips:
    """Half-open ranges of sample indices that are left out, sorted and merged."""

    def __init__(self, ranges: Sequence[tuple[int, int]] = ()) -> None:
        merged: list[list[int]] = []
        for start, stop in sorted(ranges):
            if int(start) != start or int(stop) != stop or not 0 <= start < stop < 2**62:
                raise ValueError(
                    f"skip [{start}, {stop}) must be a half-open range of indices, 0 <= start < stop < 2**62"
                )
            if merged and start <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], stop)
            else:
                merged.append([start, stop])
        bounds = np.array(merged, dtype=np.int64).reshape(-1, 2)
        lengths = bounds[:, 1] - bounds[:, 0]
        self.ranges = [(start, stop) for start, stop in merged]
        self._skipped_through = np.concatenate(([0], np.cumsum(lengths)))
        self._first_position = bounds[:, 0] - self._skipped_through[:-1]  # position that each range pushes up

    def sample_indices(self, positions: Indices) -> Indices:
        """The sample index of each position: the k-th index that no range holds."""
        passed = np.searchsorted(self._first_position, positions, side="right")
        return positions + self._skipped_through[passed]


class Sequencer:
    """Windows of one or several sources, shuffled anew in every epoch and mixed by weight."""

    def __init__(
        self,
        *,
        source_sizes: Sequence[int],
        weights: Sequence[float] | None = None,
        seed: int,
        skips: Sequence[tuple[int, int]] = (),
    ) -> None:
        """``source_sizes`` counts windows; without ``weights`` the sources are one pool, else shares of the samples."""
        if not source_sizes or min(source_sizes) < 1:
            raise ValueError(f"every source needs at least one window, found {list(source_sizes)}")
        self.source_sizes = list(source_sizes)
        self.seed = seed
        self.skips = Skips(skips)
        self._offsets = np.concatenate(([0], np.cumsum(self.source_sizes))).astype(np.int64)
        self._quotas = None if weights is None else _quotas(weights, len(self.source_sizes))

    def sample_indices(self, step: int, global_batch: int) -> Indices:
        """The global batch of ``step``: its sample indices, (global_batch,)."""
        return self.skips.sample_indices(np.arange(step * global_batch, (step + 1) * global_batch, dtype=np.int64))

    def windows(self, sample_indices: Indices) -> Indices:
        """The window of each sample, numbered through all sources in their order."""
        if self._quotas is None:
            return self._shuffled(sample_indices, int(self._offsets[-1]), stream=0)
        ends = np.cumsum(self._quotas)
        block, slot = np.divmod(sample_indices, MIXTURE_PERIOD)
        slot = permute(slot, MIXTURE_PERIOD, self._keys(block, stream=0))
        source = np.searchsorted(ends, slot, side="right")
        within = block * self._quotas[source] + slot - (ends - self._quotas)[source]
        windows = np.empty_like(sample_indices)
        for number, size in enumerate(self.source_sizes):
            mine = source == number
            windows[mine] = self._offsets[number] + self._shuffled(within[mine], size, stream=number + 1)
        return windows

    def _shuffled(self, counters: Indices, size: int, *, stream: int) -> Indices:
        epoch, index = np.divmod(counters, size)
        return permute(index, size, self._keys(epoch, stream=stream))

    def _keys(self, epochs: Indices, *, stream: int) -> NDArray[np.uint64]:
        base = (self.seed * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03) & int(_MASK)
        return _mix(np.uint64(base) + (epochs.astype(np.uint64) + np.uint64(1)) * np.uint64(0xA0761D6478BD642F))


def _quotas(weights: Sequence[float], num_sources: int) -> Indices:
    """Slots of each source in one period, by largest remainder."""
    if len(weights) != num_sources:
        raise ValueError(f"{len(weights)} weights for {num_sources} sources: give one for each")
    if not all(0.0 < weight < np.inf for weight in weights):
        raise ValueError(f"weights {list(weights)} must all be finite and above 0")
    exact = np.array(weights, dtype=np.float64) / sum(weights) * MIXTURE_PERIOD
    quotas = np.floor(exact).astype(np.int64)
    order = np.argsort(quotas - exact, kind="stable")
    quotas[order[: MIXTURE_PERIOD - int(quotas.sum())]] += 1
    if quotas.min() == 0:
        raise ValueError(f"weights {list(weights)}: a share below 1/{MIXTURE_PERIOD} cannot be kept")
    return quotas
