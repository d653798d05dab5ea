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


class Checkpoint(NamedTuple):
    path: Path
    step: int
    milestone: bool


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
    return torch.load(path, map_location="cpu", weights_only=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:08d}.ckpt"


def listed(folder: Path) -> list[Checkpoint]:
    """Checkpoints with a description, oldest first, without a look at their bytes."""
    found = []
    for description_path in sorted(folder.glob("step_*.json")):
        try:
            description = read_json(description_path)
        except ValueError:
            continue  # torn: for resume it does not exist either
        path = description_path.with_suffix(".ckpt")
        found.append(Checkpoint(path, description["step"], description.get("milestone", False)))
    return found


def newest_whole(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint whose bytes match their hash; broken ones are named and passed over."""
    described = {path.stem for path in folder.glob("step_*.json")}
    for path in sorted(folder.glob("step_*.ckpt"), reverse=True):
        reason = _broken(path) if path.stem in described else "it has no description: its writing was interrupted"
        if reason is None:
            description = read_json(path.with_suffix(".json"))
            return Checkpoint(path, description["step"], description.get("milestone", False))
        warn(f"checkpoint {path} is passed over: {reason}")
    return None


def _broken(path: Path) -> str | None:
    try:
        expected = read_json(path.with_suffix(".json"))["sha256"]
    except (ValueError, KeyError):
        return "its description is not whole"
    return None if sha256_file(path) == expected else "its bytes differ from their sha256"
