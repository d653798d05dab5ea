"""From tokenized parts to shards: repeated documents are dropped, the splits are parted, all is hashed."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mulligan.data.shards import offsets_name
from mulligan.data.tokenize import PartJob
from mulligan.files import read_json, sha256_file, write_hashed

SPLITS = ("train", "validation")


def join_parts(folder: Path, jobs: list[PartJob], *, vocab_size: int) -> dict[str, Any]:
    """Drop documents seen before, in the order of the parts, and write the shards that are left."""
    dtype = np.uint16 if vocab_size <= 2**16 else np.uint32
    seen: set[bytes] = set()
    shards: list[dict[str, Any]] = []
    counts = np.zeros(3, dtype=np.int64)
    duplicates = 0
    for job in jobs:
        with np.load(job.path, allow_pickle=False) as part:
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
    return {
        "shards": shards,
        "dropped": {"empty": int(counts[0]), "repetitive": int(counts[1]), "duplicate": duplicates},
        "documents_with_replacement_characters": int(counts[2]),
        "fingerprint": hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest(),
    }


def verify(folder: Path) -> None:
    """Compare every shard with its hash in the manifest; raise ValueError at the first that differs."""
    manifest = read_json(folder / "manifest.json")
    expected = {"tokenizer.model": manifest["tokenizer_sha256"]}
    for shard in manifest["shards"]:
        expected |= {shard["file"]: shard["sha256"], offsets_name(shard["file"]): shard["documents_sha256"]}
    for name, digest in expected.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise ValueError(f"{folder / name} differs from its manifest; remove {folder} to prepare it again")


def _save(path: Path, array: NDArray[Any]) -> str:
    return write_hashed(path, lambda file: np.lib.format.write_array(file, array, allow_pickle=False))
