"""One part of a source, read, filtered and tokenized into one file: the unit of work, and the processes that do it."""

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mulligan.data.documents import Part, Source, as_utf8_can
from mulligan.data.repetition import has_repeated_span
from mulligan.data.stopping import heed_sigterm_of_parent_alone, starting_workers
from mulligan.data.tokenizer import tokenizer_of
from mulligan.data.tokens import Tokenizer
from mulligan.files import atomic_write


class PartJob(NamedTuple):
    """What a worker process needs to tokenize one part."""

    source: Source
    source_name: str
    part: Part
    part_number: int
    model: bytes
    validation_fraction: float
    split_seed: int
    path: Path


def in_validation(group: str, *, fraction: float, seed: int) -> bool:
    """True for the share of groups that is held out; a group's side depends on its name and the seed alone."""
    digest = hashlib.blake2b(f"{seed}:{group}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def tokenize_part(job: PartJob) -> None:
    """Read, tokenize and filter one part, and write what is left as one .npz file."""
    tokenizer = _tokenizer(job.model)
    tokens: list[NDArray[np.uint32]] = []
    rows: list[tuple[int, int, bool]] = []
    digests: list[bytes] = []
    missing = empty = repetitive = replaced = 0
    for document in job.source.read(job.part):
        if document.text is None:
            missing += 1
            continue
        if not document.text.strip():
            empty += 1
            continue
        text = tokenizer.spelled(as_utf8_can(document.text))
        encoded, ids = text.encode(), tokenizer.framed(tokenizer.encode(text))
        if has_repeated_span(ids):
            repetitive += 1
            continue
        replaced += b"\xef\xbf\xbd" in encoded  # U+FFFD
        held_out = in_validation(document.group, fraction=job.validation_fraction, seed=job.split_seed)
        tokens.append(ids)
        rows.append((len(ids), len(encoded), held_out))
        digests.append(hashlib.blake2b(encoded, digest_size=16).digest())
    with atomic_write(job.path) as file:
        np.savez(
            file,
            tokens=np.concatenate(tokens) if tokens else np.zeros(0, np.uint32),
            rows=np.array(rows, dtype=np.int64).reshape(-1, 3),
            digests=np.frombuffer(b"".join(digests), dtype="S16"),
            counts=np.array([missing, empty, repetitive, replaced], dtype=np.int64),
            tokenizer=np.array(hashlib.sha256(job.model).hexdigest()),
        )


def tokenize_all(jobs: list[PartJob], workers: int) -> Iterator[None]:
    """Tokenize every job, in this process or in ``workers`` others; yield once for each that is done."""
    if workers <= 1:
        yield from map(tokenize_part, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            with starting_workers():
                futures = [pool.submit(tokenize_part, job) for job in jobs]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """Make this worker end when the process that started it is killed: the pool's own clean-up never runs then."""
    heed_sigterm_of_parent_alone()
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


_tokenizers: dict[bytes, Tokenizer] = {}


def _tokenizer(model: bytes) -> Tokenizer:
    """The tokenizer of this process: loading one for every part would cost more than a small part."""
    if model not in _tokenizers:
        _tokenizers[model] = tokenizer_of(model)
    return _tokenizers[model]
