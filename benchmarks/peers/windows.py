"""Windows of the token file for the peers, in a shuffled order. No mulligan here.

Shapes: B samples of a micro-batch, T positions.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.peers.shapes import Work

NUM_TOKENS = 2**22


def write_tokens(path: Path, vocab_size: int) -> None:
    """Token ids after Zipf's law: id n has a share in proportion to 1 / (n + 1)."""
    shares = 1.0 / np.arange(1, vocab_size + 1)
    random = np.random.default_rng(0)
    tokens = np.searchsorted(np.cumsum(shares / shares.sum()), random.random(NUM_TOKENS))
    np.save(path, np.minimum(tokens, vocab_size - 1).astype(np.uint16 if vocab_size <= 2**16 else np.uint32))


class Windows(Dataset[Tensor]):
    """``span`` tokens each, every ``length`` tokens of the memory-mapped file."""

    def __init__(self, work: Work, span: int) -> None:
        self.tokens = np.load(work.tokens_path, mmap_mode="r")
        self.length, self.span = work.of_shape.length, span

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.length

    def __getitem__(self, number: int) -> Tensor:
        start = number * self.length
        return torch.from_numpy(self.tokens[start : start + self.span].astype(np.int64))


def endless_batches(work: Work) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (B, T) each, as a bare loop reads them: random windows, sent without waiting."""
    windows = Windows(work, work.of_shape.length + 1)
    generator = torch.Generator().manual_seed(0)
    while True:
        numbers = torch.randint(len(windows), (work.of_shape.micro_batch,), generator=generator)
        batch = torch.stack([windows[int(number)] for number in numbers])
        if work.device == "cuda":
            batch = batch.pin_memory().to("cuda", non_blocking=True)
        yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
