"""Any world size, micro-batch and kind of worker reads the same global batches; errors and ends reach the consumer."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from mulligan.data.loader import Loader, MicroBatch, MicroBatches
from mulligan.data.sequencer import Sequencer
from mulligan.data.shards import Shards

GLOBAL_BATCH = 8
SPLITS = [(world, micro) for world in (1, 2, 4) for micro in (1, 2, 4, 8) if world * micro <= GLOBAL_BATCH]


@pytest.fixture(scope="module")
def shards(write_shards: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Shards:
    random = Random(0)
    documents = [[1, *random.choices(range(3, 60000), k=random.randint(1, 40)), 2] for _ in range(60)]
    folder = write_shards(
        tmp_path_factory.mktemp("shards"), [("train", "web", documents[:40]), ("train", "web", documents[40:])]
    )
    return Shards(folder, "train", 16)


def micro_batches(
    shards: Shards, world: int = 1, micro: int = 4, rank: int = 0, mask: bool = True, kind: type = MicroBatches
) -> MicroBatches:
    return kind(
        shards=shards,
        sequencer=Sequencer(source_sizes=list(shards.windows_by_source().values()), seed=0, skips=[(20, 37)]),
        global_batch=GLOBAL_BATCH,
        micro_batch=micro,
        rank=rank,
        world_size=world,
        document_mask=mask,
    )


def of_step(shards: Shards, step: int, world: int, micro: int, mask: bool = True) -> list[MicroBatch]:
    """What all ranks read in all micro-steps of one step."""
    ranks = [micro_batches(shards, world, micro, rank, mask) for rank in range(world)]
    return [part[step * part.accumulation + number] for part in ranks for number in range(part.accumulation)]


def take(loader: Loader, number: int) -> list[MicroBatch]:
    return list(islice(loader, number))


def same(left: list[MicroBatch], right: list[MicroBatch]) -> bool:
    return all(
        torch.equal(a.tokens_ST, b.tokens_ST) and a.global_count == b.global_count
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(("world", "micro"), SPLITS)
def test_the_order_knows_no_ranks(shards: Shards, world: int, micro: int) -> None:
    for step in (0, 2, 11):
        sequencer = micro_batches(shards).sequencer
        expected = np.empty((GLOBAL_BATCH, 17), dtype=np.int64)
        shards.read(sequencer.windows(sequencer.sample_indices(step, GLOBAL_BATCH)), expected)
        parts = of_step(shards, step, world, micro)
        assert {part.tokens_ST.shape for part in parts} == {(micro, 17)}
        rows = torch.cat([part.tokens_ST for part in parts]).tolist()
        assert sorted(rows) == sorted(expected.tolist())


def test_ranks_take_their_turns_in_every_micro_step(shards: Shards) -> None:
    """So all ranks hold together what one would whose micro-batch is as large as all of theirs."""
    second = micro_batches(shards, world=2, micro=2, rank=1)
    assert second.sample_indices(range(3)).tolist() == [[2, 3], [6, 7], [10, 11]]


@pytest.mark.parametrize(("world", "micro"), SPLITS)
def test_the_count_is_that_of_all_ranks(shards: Shards, world: int, micro: int) -> None:
    for step in range(6):
        parts = of_step(shards, step, world, micro)
        counted = sum(int((part.tokens_ST[:, 1:] != 1).sum()) for part in parts)
        assert {part.global_count for part in parts} == {counted}
        assert counted < GLOBAL_BATCH * 16
        assert {part.global_count for part in of_step(shards, step, world, micro, mask=False)} == {GLOBAL_BATCH * 16}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_step_is_counted_once_a_process(shards: Shards, num_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = multiprocessing.Value("i", 0)
    count_boundaries = shards.count_boundaries

    def counting(windows_S: np.ndarray) -> int:
        with counted:
            counted.value += 1
        return count_boundaries(windows_S)

    monkeypatch.setattr("mulligan.data.loader._TOGETHER_TOKENS", 1)
    monkeypatch.setattr(shards, "count_boundaries", counting)
    parts = micro_batches(shards, micro=1)
    seen = take(Loader(parts, next_step=lambda: 0, num_workers=num_workers), 4 * GLOBAL_BATCH)
    assert counted.value <= 6 * max(1, num_workers)  # four steps, and what is read ahead
    monkeypatch.undo()
    assert [part.global_count for part in seen[::GLOBAL_BATCH]] == [
        micro_batches(shards)[2 * step].global_count for step in range(4)
    ]


def test_a_skip_changes_the_count_of_a_step(shards: Shards) -> None:
    parts, fresh = micro_batches(shards), micro_batches(shards)
    before = parts[2].global_count
    for one in (parts, fresh):
        one.sequencer.leave_out([(4, 37)])
    assert parts[2].global_count == fresh[2].global_count != before


def test_skipped_samples_are_never_offered(shards: Shards) -> None:
    parts = micro_batches(shards)
    offered = np.concatenate([parts.sample_indices(range(number, number + 1)) for number in range(10)]).ravel()
    assert offered.tolist() == parts.sample_indices(range(10)).ravel().tolist()
    assert offered.tolist() == [*range(20), *range(37, 57)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_seeking_to_a_step_equals_iterating_there(shards: Shards, num_workers: int) -> None:
    parts = micro_batches(shards, world=2, micro=2, rank=1)
    through = take(Loader(parts, next_step=lambda: 0, num_workers=num_workers), 14)
    sought = take(Loader(parts, next_step=lambda: 5, num_workers=num_workers), 4)
    assert same(through[10:], sought)


def test_the_step_is_asked_for_when_an_iteration_begins(shards: Shards) -> None:
    step = 3
    loader = Loader(micro_batches(shards), next_step=lambda: step)
    assert same(take(loader, 1), [loader.micro_batches[6]])
    step = 1
    assert same(take(loader, 1), [loader.micro_batches[2]])


def test_a_thread_and_worker_processes_give_the_same_batches(shards: Shards) -> None:
    parts = micro_batches(shards)
    thread, processes = (take(Loader(parts, next_step=lambda: 2, num_workers=count), 9) for count in (0, 2))
    assert same(thread, processes)
    assert same(thread, [parts[number] for number in range(4, 13)])


class Torn(MicroBatches):
    """Reads well until its third micro-batch."""

    def read(self, numbers: range, *, pin_memory: bool = False) -> list[MicroBatch]:
        if 2 in numbers:
            raise OSError("the disk is gone")
        return super().read(numbers, pin_memory=pin_memory)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_in_reading_reaches_the_consumer_in_its_turn(
    shards: Shards, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mulligan.data.loader._TOGETHER_TOKENS", 1)
    torn = micro_batches(shards, kind=Torn)
    batches = iter(Loader(torn, next_step=lambda: 0, num_workers=num_workers))
    next(batches)
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert loader_threads() == []
    for worker in multiprocessing.active_children():  # torch 2.13 would wait 5 s for each worker after an error
        worker.terminate()


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize("together", [1, 3, 50])
@pytest.mark.parametrize("mask", [False, True])
def test_micro_batches_read_together_are_those_read_alone(shards: Shards, together: int, mask: bool) -> None:
    parts = micro_batches(shards, mask=mask)
    assert same(parts.read(range(5, 5 + together)), [parts[number] for number in range(5, 5 + together)])


def test_closing_the_iterator_leaves_no_thread(shards: Shards) -> None:
    batches: Iterator[MicroBatch] = iter(Loader(micro_batches(shards), next_step=lambda: 0))
    next(batches)
    assert len(loader_threads()) == 1
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert loader_threads() == []
