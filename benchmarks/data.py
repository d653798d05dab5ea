"""The data path: seeking, loading and preparing, each beside its aim.

    python -m benchmarks.data [--only seek loader prepare] [--rounds 9] [--prepare-rounds 1] [--json PATH]

seek     microseconds from (step, global batch) to window numbers, at random steps, without skips and with a million
loader   tokens a second in one process from memory-mapped shards in the page cache, an epoch a round: micro-batches
         asked for one by one, and through the Loader with its thread that reads ahead
prepare  the command `mulligan prepare` on the running Python's standard library and site-packages with BPE: source MB a
         second a core, and what a second worker gains, beside what two commands at once do in the time of one. The
         clock holds the start of the command; training the tokenizer, which no worker shares, is shown both counted
         and left out.
"""

import re
import subprocess
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.interleave import interleave
from benchmarks.report import Report, Row, make_parser
from mulligan.data.documents import PythonStdlib, SitePackages
from mulligan.data.loader import Loader, MicroBatches
from mulligan.data.sequencer import Sequencer
from mulligan.data.shards import Shards, offsets_name
from mulligan.files import write_json

SEEK_AIM = 50.0  # microseconds
LOADER_AIM = 80.0  # million tokens a second
PREPARE_AIM, WORKERS_AIM = 5.0, 1.7  # MB a second a core; one worker's seconds / two workers'
SEEKS = 200  # a round
WINDOWS = 20_000_000
SKIPS, SKIP_EVERY, SKIP_SAMPLES = 1_000_000, 16, 4
SEQUENCE_LENGTH = 512
NUM_SHARDS, SHARD_TOKENS = 8, 12_500_000  # 200 MB of uint16
MB = 1e6


def measure_seek(report: Report, rounds: int) -> None:
    skips = [(start, start + SKIP_SAMPLES) for start in range(0, SKIPS * SKIP_EVERY, SKIP_EVERY)]
    sizes = [WINDOWS // 2, WINDOWS // 4, WINDOWS // 4]
    sequencers = {
        "no skips": Sequencer(source_sizes=[WINDOWS], seed=1),
        "a million skips": Sequencer(source_sizes=[WINDOWS], seed=1, skips=skips),
        "a million skips, 3 weighted sources": Sequencer(
            source_sizes=sizes, weights=[0.6, 0.3, 0.1], seed=1, skips=skips
        ),
    }
    random = np.random.default_rng(0)
    samples = SKIPS * (SKIP_EVERY - SKIP_SAMPLES)  # the positions that lie between skips

    def seek(sequencer: Sequencer, global_batch: int, steps: list[int]) -> None:
        for step in steps:
            sequencer.windows(sequencer.sample_indices(step, global_batch))

    rows: list[Row] = []
    for global_batch in (8, 64, 512):
        steps = random.integers(samples // global_batch, size=SEEKS).tolist()
        timings = interleave(
            {name: partial(seek, one, global_batch, steps) for name, one in sequencers.items()}, rounds=rounds
        )
        for name, timing in timings.items():
            microseconds = timing.median / SEEKS * 1e6
            row = {"order": name, "global batch": global_batch, "microseconds": microseconds}
            rows.append(row | {"ratio": timing.ratio_to(timings["no skips"])})
            report.judge(f"seek, {global_batch} samples, {name}", ours=microseconds, unit="us", at_most=SEEK_AIM)
    report.add(f"seek: median of {rounds} rounds of {SEEKS} random steps", rows)


def measure_loader(report: Report, rounds: int) -> None:
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        write_shards(Path(folder))
        for micro_batch in (8, 64):
            shards = Shards(Path(folder), "train", SEQUENCE_LENGTH)
            rows += (of_size := loader_rows(shards, micro_batch, rounds))
            speed = of_size[-1]["million tokens/s"]
            report.judge(f"loader, micro-batches of {micro_batch}", ours=speed, unit="M tokens/s", at_least=LOADER_AIM)
    report.add(f"loader: {NUM_SHARDS * SHARD_TOKENS:,} tokens in windows of {SEQUENCE_LENGTH}, {rounds} rounds", rows)


def loader_rows(shards: Shards, micro_batch: int, rounds: int) -> list[Row]:
    sizes = list(shards.windows_by_source().values())
    batches = MicroBatches(
        shards=shards,
        sequencer=Sequencer(source_sizes=sizes, seed=1),
        global_batch=micro_batch,
        micro_batch=micro_batch,
        rank=0,
        world_size=1,
        document_mask=False,
    )
    count = sum(sizes) // micro_batch

    def bare() -> None:
        for number in range(count):
            batches[number]

    def read_ahead() -> None:
        for _ in islice(Loader(batches, next_step=lambda: 0), count):
            pass

    timings = interleave({"bare MicroBatches": bare, "thread that reads ahead": read_ahead}, rounds=rounds)
    rows: list[Row] = []
    for name, timing in timings.items():
        speed = count * micro_batch * SEQUENCE_LENGTH / timing.median
        row = {"loader": name, "micro-batch": micro_batch, "seconds an epoch": timing.median}
        row["ratio"] = timing.ratio_to(timings["bare MicroBatches"])
        rows.append(row | {"million tokens/s": speed / 1e6})
    return rows


def write_shards(folder: Path) -> None:
    """Random tokens in the form that ``Shards`` opens."""
    random = np.random.default_rng(0)
    entries: list[Row] = []
    for number in range(NUM_SHARDS):
        name = f"train_{number:06d}.npy"
        tokens: NDArray[np.uint16] = random.integers(2**15, size=SHARD_TOKENS, dtype=np.uint16)
        np.save(folder / name, tokens)
        np.save(folder / offsets_name(name), np.arange(0, SHARD_TOKENS, 1000, dtype=np.int64))
        entries.append({"file": name, "split": "train", "source": "random", "tokens": SHARD_TOKENS, "utf8_bytes": 0})
    write_json(folder / "manifest.json", {"shards": entries})


def measure_prepare(report: Report, rounds: int) -> None:
    sources = (PythonStdlib(), SitePackages())
    paths = [source.root / name for source in sources for part in source.parts() for name in part]
    megabytes = sum(len(path.read_bytes()) for path in paths) / MB  # and into the page cache
    training: dict[str, list[float]] = {"one worker": [], "two workers": [], "two commands at once": []}
    timings = interleave(
        {
            "one worker": lambda: training["one worker"].append(prepare(1)),
            "two workers": lambda: training["two workers"].append(prepare(2)),
            "two commands at once": lambda: training["two commands at once"].append(prepare_twice()),
        },
        rounds=rounds,
        warmup_rounds=0,
    )
    rows: list[Row] = []
    for what, share in (("counted", 0.0), ("left out", 1.0)):
        seconds = {
            name: [whole - share * tokenizer for whole, tokenizer in zip(timing.seconds, training[name], strict=True)]
            for name, timing in timings.items()
        }
        one = seconds["one worker"]
        gain = median(first / both for first, both in zip(one, seconds["two workers"], strict=True))
        most = median(2.0 * first / both for first, both in zip(one, seconds["two commands at once"], strict=True))
        for name, timing in timings.items():
            row: Row = {"tokenizer training": what, "prepare": name, "seconds": median(seconds[name])}
            rows.append(row | {"processor seconds": median(timing.cpu_seconds)})
        speed = megabytes / median(one)
        report.judge(f"prepare, tokenizer training {what}", ours=speed, unit="MB/s a core", at_least=PREPARE_AIM)
        report.judge(
            f"two workers of prepare, tokenizer training {what}",
            ours=gain,
            unit="times one",
            peer="two commands at once",
            theirs=most,
            at_least=WORKERS_AIM,
        )
    report.add(f"prepare: {megabytes:.0f} MB in {len(paths):,} files, {rounds} round(s)", rows)


def prepare(workers: int) -> float:
    """Run the command in a fresh folder and return the seconds that it says the tokenizer took."""
    with TemporaryDirectory() as folder:
        return training_seconds(start_prepare(folder, workers))


def prepare_twice() -> float:
    """Two commands of one worker each, with nothing in common: what a second worker could gain on these cores."""
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        return max([training_seconds(process) for process in [start_prepare(first, 1), start_prepare(second, 1)]])


def start_prepare(folder: str, workers: int) -> subprocess.Popen[str]:
    packages = "{_target_: mulligan.data.documents.SitePackages, part_bytes: 4194304}"
    mulligan = str(Path(sys.executable).with_name("mulligan"))
    command = [mulligan, "prepare", f"+data.sources.packages={packages}", f"data.workers={workers}"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def training_seconds(process: subprocess.Popen[str]) -> float:
    output, _ = process.communicate()
    assert process.returncode == 0, output
    found = re.search(r"^tokenizer: done in ([\d.]+) s", output, re.MULTILINE)
    assert found is not None, output
    return float(found.group(1))


def main() -> None:
    parser = make_parser(__doc__, rounds=9)
    parser.add_argument("--prepare-rounds", type=int, default=1, help="timed rounds of prepare, minutes each")
    parser.add_argument("--only", nargs="+", choices=("seek", "loader", "prepare"), help="what to measure; default all")
    options = parser.parse_args()
    chosen = options.only or ("seek", "loader", "prepare")
    report = Report()
    if "seek" in chosen:
        measure_seek(report, options.rounds)
    if "loader" in chosen:
        measure_loader(report, options.rounds)
    if "prepare" in chosen:
        measure_prepare(report, options.prepare_rounds)
    report.write(options.json)


if __name__ == "__main__":
    main()
