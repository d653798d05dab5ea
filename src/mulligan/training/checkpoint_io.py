"""Checkpoints are copied to host memory, and written from there while training goes on."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor
from torch.distributed.tensor import DTensor

from mulligan.distributed import broadcast, rank, world_size
from mulligan.files import remove, rename, write_json
from mulligan.model.parts import is_first_copy, local, offsets_of
from mulligan.model.weights import weights_sha256
from mulligan.stability.host_copies import HostCopies
from mulligan.stability.snapshots import Snapshot
from mulligan.training.background import Background
from mulligan.training.checkpoints import UNSHARDED, load_checkpoint, model_part
from mulligan.training.sharded import Part, collect, write_parts, written
from mulligan.training.state_tree import leaves, mapped

# In which one of the other ranks has to write something more of its part, beside training and while that waits.
PATIENCE_SECONDS, BLOCKED_SECONDS = 1800.0, 300.0
MOMENT_SECONDS = 5.0  # for them after an error: they were begun at the same step as this rank's


class Lent(NamedTuple):
    """A snapshot of the state that is being saved, and the tensors, by its names, that it is a copy of."""

    snapshot: Snapshot
    tensors: dict[str, Tensor]


class AtomicCheckpointIO(CheckpointIO):
    """Writes under a temporary name, renames, then writes the description; loads with ``weights_only=True``.

    A checkpoint with sharded tensors is to be saved by every rank, another by rank 0. One is written at a time.
    """

    def __init__(self) -> None:
        self.copies, self.background = HostCopies(), Background()
        self.lend: Callable[[], Lent | None] = lambda: None  # a copy that memory has already: no other one is made
        self._buffers: dict[str, Tensor] = {}  # for what no snapshot has, used again by every save
        self._blocked = math.inf, 0.0  # since when training waits, and the seconds that others have for more
        self.chosen: Path | None = None  # the checkpoint to load that rank 0 has found whole

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Return when the state is copied, or is being copied: ``copies.wait`` before it changes."""
        path, options = Path(path), storage_options or {}
        self.wait()  # it writes from the buffers
        tensors = {name: leaf for name, leaf in leaves(checkpoint) if isinstance(leaf, Tensor)}
        sharded = {name: leaf for name, leaf in tensors.items() if isinstance(leaf, DTensor)}
        mine = {name: leaf for name, leaf in sharded.items() if is_first_copy(leaf)}
        if sharded and rank():
            tensors = dict(mine)
        first = _first_of_shared(tensors)
        lent = self.lend()
        copies = self._copies_of({name: local(tensors[name]) for name in set(first.values())}, lent)
        parts = {name: Part(copies[first[name]], offsets_of(leaf)) for name, leaf in mine.items()}

        def kept(name: str, leaf: Any) -> Any:
            if name in sharded:
                return torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")
            return copies[first[name]] if name in first else deepcopy(leaf)

        rest = {} if sharded and rank() else mapped(checkpoint, kept)
        description = {"step": checkpoint["global_step"]} | options
        write = partial(self._write, path, rest, parts, description, rank(), world_size())
        self.background.then(partial(_when_copied, self.copies.copied, lent, checkpoint, path, write))

    def _copies_of(self, tensors: dict[str, Tensor], lent: Lent | None) -> dict[str, Tensor]:
        """Copies in host memory: the lent ones, and new ones of what is not among those."""
        made = {} if lent is None else lent.snapshot.tensors
        at = {} if lent is None else {_memory(live): made[name] for name, live in lent.tensors.items() if name in made}
        places = {name: _memory(tensor) for name, tensor in tensors.items()}
        missing = {name: tensor for name, tensor in tensors.items() if places[name] not in at}
        self.copies.take(missing, self._buffers)
        return {name: self._buffers[name] if name in missing else at[places[name]] for name in tensors}

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_checkpoint(self.chosen_for_all(path))

    def chosen_for_all(self, path: Any) -> Path:
        """What rank 0 has chosen to load, on every rank; ``path`` where it has chosen nothing."""
        return Path(broadcast(self.chosen or path))

    def remove_checkpoint(self, path: Any) -> None:
        path = Path(path)
        remove(path.with_suffix(".json"))  # first: without it the other does not count
        remove(path)

    def wait(self, seconds: float = BLOCKED_SECONDS) -> None:
        """Return when all is written, or raise what went wrong; other ranks have ``seconds`` to write more of it."""
        self._blocked = time.monotonic(), seconds
        try:
            self.background.wait()
        finally:
            self._blocked = math.inf, 0.0

    def end(self) -> None:
        """After an error: wait for what is being written, but for other ranks, which may be gone, only a moment."""
        with suppress(Exception):  # the error that is on its way came first
            self.wait(MOMENT_SECONDS)

    def _others_until(self, written: float) -> float:
        """How long to wait for other ranks that wrote something last at the time ``written``."""
        blocked_since, seconds = self._blocked
        return min(written + PATIENCE_SECONDS, max(written, blocked_since) + seconds)

    def _write(
        self,
        path: Path,
        rest: dict[str, Any],
        parts: dict[str, Part],
        description: dict[str, Any],
        own_rank: int,
        num_ranks: int,
    ) -> None:
        def save(file: Any) -> None:
            torch.save(rest, cast(IO[bytes], file))

        temporary = path.with_name(f".{path.name}.tmp")  # of the same name on every rank
        if not parts:
            description |= written(temporary, save)
            description["weights_sha256"] = weights_sha256(model_part(rest["state_dict"]))
        else:
            files = write_parts(temporary, own_rank, parts)
            if own_rank:
                return
            files[UNSHARDED] = written(temporary / UNSHARDED, save)
            files |= collect(temporary, num_ranks, until=self._others_until)
            description |= {"files": files}
        self.remove_checkpoint(path)  # one of a lineage given up, whose description must not stay
        rename(temporary, path)
        write_json(path.with_suffix(".json"), description)


def _when_copied(
    copied: "torch.cuda.Event | None", lent: Lent | None, checkpoint: Any, path: Path, write: Callable[[], None]
) -> None:
    """``checkpoint`` keeps the memory that is copied from until it is; a failure names the file."""
    for event in (copied, None if lent is None else lent.snapshot.copied):
        if event is not None:
            event.synchronize()
    try:
        write()
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save hides it behind its own
        if isinstance(cause, OSError):
            raise OSError(cause.errno, cause.strerror or str(cause), str(path)) from None
        raise
    finally:
        if lent is not None:
            lent.snapshot.is_lent = False


def _first_of_shared(tensors: dict[str, Tensor]) -> dict[str, str]:
    """For each name the first of those whose memory it shares: tied weights are copied and saved once."""
    first: dict[Any, str] = {}
    return {name: first.setdefault(_memory(local(tensor)), name) for name, tensor in tensors.items()}


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
