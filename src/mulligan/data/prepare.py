"""From sources to a folder of token shards: the recipe, and the process that follows it.

A folder of prepared data holds ``tokenizer.model`` or ``tokenizer.json``, numbered ``train_*.npy`` and
``validation_*.npy`` with the tokens, beside each a ``*.documents.npy`` with the offset of every document, and
``manifest.json``, which is written last. While it is in the making, finished parts lie in ``parts/``: a killed run goes
on behind the last of them. The number of workers, and of machines that share the work, never shows in the result.
"""

import hashlib
import json
import os
import platform
import shutil
import signal
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.data.documents import Part, Source, as_utf8_can, described
from mulligan.data.join import SPLITS, join_parts
from mulligan.data.prepared import PreparedData, Report, Say
from mulligan.data.sample import taken_in_turns
from mulligan.data.share import Share
from mulligan.data.stopping import stops_in_order
from mulligan.data.tokenize import PartJob, in_validation, tokenize_all
from mulligan.data.tokenizer import FILES, TokenizerRecipe, load_tokenizer, tokenizer_path
from mulligan.data.tokens import Tokenizer
from mulligan.files import atomic_write, exclusive, read_json, remove_temporaries, shared, write_json

FORMAT = 3  # 3: the tokenizer's sample takes turns of sources and parts, and the sources' order has a say
Cut = list[tuple[str, Part]]  # every part with the name of its source


class DataRecipe(PreparedData):
    """What to prepare, and how the run reads it. Below ``folder`` each recipe has a folder of its own."""

    def __init__(
        self,
        *,
        name: str,
        folder: str,
        sources: dict[str, Source],
        tokenizer: TokenizerRecipe,
        weights: dict[str, float] | None = None,
        validation_fraction: float = 0.05,
        split_seed: int = 1,
        workers: int | None = None,
        document_mask: bool = False,
        loader_workers: int = 0,
        verify: bool = True,
    ) -> None:
        if not 0.0 < validation_fraction < 1.0:
            raise ValueError(f"data.validation_fraction={validation_fraction} must be between 0 and 1")
        if not sources:
            raise ValueError("data.sources is empty: name at least one source")
        for source_name, source in sources.items():
            if not hasattr(source, "parts"):
                raise ValueError(
                    f"data.sources.{source_name} needs a _target_, such as mulligan.data.documents.TextFiles"
                )
        for source_name, weight in (weights or {}).items():
            if source_name not in sources:
                raise ValueError(
                    f"data.weights.{source_name}={weight} names no source; data.sources has {', '.join(sources)}"
                )
            if not 0.0 < weight < float("inf"):
                raise ValueError(f"data.weights.{source_name}={weight} must be above 0")
        for source_name in sources:
            if weights is not None and source_name not in weights:
                raise ValueError(
                    f"data.weights={weights} gives {source_name} no share: add it, or set data.weights=null"
                )
        if workers is not None and workers < 1:
            raise ValueError(f"data.workers={workers} must be at least 1, or null for one a core")
        self.name, self.sources, self.tokenizer = name, sources, tokenizer
        self.validation_fraction, self.split_seed = validation_fraction, split_seed
        self.workers = workers or len(os.sched_getaffinity(0))
        digest = hashlib.sha256(json.dumps(self.request, sort_keys=True).encode()).hexdigest()
        super().__init__(
            folder=f"{folder}/{name}-{digest[:8]}",
            weights=weights,
            document_mask=document_mask,
            loader_workers=loader_workers,
            verify=verify,
        )

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @cached_property  # as it was before anything was read
    def request(self) -> dict[str, Any]:
        """All that decides the prepared bytes, as plain JSON."""
        # In their order: of documents that repeat, the first is kept.
        request = {
            "sources": [described(name, source) for name, source in self.sources.items()],
            "tokenizer": self.tokenizer.request,
            "validation_fraction": self.validation_fraction,
            "split_seed": self.split_seed,
            "format": FORMAT,
        }
        return json.loads(json.dumps(request, default=str))

    @stops_in_order(signal.SIGINT)
    def prepare(self, report: Report, say: Say = lambda text: None) -> Path:
        """Make the prepared data unless it is there, and return its folder. Of several processes one does the work.

        Calls of ``prepare_share`` that run are waited for; what they have left is done here.
        """
        if (self.folder / "parts").exists() or not (self.folder / "manifest.json").is_file():
            lock = self.folder / ".lock"
            with exclusive(lock, waiting=lambda: say(f"waiting for other processes to prepare {self.folder}")):
                self._prepare(report, say)
        return super().prepare(report, say)

    @stops_in_order(signal.SIGINT)
    def prepare_share(self, share: Share, report: Report, say: Say = lambda text: None) -> None:
        """Tokenize a share of the parts, beside other processes with theirs: none waits, but for the tokenizer, which
        the first of them trains.
        """
        lock = self.folder / ".lock"
        with shared(lock, waiting=lambda: say(f"waiting for a process that prepares the whole of {self.folder}")):
            if (self.folder / "manifest.json").is_file():
                say(f"{self.folder} is prepared already")
                return
            _, jobs = self._begin(report, say)
            self._tokenize(share.of(jobs), report, say)
            there = sum(job.path.is_file() for job in jobs)
            say(f"{there:,} of {len(jobs):,} parts are there; `mulligan prepare` without prepare.part joins them")

    def _prepare(self, report: Report, say: Say) -> None:
        manifest_path, parts_folder = self.folder / "manifest.json", self.folder / "parts"
        if manifest_path.is_file():
            read_json(manifest_path, "shards")
            shutil.rmtree(parts_folder, ignore_errors=True)
            return
        tokenizer, jobs = self._begin(report, say)
        remove_temporaries(parts_folder)
        remove_temporaries(self.folder)
        self._tokenize(jobs, report, say)
        report("joining", 0, 1)
        joined = join_parts(self.folder, jobs, vocab_size=tokenizer.vocab_size)
        self._check_split(joined["shards"])
        manifest = joined | {
            "request": self.request,
            "tokenizer_sha256": hashlib.sha256(tokenizer.model).hexdigest(),
            "vocab_size": tokenizer.vocab_size,
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("numpy", tokenizer.library, "datasets")},
        }
        write_json(manifest_path, manifest)
        shutil.rmtree(parts_folder)
        report("joining", 1, 1)

    def _check_split(self, shards: list[dict[str, Any]]) -> None:
        """Raise ValueError where a side of the split has no document, of few that there are."""
        count = sum(shard["documents"] for shard in shards)
        for split, other in zip(SPLITS, ("held out", "trained on"), strict=True):
            if not any(shard["split"] == split for shard in shards):
                raise ValueError(
                    f"data.sources: all {count} document(s) are {other}, each as a whole and by a hash of its name: "
                    f"give more of them, or another data.validation_fraction={self.validation_fraction} or "
                    f"data.split_seed={self.split_seed}"
                )

    def _begin(self, report: Report, say: Say) -> tuple[Tokenizer, list[PartJob]]:
        """The tokenizer, and all parts: each is as whoever came first made it."""
        cut = [(name, part) for name, source in self.sources.items() for part in source.parts()]
        if not cut:
            raise ValueError(f"data.sources: {', '.join(self.sources)} hold no documents")
        lock = self.folder / "parts" / ".lock"
        with exclusive(lock, waiting=lambda: say("waiting for the tokenizer, which another process makes")):
            self._keep_cut(cut)
            tokenizer = self._make_tokenizer(cut, report)
        return tokenizer, self._jobs(cut, tokenizer.model)

    def _keep_cut(self, cut: Cut) -> None:
        """Finished parts and the tokenizer belong to the cut that the first process made; another one is refused."""
        path, plain = self.folder / "parts" / "cut.json", [[name, list(part)] for name, part in cut]
        if not path.is_file():
            for name in FILES:
                (self.folder / name).unlink(missing_ok=True)
            write_json(path, plain)
        elif (begun := read_json(path)) != plain:
            raise ValueError(
                f"{self.folder} was begun with other sources: {_difference(begun, plain)}. "
                "Bring back those, or remove the folder to begin anew"
            )

    def _jobs(self, cut: Cut, model: bytes) -> list[PartJob]:
        return [
            PartJob(
                source=self.sources[name],
                source_name=name,
                part=part,
                part_number=number,
                model=model,
                validation_fraction=self.validation_fraction,
                split_seed=self.split_seed,
                path=self.folder / "parts" / f"{number:06d}.npz",
            )
            for number, (name, part) in enumerate(cut)
        ]

    def _make_tokenizer(self, cut: Cut, report: Report) -> Tokenizer:
        if (path := tokenizer_path(self.folder)) is not None:
            return load_tokenizer(path)
        report("tokenizer", 0, 1)
        tokenizer = self.tokenizer.make(self.sample(cut))
        with atomic_write(self.folder / tokenizer.file_name) as file:
            file.write(tokenizer.model)
        report("tokenizer", 1, 1)
        return tokenizer

    def sample(self, cut: Cut) -> Iterator[str]:
        """What the tokenizer is trained on."""
        texts_of: dict[str, list[Iterator[str]]] = {}
        for number in np.random.default_rng(self.tokenizer.seed).permutation(len(cut)):
            name, part = cut[number]
            texts_of.setdefault(name, []).append(self._training_texts(name, part))
        return taken_in_turns(list(texts_of.values()), self.tokenizer.sample_bytes)

    def _training_texts(self, source_name: str, part: Part) -> Iterator[str]:
        for document in self.sources[source_name].read(part):
            held_out = in_validation(document.group, fraction=self.validation_fraction, seed=self.split_seed)
            if document.text is not None and not held_out:
                yield as_utf8_can(document.text)

    @stops_in_order()
    def _tokenize(self, jobs: list[PartJob], report: Report, say: Say) -> None:
        missing = [job for job in jobs if not job.path.is_file()]
        if done := len(jobs) - len(missing):
            say(f"{done:,} of {len(jobs):,} parts are tokenized already, {len(missing):,} are left to do here")
        report("tokenizing", done, len(jobs))
        for _ in tokenize_all(missing, min(self.workers, len(missing))):
            done += 1
            report("tokenizing", done, len(jobs))


def _difference(begun: Any, now: Any) -> str:
    """What one cut has that the other lacks, where they differ."""
    before, after = (
        {f"{name} in data.sources.{source}" for source, part in cut for name in part} for cut in (begun, now)
    )
    if before - after:
        return f"it had {min(before - after)}"
    if after - before:
        return f"it had no {min(after - before)}"
    return "the same files had other sizes, or another order"
