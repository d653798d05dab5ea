"""How long a start takes: help, the imports, and the first step of a run on 100 GB of data.

    python -m benchmarks.startup [--rounds 3] [--json PATH]

help        `mulligan train --help`, the whole command
imports     what `mulligan prepare` and `mulligan train` load before they begin, in a process of its own
first step  from the start of `mulligan train` to the end of its first step, without these imports: a model of a few
            thousand parameters with document_mask, on 100 shards of 1 GB and by turns on one of 2 MB, with other
            samples each round. The shards are sparse files: no disk is waited for, but reading them whole would show.
            As after `mulligan prepare`, their sizes and times are those of files whose hashes were right.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir

from benchmarks.first_step import END
from benchmarks.interleave import interleave
from benchmarks.report import Report, Row, make_parser
from mulligan.cli.compose import CONF, build, plain
from mulligan.data.join import VERIFIED
from mulligan.data.shards import offsets_name
from mulligan.files import write_json

SHARD_TOKENS, LARGE_SHARDS = 500_000_000, 100  # 1 GB of uint16 each
SMALL_TOKENS, DOCUMENT_TOKENS = 1_000_000, 1000
UNREAD = "a hash that no file has: who reads one is told that it differs"
HELP_AIM, FIRST_STEP_AIM = 1.0, 5.0  # processor seconds; seconds
DATA = ("data=files", "data.document_mask=true", "tokenizer.vocab_size=400")
RUN = (
    "model.width=16", "model.num_layers=2", "model.feedforward_width=32", "sequence_length=32", "precision=32-true",
    "compile=false", "max_steps=2",
)  # fmt: skip


def write_sparse(folder: Path, *, num_shards: int, shard_tokens: int) -> list[str]:
    """Prepared data of zeros, as ``mulligan train`` finds it; returns the overrides that lead to it."""
    text = folder / "text.txt"
    text.write_text(str(__doc__))
    overrides = [*DATA, f"data.folder={folder}", f"data.sources.files.paths=[{text}]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        recipe = build(plain(compose("prepare", overrides=overrides)))["data"]
    recipe.folder.mkdir()
    tokenizer = recipe.tokenizer.make([text.read_text()])
    model = recipe.folder / tokenizer.file_name
    model.write_bytes(tokenizer.model)
    digests = {model: hashlib.sha256(tokenizer.model).hexdigest()}
    shards: list[Row] = []
    for split, number, size in (("train", num_shards, shard_tokens), ("validation", 1, SMALL_TOKENS)):
        for name in (f"{split}_{index:06d}.npy" for index in range(number)):
            tokens, offsets = recipe.folder / name, recipe.folder / offsets_name(name)
            np.lib.format.open_memmap(tokens, mode="w+", dtype=np.uint16, shape=(size,))
            np.lib.format.open_memmap(offsets, mode="w+", dtype=np.int64, shape=(size // DOCUMENT_TOKENS,))
            digests |= {tokens: UNREAD, offsets: UNREAD}
            row = {"file": name, "split": split, "source": "files", "tokens": size, "utf8_bytes": size}
            shards.append(row | {"sha256": UNREAD, "documents_sha256": UNREAD})
    stamps = {path.name: [digest, path.stat().st_size, path.stat().st_mtime_ns] for path, digest in digests.items()}
    write_json(recipe.folder / VERIFIED, stamps)
    manifest = {"shards": shards, "tokenizer_sha256": digests[model], "fingerprint": "of zeros"}
    write_json(recipe.folder / "manifest.json", manifest)
    return overrides


def python(*arguments: str) -> str:
    """Run Python on ``arguments`` in an empty folder and return the last line it prints."""
    with TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},  # benchmarks is installed nowhere
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout.splitlines()[-1] if done.stdout else ""


def first_steps(overrides: list[str], found: list[dict[str, float]]) -> Callable[[], object]:
    """A run to its first step, a new seed each time; ``found`` takes what it says of itself."""
    seeds = count()

    def run() -> None:
        begin = "from benchmarks.first_step import begin; begin()"
        found.append(json.loads(python("-c", begin, "train", *overrides, *RUN, END, f"seed={next(seeds)}")))

    return run


def measure(report: Report, rounds: int) -> None:
    data = {"small": (1, SMALL_TOKENS), "large": (LARGE_SHARDS, SHARD_TOKENS)}
    starts: dict[str, list[dict[str, float]]] = {name: [] for name in data}
    variants: dict[str, Callable[[], Any]] = {
        "help": lambda: python("-m", "mulligan", "train", "--help"),
        "prepare": lambda: python("-c", "import mulligan.cli.main, mulligan.cli.verb, mulligan.cli.prepare"),
    }
    with TemporaryDirectory() as root:
        for name, (num_shards, shard_tokens) in data.items():
            folder = Path(root, name)
            folder.mkdir()
            overrides = write_sparse(folder, num_shards=num_shards, shard_tokens=shard_tokens)
            variants[name] = first_steps(overrides, starts[name])
        timings = interleave(variants, rounds=rounds, warmup_rounds=0)
    middle = {name: {key: median(start[key] for start in found) for key in found[0]} for name, found in starts.items()}
    rows: list[Row] = [
        {"what": "mulligan train --help, all of it", "cpu": timings["help"].cpu_median, "s": timings["help"].median},
        {"what": "imports of mulligan prepare", "cpu": timings["prepare"].cpu_median, "s": timings["prepare"].median},
        {"what": "imports of mulligan train", "cpu": middle["large"]["imports_cpu"], "s": middle["large"]["imports"]},
        {"what": "first step beyond, 2 MB", "cpu": middle["small"]["beyond_cpu"], "s": middle["small"]["beyond"]},
        {"what": "first step beyond, 100 GB", "cpu": middle["large"]["beyond_cpu"], "s": middle["large"]["beyond"]},
    ]
    report.add(f"startup: processor seconds and seconds, medians of {rounds} rounds", rows)
    report.judge(
        "imports of mulligan train --help",
        ours=timings["help"].cpu_median,
        unit="processor s",
        at_most=HELP_AIM,
    )
    step = "first step after imports, 100 GB of data"
    report.judge(step, ours=middle["large"]["beyond"], unit="s", at_most=FIRST_STEP_AIM)
    pairs = zip(starts["small"], starts["large"], strict=True)
    ratio = median(large["beyond_cpu"] / small["beyond_cpu"] for small, large in pairs)
    report.judge(
        step,
        ours=middle["large"]["beyond_cpu"],
        unit="processor s",
        peer="2 MB of data",
        theirs=middle["small"]["beyond_cpu"],
        ratio=ratio,
    )


def main() -> None:
    options = make_parser(__doc__, rounds=3).parse_args()
    report = Report()
    measure(report, options.rounds)
    report.write(options.json)


if __name__ == "__main__":
    main()
