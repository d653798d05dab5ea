"""Checkpoints in parts: a folder with one safetensors file a rank, which holds that rank's part of each sharded tensor.

torch.distributed.checkpoint reads them back onto any number of ranks: each file's header says where its parts belong.
(What it writes by default ends in a pickle, and its collectives in a thread could wait for ever for a rank that died.)
"""

import json
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader

from mulligan.files import HashingWriter, read_json, write_hashed, write_json
from mulligan.model.parts import local
from mulligan.safetensors_file import write_safetensors

Files = dict[str, dict[str, Any]]  # sha256 and num_bytes, by name
POLL_SECONDS = 0.05


class Part(NamedTuple):
    tensor: Tensor  # this rank's, in host memory
    offsets: list[int]  # of its first entry in the whole


def written(path: Path, write: Callable[[HashingWriter], None]) -> dict[str, Any]:
    """Write ``path``, and return what the description says of it."""
    return {"sha256": write_hashed(path, write), "num_bytes": path.stat().st_size}


def write_parts(folder: Path, rank: int, parts: dict[str, Part]) -> Files:
    """Write this rank's file. Ranks above zero leave word of it, or of what went wrong, for ``collect``."""
    name = f"rank_{rank:05d}.safetensors"
    filled = {key: part for key, part in parts.items() if part.tensor.numel()}
    metadata = {"DCP_SHARDING_INFO": json.dumps({key: {"saved_offsets": filled[key].offsets} for key in filled})}
    tensors = {key: part.tensor for key, part in filled.items()}
    try:
        files = {name: written(folder / name, partial(write_safetensors, tensors=tensors, metadata=metadata))}
        if rank:
            write_json(_word_of(folder, rank), {"files": files})
    except Exception as error:
        if rank:
            told = {"errno": getattr(error, "errno", None), "error": getattr(error, "strerror", None) or repr(error)}
            with suppress(OSError):
                write_json(_word_of(folder, rank), told)
        raise
    return files


def collect(folder: Path, num_ranks: int, until: Callable[[float], float]) -> Files:
    """The files of the ranks above zero, when all are on disk. It sees them on the folder that all ranks share, for it
    runs beside training, where no collective may. ``until`` says to what ``time.monotonic`` to wait where nothing was
    written since another.
    """
    files: Files = {}
    size, since = 0, time.monotonic()
    for rank in range(1, num_ranks):
        word = _word_of(folder, rank)
        while not word.is_file():
            if (by_now := _num_bytes(folder)) != size:
                size, since = by_now, time.monotonic()
            if time.monotonic() > until(since):
                raise ValueError(f"{folder}: rank {rank} has not written its part, or not where rank 0 sees it")
            time.sleep(POLL_SECONDS)
        told = read_json(word)
        if "error" in told:
            if told["errno"] is None:
                raise ValueError(f"{folder}: rank {rank} could not write its part: {told['error']}")
            raise OSError(told["errno"], told["error"])
        files |= told["files"]
        word.unlink()
    return files


def read_into(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill ``tensors``, whole ones or this rank's parts, from the files in ``folder``; no rank waits for another."""
    filled = {name: tensor for name, tensor in tensors.items() if local(tensor).numel()}  # dcp stumbles over empty ones
    if not filled:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is told to take it
        try:
            dcp.load(filled, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
        except CheckpointException as error:  # which is no Exception
            cause = next(iter(error.failures.values()))[0]
            raise ValueError(f"{folder} is no checkpoint: {type(cause).__name__} {cause}") from None


def _num_bytes(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # it has its last name by now
            total += path.stat().st_size
    return total


def _word_of(folder: Path, rank: int) -> Path:
    return folder / f".rank_{rank:05d}.json"
