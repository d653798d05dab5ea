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


def launched_world_size() -> int | None:
    """Ranks that a launcher such as torchrun announces; None without one."""
    announced = os.environ.get("WORLD_SIZE")
    return None if announced is None else int(announced)


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


def is_launched_rank_zero() -> bool:
    """True in the one process that speaks for the run, also before the process group exists.

    Lightning starts the other ranks of a node with LOCAL_RANK, torchrun sets RANK and SLURM SLURM_PROCID.
    """
    return not launched_as()


def launched_as() -> list[str]:
    """What tells this process from rank zero, such as ``RANK=3`` and ``LOCAL_RANK=1``; nothing in rank zero."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK")
    return [f"{name}={os.environ[name]}" for name in names if int(os.environ.get(name, "0"))]
