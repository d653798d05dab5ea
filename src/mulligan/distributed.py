"""Rank, world size and collectives that are the identity without a process group."""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Global rank: the process group's, or before there is one the launcher's, or 0."""
    return dist.get_rank() if is_initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return dist.get_world_size() if is_initialized() else 1


def data_parallel(tensor_parallel_size: int) -> tuple[int, int]:
    """Which of how many streams of samples this rank reads: neighbours of tensor parallelism read the same."""
    return rank() // tensor_parallel_size, world_size() // tensor_parallel_size


def to_this_device() -> Callable[[], None]:
    """What a new thread calls first: its device is the first GPU, where it would take memory that is another rank's."""
    return partial(torch.cuda.set_device, torch.cuda.current_device()) if torch.cuda.is_initialized() else lambda: None


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum ``tensor`` over all ranks in place and return it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def patient_group(timeout: timedelta) -> dist.ProcessGroup | None:
    """All ranks, to wait for each other longer than the group does that trains; None without one. All must ask."""
    return dist.new_group(backend="gloo", timeout=timeout) if world_size() > 1 else None


def barrier(group: dist.ProcessGroup | None) -> None:
    if group is not None:
        dist.barrier(group=group)


def gathered(value: T) -> list[T]:
    """Every rank's ``value``, on every rank."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def broadcast(value: T) -> T:
    """Rank zero's ``value`` on every rank."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]
