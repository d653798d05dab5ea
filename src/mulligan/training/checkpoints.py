"""Checkpoints that are whole or passed over.

``step_00000100.ckpt`` holds the state: a file, or with sharded tensors a folder of one file a rank and
``unsharded.pt``. ``step_00000100.json``, written after it, names the sha256 and the size of each file: a checkpoint
without that, or whose bytes differ, does not exist for resume.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mulligan.files import read_json, sha256_file
from mulligan.safetensors_file import LazyTensors
from mulligan.stability.ledger import Ledger
from mulligan.training.sharded import Files, read_into
from mulligan.training.state_tree import leaves, mapped

UNSHARDED = "unsharded.pt"


class Checkpoint(NamedTuple):
    path: Path
    step: int
    files: Files  # in the folder; "" is the path itself
    milestone: bool
    ledger_lines: int  # that the ledger had


def load_checkpoint(path: Path, *, with_optimizer: bool = True) -> dict[str, Any]:
    """The state in ``path``, of either form, on the CPU. No code in the files is run."""
    checkpoint = load_unsharded(path)
    if not with_optimizer:
        checkpoint.pop("optimizer_states", None)
    if not path.is_dir():
        return checkpoint
    parts = {
        name: torch.empty(leaf.shape, dtype=leaf.dtype)
        for name, leaf in leaves(checkpoint)
        if isinstance(leaf, Tensor) and leaf.is_meta
    }
    read_into(path, parts)
    return mapped(checkpoint, lambda name, leaf: parts.get(name, leaf))


def load_unsharded(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """As ``load_checkpoint``, but where the state is in parts, an empty tensor on the meta device stands for each.

    With ``mmap`` tensors are in memory only as far as they are looked at; none may be changed.
    """
    file = path / UNSHARDED if path.is_dir() else path
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # whatever foreign bytes make of it
        raise ValueError(f"{path} is no checkpoint: {type(error).__name__} {str(error).splitlines()[0]}") from None


def lazy_weights(path: Path, state: dict[str, Any]) -> LazyTensors:
    """The model's weights by its own names, of what ``load_unsharded`` made of ``path``, each read when asked for."""
    weights = model_part(state["state_dict"])

    def read(name: str) -> Tensor:
        if not weights[name].is_meta:
            return weights[name]
        whole = torch.empty(weights[name].shape, dtype=weights[name].dtype)
        read_into(path, {f"state_dict.model.{name}": whole})
        return whole

    return LazyTensors({name: weight.to("meta") for name, weight in weights.items()}, read)


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
    """Whether its bytes match their hashes."""
    return _damage(checkpoint, thorough=True) is None


def newest_whole(
    folder: Path, ledger: Ledger, warn: Callable[[str], None], *, thorough: bool = True
) -> Checkpoint | None:
    """The newest checkpoint whose bytes match their hashes; broken ones are named and passed over, as are those of a
    lineage that the ledger has given up. With nothing but broken ones ValueError: a new start would write over them.

    Unless ``thorough`` only sizes are looked at: of many ranks one reads all bytes, the others load what that found.
    """
    broken: dict[Path, str] = {}
    for path in sorted(folder.glob("step_*.ckpt"), reverse=True):
        found = _described(path)
        if found is None:
            reason = "it has no whole description"
        elif damage := _damage(found, thorough=thorough):
            reason = damage
        elif ledger.abandons(found.step, found.ledger_lines):
            reason = "a rewind went back to before it"
            warn(f"checkpoint {path} is passed over: {reason}")
            continue
        else:
            return found
        warn(f"checkpoint {path} is passed over: {reason}")
        broken[path] = reason
    if len(broken) > 1 or any(path.with_suffix(".json").exists() for path in broken):  # else a kill at the first one
        told = "; ".join(f"{path.name}: {reason}" for path, reason in broken.items())
        raise ValueError(
            f"{folder}: none of its checkpoints is whole ({told}); bring one back, or begin a run of another name"
        )
    return None


def _damage(checkpoint: Checkpoint, *, thorough: bool) -> str | None:
    """What is wrong with it; None where nothing is."""
    paths = {checkpoint.path / name: wanted for name, wanted in checkpoint.files.items()}
    for path, wanted in paths.items():
        if not path.is_file():
            return f"its {path.name} is missing"
        size = path.stat().st_size
        if wanted["num_bytes"] not in (None, size):
            return f"its {path.name} has {size:,} bytes of {wanted['num_bytes']:,}"
    if thorough:
        with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
            for path, digest in zip(paths, pool.map(sha256_file, paths), strict=True):
                if digest != paths[path]["sha256"]:
                    return f"its bytes differ from their sha256 ({path.name})"
    return None


def _described(path: Path) -> Checkpoint | None:
    try:
        description = read_json(path.with_suffix(".json"))
        written = description.get("files", {"": description})
        return Checkpoint(
            path,
            int(description["step"]),
            {name: {"sha256": file["sha256"], "num_bytes": file.get("num_bytes")} for name, file in written.items()},
            milestone=bool(description.get("milestone", False)),
            ledger_lines=int(description.get("ledger_lines", 0)),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
