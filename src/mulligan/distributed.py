"""Rank, world size and collectives that are the identity without a process group."""

import os
from typing import TypeVar

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


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum ``tensor`` over all ranks in place and return it."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast(value: T) -> T:
    """Rank zero's ``value`` on every rank."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]
