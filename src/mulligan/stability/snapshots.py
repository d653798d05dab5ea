"""Copies of the training state in host memory: the first source of a rewind. Each rank keeps its own part."""

import math
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mulligan.stability.host_copies import HostCopies

GIGABYTE = 1e9


@dataclass
class Snapshot:
    step: int
    tensors: dict[str, Tensor]
    extra: dict[str, Any]  # what is no tensor on the device: the detector's state, say
    copied: "torch.cuda.Event | None" = None  # when the device has copied it; None: it has
    is_lent: bool = False  # to whoever writes a checkpoint from it, and sets this back: until then it stays as it is


class Snapshots:
    """A ring of the last ``keep`` states, taken every ``every_n_steps``, in buffers that are made once and used again;
    ``wait`` holds the optimizer back until the last one is copied.
    """

    def __init__(self, *, every_n_steps: int = 50, keep: int = 4, max_gigabytes: float = 64.0) -> None:
        """``max_gigabytes`` bounds the host memory of one rank's ring, in 10**9 bytes."""
        if every_n_steps < 1:
            raise ValueError(f"stability.snapshots.every_n_steps={every_n_steps} must be at least 1")
        if keep < 0:
            raise ValueError(f"stability.snapshots.keep={keep} must not be negative; 0 rewinds to checkpoints only")
        if not 0.0 < max_gigabytes < math.inf:
            raise ValueError(f"stability.snapshots.max_gigabytes={max_gigabytes} must be a number above 0")
        self.every_n_steps, self.keep, self.max_gigabytes = every_n_steps, keep, max_gigabytes
        self._ring: list[Snapshot] = []
        self._spare: list[Snapshot] = []  # whose buffers are free, or will be when they are given back
        self._copies = HostCopies()

    @property
    def steps(self) -> list[int]:
        return [snapshot.step for snapshot in self._ring]

    def check_budget(self, num_bytes: float, ranks_of_host: int | None = None) -> float:
        """Gigabytes that a full ring of states of ``num_bytes`` takes; ValueError when they are more than allowed, or
        those of so many ranks more than this machine's memory.
        """
        one = num_bytes / GIGABYTE
        if one * self.keep > self.max_gigabytes:
            raise ValueError(
                f"stability.snapshots.keep={self.keep} states of {one:.2f} GB are more than stability.snapshots."
                f"max_gigabytes={self.max_gigabytes}: keep {int(self.max_gigabytes / one)} of them, or allow more"
            )
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIGABYTE
        if ranks_of_host is not None and one * self.keep * ranks_of_host > host:
            raise ValueError(
                f"stability.snapshots.keep={self.keep} states of {one:.2f} GB on each of {ranks_of_host} ranks are "
                f"more than this machine's memory, {host:.1f} GB: keep {int(host / ranks_of_host / one)} of them"
            )
        return one * self.keep

    def take(self, step: int, tensors: dict[str, Tensor], extra: dict[str, Any]) -> None:
        """Copy ``tensors``; they may be changed after the next ``wait``."""
        if not self.keep:
            return
        if len(self._ring) == self.keep:
            self._spare.append(self._ring.pop(0))
        free = next((number for number, spare in enumerate(self._spare) if not spare.is_lent), None)
        buffers = {} if free is None else self._spare.pop(free).tensors
        self._copies.take(tensors, buffers)
        kept = {name: buffers[name] for name in tensors}  # a spare one may hold more
        self._ring.append(Snapshot(step, kept, extra, self._copies.copied))

    def wait(self) -> None:
        """Order what follows on the device behind the last copies; the host does not wait."""
        self._copies.wait()

    def newest(self, latest_step: int) -> Snapshot | None:
        """The newest state at or before ``latest_step``."""
        return next((snapshot for snapshot in reversed(self._ring) if snapshot.step <= latest_step), None)

    def restore(self, snapshot: Snapshot, tensors: dict[str, Tensor]) -> None:
        """Copy a state back into ``tensors``, and forget those after it: their lineage is given up."""
        self.wait()
        for name, tensor in tensors.items():
            tensor.copy_(snapshot.tensors[name], non_blocking=True)
        self.forget_after(snapshot.step)

    def forget_after(self, step: int) -> None:
        while self._ring and self._ring[-1].step > step:
            self._spare.append(self._ring.pop())
