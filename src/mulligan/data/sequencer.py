"""The order of samples: a pure function of (seed, step, global batch, skips) that knows no rank, stores no permutation.

Positions count the samples a run trains on; sample indices count those it was offered. Without skips they are the same
number; a skip removes a half-open range of sample indices. A sample index is sent to a source by the mixture and to a
window by a keyed permutation of each epoch. Every map is O(log skips), whatever the step and the size of the data.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Words = NDArray[np.uint64]
MIXTURE_PERIOD = 1024  # samples in which the sources' shares are exact
# Four half-rounds make a Feistel network a pseudo-random permutation (Luby and Rackoff 1988).
_HALF_ROUNDS = np.arange(4, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
# Arrays without a dimension: numpy takes 0.25 us longer over its scalars in every call.
_FIRST_FACTOR = np.array(0xBF58476D1CE4E5B9, dtype=np.uint64)
_SECOND_FACTOR = np.array(0x94D049BB133111EB, dtype=np.uint64)
_EPOCH_FACTOR = np.array(0xA0761D6478BD642F, dtype=np.uint64)
_STREAM_FACTOR, _SEED_FACTOR = 0xD1B54A32D192ED03, 0x9E3779B97F4A7C15
_HALF_WORD, _LOW_BITS = np.array(32, dtype=np.uint64), np.array(24, dtype=np.uint64)
_ENDS = np.array([0, -1])
_PERIOD_BITS, _PERIOD_MASK = np.array(MIXTURE_PERIOD.bit_length() - 1), np.array(MIXTURE_PERIOD - 1)


class Domain(NamedTuple):
    """What ``permute`` permutes: ``size`` indices on a grid of ``rows`` x ``columns``, with ``stream`` naming the keys.

    Scalars for one source, arrays of one entry a sample for several.
    """

    size: Words
    rows: Words
    columns: Words
    stream: Words


def domains(sizes: Sequence[int], *, seed: int) -> Domain:
    """The grids of sources of ``sizes`` windows, as near to squares as they come."""
    rows = [isqrt(size - 1) + 1 for size in sizes]
    columns = [-(-size // row) for size, row in zip(sizes, rows, strict=True)]
    streams = [(seed * _SEED_FACTOR + number * _STREAM_FACTOR) % 2**64 for number in range(len(sizes))]
    return Domain(*(np.array(numbers, dtype=np.uint64) for numbers in (sizes, rows, columns, streams)))


def shuffled(counters: Indices, domain: Domain) -> Indices:
    """Send counter ``epoch * size + index`` to another index in [0, size) by the bijection that the epoch names.

    A Feistel network over a grid (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"); the few cells
    beyond ``size`` are walked on until they fall inside. Every call of numpy costs half a microsecond here, so there
    are as few as will do.
    """
    words = counters.view(np.uint64)
    if domain.size.ndim == 0 and (epoch := _common_epoch(counters, domain.size.item())) is not None:
        indices = words - np.array(epoch * domain.size.item(), dtype=np.uint64)
        round_keys = _round_keys_of(epoch, domain.stream.item())
    else:
        epochs = words // domain.size
        indices = words - epochs * domain.size
        round_keys = list(_round_keys(epochs, domain.stream))
    out = _permuted(indices, domain, round_keys)
    while np.count_nonzero(outside := out >= domain.size):
        out = np.where(outside, _permuted(out, domain, round_keys), out)
    return out.view(np.int64)


def _common_epoch(counters: Indices, size: int) -> int | None:
    """Of ascending counters of one source."""
    first, last = counters.item(0) // size, counters.item(-1) // size
    return first if first == last else None


@lru_cache(maxsize=128)
def _round_keys_of(epoch: int, stream: int) -> list[Words]:
    """Of one epoch, each without a dimension."""
    keys = _round_keys(np.array([epoch], dtype=np.uint64), np.array(stream, dtype=np.uint64))
    return [key[0, ...] for key in keys]


def _round_keys(epochs: Words, streams: Words) -> Words:
    return _HALF_ROUNDS + _mixed(epochs * _EPOCH_FACTOR + streams)


def _permuted(values: Words, domain: Domain, round_keys: list[Words]) -> Words:
    left = values // domain.columns
    right = values - left * domain.columns
    for even, odd in (round_keys[:2], round_keys[2:]):
        left = _half_round(left, right, even, domain.rows)
        right = _half_round(right, left, odd, domain.columns)
    left *= domain.columns
    left += right
    return left


def _half_round(target: Words, other: Words, key: Words, modulus: Words) -> Words:
    """``target`` plus a keyed hash of ``other``."""
    mixed = _mixed(other + key)
    mixed >>= _LOW_BITS  # mixed least; and the sum stays below 2**64
    mixed += target
    mixed %= modulus
    return mixed


def _mixed(words: Words) -> Words:
    """A bijection of 64-bit words, in place, whose high bits depend on all of the word's."""
    words *= _FIRST_FACTOR
    words ^= words >> _HALF_WORD
    words *= _SECOND_FACTOR
    return words


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
        """The sample index of each of ascending positions: the k-th index that no range holds."""
        first, last = self._first_position.searchsorted(positions.take(_ENDS), side="right")
        if first == last:  # no range begins among them
            return positions + self._skipped_through[first]
        passed = self._first_position[first:last].searchsorted(positions, side="right")
        return positions + self._skipped_through[first:].take(passed)


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
        self._mixture = None if weights is None else Mixture(self.source_sizes, weights, seed=seed)
        self._pool = Domain(*(numbers[0, ...] for numbers in domains([sum(source_sizes)], seed=seed)))

    def leave_out(self, skips: Sequence[tuple[int, int]]) -> None:
        """Replace the skips; where they begin after a step's samples, that step and those before keep theirs."""
        self.skips = Skips(skips)

    def first_sample(self, step: int, global_batch: int) -> int:
        """The sample index that ``step`` begins with."""
        return int(self.skips.sample_indices(np.array([step * global_batch]))[0])

    def sample_indices(self, step: int, global_batch: int, num_steps: int = 1) -> Indices:
        """The global batches of ``step`` and those behind it: their sample indices, (num_steps * global_batch,)."""
        positions = np.arange(step * global_batch, (step + num_steps) * global_batch, dtype=np.int64)
        return self.skips.sample_indices(positions)

    def windows(self, sample_indices: Indices) -> Indices:
        """The window of each of ascending ``sample_indices``, numbered through all sources in their order."""
        if self._mixture is None:
            return shuffled(sample_indices, self._pool)
        return self._mixture.windows(sample_indices)


class Mixture:
    """Sources by weight: a pattern of ``MIXTURE_PERIOD`` slots, the same in every period, says whose turn it is."""

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], *, seed: int) -> None:
        quotas = _quotas(weights, len(sizes))
        scattered = shuffled(np.arange(MIXTURE_PERIOD), Domain(*(n[0] for n in domains([MIXTURE_PERIOD], seed=seed))))
        source = np.repeat(np.arange(len(sizes)), quotas)[scattered]
        turn = np.empty_like(source)  # which of its source's slots each slot is
        for number, quota in enumerate(quotas):
            turn[source == number] = np.arange(quota)
        first_window = np.concatenate(([0], np.cumsum(sizes)))[source]
        domains_of = np.stack(domains(sizes, seed=seed + 1))[:, source].view(np.int64)
        self._of_slot = np.stack((quotas[source], turn, first_window, *domains_of))  # one look-up for all

    def windows(self, sample_indices: Indices) -> Indices:
        period, slot = sample_indices >> _PERIOD_BITS, sample_indices & _PERIOD_MASK  # as divmod, in no time
        quota, turn, first_window, *domain = self._of_slot.take(slot, axis=1)
        return first_window + shuffled(period * quota + turn, Domain(*(row.view(np.uint64) for row in domain)))


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
