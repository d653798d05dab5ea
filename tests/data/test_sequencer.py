"""The order of samples: epochs are permutations, mixtures exact, skips left out, and any step is reached at once."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulligan.data.sequencer import MIXTURE_PERIOD, Sequencer, Skips

SIZES = [1, 2, 3, 4, 5, 7, 16, 97, 100, 1009, 4096, 4097]
MIXTURE = {"source_sizes": [5, 97, 3000], "weights": [1.0, 2.0, 5.0]}


def epoch(sequencer: Sequencer, number: int, size: int) -> list[int]:
    return sequencer.windows(np.arange(number * size, (number + 1) * size)).tolist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2**40, -3])
def test_each_epoch_is_a_permutation(size: int, seed: int) -> None:
    sequencer = Sequencer(source_sizes=[size], seed=seed)
    for number in (0, 1, 2, 10**6):
        assert sorted(epoch(sequencer, number, size)) == list(range(size))


def test_several_sources_without_weights_are_one_pool() -> None:
    several, one = (Sequencer(source_sizes=sizes, seed=5) for sizes in ([3, 40, 7], [50]))
    assert epoch(several, 1, 50) == epoch(one, 1, 50)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    orders = [epoch(Sequencer(source_sizes=[100], seed=seed), number, 100) for seed in range(4) for number in range(4)]
    assert len({tuple(order) for order in orders}) == 16
    assert orders[5] == epoch(Sequencer(source_sizes=[100], seed=1), 1, 100)


def test_the_order_stays_from_version_to_version() -> None:
    """Runs that were begun with an earlier version go on: a changed order would give them other data."""
    plain = Sequencer(source_sizes=[10**6], seed=7, skips=[(2, 10**9)])
    mixed = Sequencer(source_sizes=[10**6, 50], weights=[3.0, 1.0], seed=-7)
    assert plain.windows(plain.sample_indices(0, 5)).tolist() == [308270, 465833, 85694, 1985, 851846]
    assert mixed.windows(mixed.sample_indices(10**6, 5)).tolist() == [214016, 29688, 121932, 1000020, 572268]


def test_neighbours_are_scattered() -> None:
    order = np.array(epoch(Sequencer(source_sizes=[10007], seed=0), 0, 10007))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05  # 5 deviations of a random order
    assert abs(np.corrcoef(order, np.arange(10007))[0, 1]) < 0.05


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_window_stands_everywhere_equally_often(size: int) -> None:
    sequencer = Sequencer(source_sizes=[size], seed=0)
    first = sequencer.windows(np.arange(0, 3000 * size, size))
    assert np.bincount(first, minlength=size).min() > 3000 / size - 5 * np.sqrt(3000 / size)


@given(
    ranges=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=8),
    positions=st.lists(st.integers(0, 80), min_size=1, max_size=20),
)
def test_a_position_is_the_kth_index_that_no_range_holds(ranges: list[tuple[int, int]], positions: list[int]) -> None:
    skips = [(start, start + length) for start, length in ranges]
    left = [index for index in range(300) if not any(start <= index < stop for start, stop in skips)]
    positions.sort()
    assert Skips(skips).sample_indices(np.array(positions)).tolist() == [left[position] for position in positions]


def test_ranges_that_touch_or_overlap_are_merged() -> None:
    assert Skips([(8, 12), (0, 3), (20, 30), (3, 5), (22, 25), (10, 14)]).ranges == [(0, 5), (8, 14), (20, 30)]


@pytest.mark.parametrize("bad", [(5, 5), (5, 3), (-1, 2)])
def test_a_range_that_is_none_is_refused(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"skip \[{bad[0]}, {bad[1]}\) must be a half-open range"):
        Sequencer(source_sizes=[9], seed=0, skips=[(0, 2), bad])


def test_skips_leave_the_order_of_the_rest_alone() -> None:
    skips = [(10, 20), (64, 100)]
    whole, cut = (Sequencer(source_sizes=[77], seed=3, skips=ranges) for ranges in ((), skips))
    expected = np.delete(whole.windows(whole.sample_indices(0, 300)), np.r_[10:20, 64:100])
    assert cut.windows(cut.sample_indices(0, 254)).tolist() == expected.tolist()


@pytest.mark.parametrize("skips", [[], [(3, 50), (1000, 1100)]])
@pytest.mark.parametrize("options", [{"source_sizes": [301]}, MIXTURE])
def test_a_batch_alone_is_the_slice_of_the_whole(options: dict, skips: list[tuple[int, int]]) -> None:
    sequencer = Sequencer(**options, seed=4, skips=skips)
    whole = sequencer.windows(sequencer.sample_indices(0, 48 * 60))
    for step in (0, 1, 21, 22, 59):
        alone = sequencer.windows(sequencer.sample_indices(step, 48))
        assert alone.tolist() == whole[step * 48 : (step + 1) * 48].tolist()


@pytest.mark.parametrize(
    ("weights", "quotas"),
    [([1.0, 2.0, 5.0], [128, 256, 640]), ([1.0, 1.0, 1.0], [342, 341, 341]), ([0.8, 1000.0, 400.0], [1, 731, 292])],
)
def test_shares_are_exact_in_every_period(weights: list[float], quotas: list[int]) -> None:
    sequencer = Sequencer(source_sizes=[5, 97, 3000], weights=weights, seed=0)
    for period in (0, 1, 7, 10**9):
        windows = sequencer.windows(np.arange(period * MIXTURE_PERIOD, (period + 1) * MIXTURE_PERIOD))
        assert np.histogram(windows, bins=[0, 5, 102, 3102])[0].tolist() == quotas


def test_every_source_of_a_mixture_goes_through_its_epochs() -> None:
    """After each period no window of a source was drawn twice more than another: each epoch is a permutation."""
    sequencer = Sequencer(**MIXTURE, seed=0)
    drawn = np.zeros(3102, dtype=np.int64)
    for period in range(12):
        windows = sequencer.windows(np.arange(period * MIXTURE_PERIOD, (period + 1) * MIXTURE_PERIOD))
        drawn += np.bincount(windows, minlength=len(drawn))
        for of_source in np.split(drawn, [5, 102]):
            assert of_source.max() - of_source.min() <= 1


def test_a_trillion_windows_cost_no_memory() -> None:
    tracemalloc.start()
    sequencer = Sequencer(source_sizes=[10**12, 10**12], weights=[1, 3], seed=0, skips=[(10**9, 10**10)])
    windows = sequencer.windows(sequencer.sample_indices(2 * 10**9, 1024))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(windows.tolist())) == 1024
    assert 0 <= windows.min() < 10**12 <= windows.max() < 2 * 10**12
    assert peak < 2**20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_sizes": []}, "at least one window"),
        ({"source_sizes": [4, 0]}, r"at least one window, found \[4, 0\]"),
        ({"source_sizes": [4, 4], "weights": [1.0]}, "1 weights for 2 sources"),
        ({"source_sizes": [4, 4], "weights": [1.0, 0.0]}, "must all be finite and above 0"),
        ({"source_sizes": [4, 4], "weights": [1.0, 1e-4]}, f"a share below 1/{MIXTURE_PERIOD} cannot be kept"),
    ],
)
def test_sizes_and_weights_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sequencer(**options, seed=0)
