"""Checkpoints that are whole or passed over.

``step_00000100.ckpt`` holds the state; ``step_00000100.json``, written after it, its sha256: a checkpoint without that,
or whose bytes differ, does not exist for resume.
"""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch
from lightning.fabric.plugins import CheckpointIO

from mulligan.files import read_json, sha256_file, write_hashed, write_json
from mulligan.stability.ledger import Ledger


class Checkpoint(NamedTuple):
    path: Path
    step: int
    sha256: str
    milestone: bool
    ledger_lines: int  # that the ledger had


class AtomicCheckpointIO(CheckpointIO):
    """Writes under a temporary name, renames, then writes the description; loads with ``weights_only=True``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.with_suffix(".json").unlink(missing_ok=True)  # an old one must not describe new bytes
        digest = write_hashed(path, lambda file: torch.save(checkpoint, cast(IO[bytes], file)))
        description = {"sha256": digest, "step": checkpoint["global_step"], "num_bytes": path.stat().st_size}
        write_json(path.with_suffix(".json"), description | (storage_options or {}))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        path = Path(path)
        path.with_suffix(".json").unlink(missing_ok=True)  # first: without it the other does not count
        path.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in ``path``, on the CPU. No code in the file is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever foreign bytes make of it
        raise ValueError(f"{path} is no checkpoint: {type(error).__name__} {str(error).splitlines()[0]}") from None


def model_part(state_dict: dict[str, Any]) -> dict[str, Any]:
    """The model's weights, by its own names, of what the LightningModule saved."""
    return {name.removeprefix("model."): tensor for name, tensor in state_dict.items() if name.startswith("model.")}


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}.ckpt"


def listed(folder: Path) -> list[Checkpoint]:
    """Checkpoints with a description, oldest first, without a look at their bytes."""
    found = (_described(path) for path in sorted(folder.glob("step_*.ckpt")))
    return [checkpoint for checkpoint in found if checkpoint is not None]


def on_lineage(folder: Path, ledger: Ledger) -> list[Checkpoint]:
    """Those of ``listed`` that no rewind went back to before."""
    return [found for found in listed(folder) if not ledger.abandons(found.step, found.ledger_lines)]


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether its bytes match their hash."""
    return sha256_file(checkpoint.path) == checkpoint.sha256


def newest_whole(folder: Path, ledger: Ledger, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint whose bytes match their hash; broken ones are named and passed over, as are those of a
    lineage that the ledger has given up. With nothing but broken ones ValueError: a new start would write over them.
    """
    broken: list[Path] = []
    for path in sorted(folder.glob("step_*.ckpt"), reverse=True):
        found = _described(path)
        if found is None:
            reason = "it has no whole description"
        elif not is_whole(found):
            reason = "its bytes differ from their sha256"
        elif ledger.abandons(found.step, found.ledger_lines):
            reason = "a rewind went back to before it"
            warn(f"checkpoint {path} is passed over: {reason}")
            continue
        else:
            return found
        warn(f"checkpoint {path} is passed over: {reason}")
        broken.append(path)
    if len(broken) > 1 or any(path.with_suffix(".json").exists() for path in broken):  # else a kill at the first one
        raise ValueError(f"{folder}: none of its checkpoints is whole; bring one back, or begin a run of another name")
    return None


def _described(path: Path) -> Checkpoint | None:
    try:
        description = read_json(path.with_suffix(".json"))
        return Checkpoint(
            path,
            int(description["step"]),
            str(description["sha256"]),
            milestone=bool(description.get("milestone", False)),
            ledger_lines=int(description.get("ledger_lines", 0)),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
