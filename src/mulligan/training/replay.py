"""Play a run again and hold it against the checkpoints it left."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from mulligan.distributed import rank
from mulligan.stability.ledger import Ledger
from mulligan.training.checkpoint_io import AtomicCheckpointIO
from mulligan.training.checkpoints import checkpoint_path, is_whole, load_checkpoint, load_unsharded, on_lineage
from mulligan.training.state_tree import leaves
from mulligan.training.strategies import whole_on_rank_zero

COMPARED = ("state_dict", "optimizer_states")


class CompareCheckpoints(AtomicCheckpointIO):
    """Takes the place of the one that writes: what the run would save is compared with what the first run saved."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        """``folder`` holds the first run's checkpoints; those of lineages that ``ledger`` gave up do not count, nor
        does that of the start.
        """
        super().__init__()
        kept = [found for found in on_lineage(folder, ledger) if found.step]
        good = [found.step for found in kept]
        if not good:
            raise ValueError(f"{folder} holds no whole checkpoint of the run to compare with")
        for found in kept:
            if not is_whole(found):
                raise ValueError(f"{found.path} is not whole, its bytes differ from their sha256: bring it back")
        self.folder, self.ledger, self.steps = folder, ledger, good
        newest = load_unsharded(checkpoint_path(folder, good[-1]), mmap=True)
        self.data_fingerprint: str = newest["mulligan"]["data_fingerprint"]
        self.same: list[int] = []
        self.difference: str | None = None  # the first

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        step = checkpoint["global_step"]
        if step not in self.steps:
            return
        again = whole_on_rank_zero({key: checkpoint[key] for key in COMPARED})
        if rank() or self.difference is not None:
            return
        first = load_checkpoint(checkpoint_path(self.folder, step))
        self.ledger.check_copy(first["mulligan"]["ledger"], f"the checkpoint of step {step}")
        names = first_difference({key: first[key] for key in COMPARED}, again)
        if names is None:
            self.same.append(step)
        else:
            self.difference = f"step {step}: {names}"

    def remove_checkpoint(self, path: Any) -> None:
        """The first run's stay."""


class SameData(Callback):
    """Refuse other data than those of ``fingerprint``, on which no bit would be the same."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if pl_module.data_fingerprint() != self.fingerprint:
            raise ValueError(
                f"the run was trained on data {self.fingerprint[:16]}, the prepared data is "
                f"{pl_module.data_fingerprint()[:16]}: bring the old data back"
            )


class StopAfter(Callback):
    """End the run behind ``step``: later there is nothing to compare with."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.step


def first_difference(first: Any, again: Any) -> str | None:
    """The name of the first tensor or number that is not bit for bit the same, with how far it is off."""
    ours, theirs = dict(leaves(first)), dict(leaves(again))
    for name in ours | theirs:
        if name not in ours or name not in theirs:
            return f"{name} is missing in the {'first run' if name not in ours else 'replay'}"
        one, other = ours[name], theirs[name]
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            if not _same_bits(one, other):
                return f"{name} {_distance(one, other)}"
        elif one != other:
            return f"{name} is {other}, was {one}"
    return None


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(tensor.cpu().contiguous().view(-1).view(torch.uint8) for tensor in (one, other)))


def _distance(one: Tensor, other: Tensor) -> str:
    if one.shape != other.shape:
        return f"has shape {tuple(other.shape)}, had {tuple(one.shape)}"
    return f"is off by up to {(one.double().cpu() - other.double().cpu()).abs().max().item():.3g}"
