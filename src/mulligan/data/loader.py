"""From the order of samples to the micro-batches of one rank, read ahead by a thread or by worker processes.

Shapes: S samples of a micro-batch, T tokens in a window (sequence_length + 1).
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mulligan.data.sequencer import Indices, Sequencer
from mulligan.data.shards import Shards
from mulligan.data.stopping import heed_sigterm_of_parent_alone
from mulligan.distributed import to_this_device

_TOGETHER_TOKENS = 2**16  # read by the thread at once: handing over costs 100 microseconds
_FOREVER = 2**62


class MicroBatch(NamedTuple):
    """``tokens_ST`` holds inputs and targets; ``global_count`` the counted targets of the whole global batch."""

    tokens_ST: Tensor
    global_count: int


class MicroBatches(Dataset[MicroBatch]):
    """The micro-batches of one rank, by number: ``step * accumulation + micro-step``."""

    def __init__(
        self,
        *,
        shards: Shards,
        sequencer: Sequencer,
        global_batch: int,
        micro_batch: int,
        rank: int,
        world_size: int,
        document_mask: bool,
    ) -> None:
        assert global_batch % (micro_batch * world_size) == 0
        self.shards, self.sequencer, self.document_mask = shards, sequencer, document_mask
        self.global_batch, self.micro_batch = global_batch, micro_batch
        self.rank, self.world_size = rank, world_size
        self.accumulation = global_batch // (micro_batch * world_size)
        self._counted: tuple[Indices, int] = np.zeros(0, np.int64), 0  # the samples counted last, and their targets

    def sample_indices(self, numbers: range) -> np.ndarray:
        """The sample indices of micro-batches in a row, (len(numbers), S)."""
        first, last = numbers[0] // self.accumulation, numbers[-1] // self.accumulation
        samples = self.sequencer.sample_indices(first, self.global_batch, num_steps=last + 1 - first)
        mine = samples.reshape(-1, self.world_size, self.micro_batch)[:, self.rank]
        return mine[numbers[0] - first * self.accumulation :][: len(numbers)]

    def __getitem__(self, number: int) -> MicroBatch:
        return self.read(range(number, number + 1))[0]

    def read(self, numbers: range, *, pin_memory: bool = False) -> list[MicroBatch]:
        """Micro-batches in a row, sought together: parts of one block of memory."""
        windows = self.sequencer.windows(self.sample_indices(numbers).ravel())
        tokens = torch.empty((len(windows), self.shards.sequence_length + 1), dtype=torch.int64, pin_memory=pin_memory)
        self.shards.read(windows, tokens.numpy())
        steps = [number // self.accumulation for number in numbers]
        counts = {step: self._global_count(step) for step in range(steps[0], steps[-1] + 1)}
        return [
            MicroBatch(tokens_ST, counts[step])
            for tokens_ST, step in zip(tokens.split(self.micro_batch), steps, strict=True)
        ]

    def _global_count(self, step: int) -> int:
        total = self.global_batch * self.shards.sequence_length
        if not self.document_mask:
            return total
        samples = self.sequencer.sample_indices(step, self.global_batch)
        if not np.array_equal(samples, self._counted[0]):  # not the step: a skip gives it other samples
            boundaries = self.shards.count_boundaries(self.sequencer.windows(samples))
            self._counted = samples, total - boundaries
        return self._counted[1]


class Loader:
    """Endless micro-batches from a step on. Its whole state is that step, asked for when an iteration begins."""

    def __init__(
        self,
        micro_batches: MicroBatches,
        *,
        next_step: Callable[[], int],
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.micro_batches, self.next_step = micro_batches, next_step
        self.num_workers, self.pin_memory = num_workers, pin_memory

    def __iter__(self) -> Iterator[MicroBatch]:
        first = self.next_step() * self.micro_batches.accumulation
        if self.num_workers == 0:
            return self._read_ahead(first)
        return iter(
            DataLoader(
                self.micro_batches,
                sampler=range(first, _FOREVER),
                batch_size=None,
                num_workers=self.num_workers,
                pin_memory=self.pin_memory,
                worker_init_fn=heed_sigterm_of_parent_alone,
            )
        )

    def _read_ahead(self, first: int) -> Iterator[MicroBatch]:
        # One thread is enough: reading rows of memory-mapped shards is 30 times faster than a worker process's pipe.
        batches = self.micro_batches
        together = max(1, _TOGETHER_TOKENS // (batches.micro_batch * batches.shards.sequence_length))
        read = partial(batches.read, pin_memory=self.pin_memory)
        with ThreadPoolExecutor(1, thread_name_prefix="loader", initializer=to_this_device()) as thread:
            stretches = (range(start, start + together) for start in count(first, together))
            ahead = deque(thread.submit(read, next(stretches)) for _ in range(2))
            while True:
                ahead.append(thread.submit(read, next(stretches)))
                yield from ahead.popleft().result()
