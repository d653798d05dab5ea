"""From tokenized parts to shards: repeated documents are dropped, the splits are parted, all is hashed."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mulligan.data.shards import offsets_name
from mulligan.data.stopping import stops_in_order
from mulligan.data.tokenize import PartJob
from mulligan.data.tokenizer import FILES, tokenizer_path
from mulligan.files import read_json, sha256_file, write_hashed, write_json

SPLITS = ("train", "validation")
VERIFIED = ".verified.json"  # sizes and times: of this copy of the folder, not of the prepared data


@stops_in_order()
def join_parts(folder: Path, jobs: list[PartJob], *, vocab_size: int) -> dict[str, Any]:
    """Drop documents seen before, in the order of the parts, and write the shards that are left."""
    dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
    seen: set[bytes] = set()
    shards: list[dict[str, Any]] = []
    counts = np.zeros(4, dtype=np.int64)
    duplicates = 0
    for job in jobs:
        part = _load(job)
        tokens, rows, digests = part["tokens"], part["rows"], part["digests"].tolist()
        counts += part["counts"]
        fresh = np.zeros(len(rows), dtype=bool)
        for row, digest in enumerate(digests):
            fresh[row] = digest not in seen
            seen.add(digest)
        duplicates += int(len(rows) - fresh.sum())
        starts = np.cumsum(rows[:, 0]) - rows[:, 0]
        for split, wanted in zip(SPLITS, (fresh & (rows[:, 2] == 0), fresh & (rows[:, 2] == 1)), strict=True):
            if not wanted.any():
                continue
            kept = np.concatenate([tokens[s : s + n] for s, n in zip(starts[wanted], rows[wanted, 0], strict=True)])
            stem = f"{split}_{job.part_number:06d}"
            offsets = np.cumsum(rows[wanted, 0]) - rows[wanted, 0]
            shards.append(
                {
                    "file": f"{stem}.npy",
                    "split": split,
                    "source": job.source_name,
                    "sha256": _save(folder / f"{stem}.npy", kept.astype(dtype)),
                    "documents_sha256": _save(folder / offsets_name(f"{stem}.npy"), offsets),
                    "tokens": len(kept),
                    "documents": int(wanted.sum()),
                    "utf8_bytes": int(rows[wanted, 1].sum()),
                }
            )
    missing, empty, repetitive, replaced = counts.tolist()
    return {
        "shards": shards,
        "dropped": {"missing": missing, "empty": empty, "repetitive": repetitive, "duplicate": duplicates},
        "documents_with_replacement_characters": replaced,
        "fingerprint": hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest(),
    }


def _load(job: PartJob) -> dict[str, NDArray[Any]]:
    """The arrays of a part: reading them compares each with its checksum."""
    try:
        with job.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            part = dict(arrays)
        tokenizer = part["tokenizer"].item()
    except (BadZipFile, EOFError, KeyError, OSError, ValueError) as error:
        raise ValueError(f"{job.path} is not a whole part ({error}); remove it to have it made again") from None
    if tokenizer != hashlib.sha256(job.model).hexdigest():
        raise ValueError(f"{job.path} was made with another tokenizer; remove it to have it made again")
    return part


def verify(folder: Path, splits: Sequence[str] = SPLITS) -> None:
    """Compare the tokenizer and the shards of ``splits`` with their hashes in the manifest, but for files that have the
    size and the time they had when they were last found good; raise ValueError at the first that differs.
    """
    manifest = read_json(folder / "manifest.json", "shards", "tokenizer_sha256")
    tokenizer = tokenizer_path(folder) or folder / FILES[0]
    expected = {tokenizer.name: manifest["tokenizer_sha256"]}
    for shard in manifest["shards"]:
        if shard["split"] in splits:
            expected |= {shard["file"]: shard["sha256"], offsets_name(shard["file"]): shard["documents_sha256"]}
    before = _found_good(folder)
    good = dict(before)
    for name, digest in expected.items():
        stamp = _stamp(f"{folder}/{name}", digest)
        if stamp is None or (stamp != before.get(name) and sha256_file(folder / name) != digest):
            raise ValueError(f"{folder / name} differs from its manifest; remove {folder} to prepare it again")
        good[name] = stamp
    if good != before:
        with suppress(OSError):  # a folder that may only be read is hashed each time
            write_json(folder / VERIFIED, good)


def _stamp(path: str, digest: str) -> list[Any] | None:
    """What a file that was found good is known by; None of one that is not there."""
    try:
        state = os.stat(path)  # noqa: PTH116  # a Path takes longer to make than this
    except FileNotFoundError:
        return None
    return [digest, state.st_size, state.st_mtime_ns]


def _found_good(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / VERIFIED)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _save(path: Path, array: NDArray[Any]) -> str:
    return write_hashed(path, lambda file: np.lib.format.write_array(file, array, allow_pickle=False))
