"""What healing is worth: final loss after a spike, by cause and by what was done, against the clean run of the seed.

    python -m benchmarks.stability [--seeds 10] [--causes garbage rate moment] [--picture PATH] [--json PATH]

causes   garbage   30 batches of random tokens
         rate      30 times the rate for 40 steps of the schedule, without QK-norm: an instability of training itself,
                   which comes again after every rewind
         moment    a flipped bit in a moment of one weight
arms     clip      clipping at 1.0 alone
         withhold  the updates of bad gradients are left out too, as many as there are
         rewind    the guard, set for runs of some hundred steps: depth 20, skip 60, cooldown 100, and the rate cut to a
                   tenth as soon as a spike comes back, to 40 steps behind its onset
Final loss is the cross-entropy of held-out text at the end. A run is worse when that is 3 % above the clean run's, or
not finite, and healed when it is at most 1 % above. Two processes of one thread each take the runs in turn.
"""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from functools import partial
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from benchmarks.bare import compose_run
from benchmarks.report import Report, Row, make_parser
from mulligan.stability.ledger import Ledger
from mulligan.training.callbacks.stability import Halted
from mulligan.training.faults import RateJump
from mulligan.training.module import PretrainModule

BEGINS, NUM_STEPS = 200, 600
HEALED, WORSE, TOP = 1.0, 3.0, 1000.0  # percent
COMMON = (
    *("model.width=64", "model.num_layers=2", "model.feedforward_width=192", "model.max_length=64"),
    *("tokenizer.vocab_size=512", "model.vocab_size=512", "sequence_length=64", "global_batch_samples=16"),
    *(f"max_steps={NUM_STEPS}", f"validate_every_n_steps={NUM_STEPS}", "validation_samples=512", "precision=32-true"),
    *("compile=false", "log_every_n_steps=10", f"checkpoint.every_n_steps={NUM_STEPS}", "model.qk_norm=false"),
)  # fmt: skip
FAULTS = "+callbacks.fault._target_=mulligan.training.faults"
CAUSES = {
    "garbage": (f"{FAULTS}.GarbageData", f"+callbacks.fault.at_step={BEGINS}", "+callbacks.fault.num_steps=30"),
    "rate": (
        *("+callbacks.fault._target_=benchmarks.stability.RateBump", f"+callbacks.fault.at_step={BEGINS}"),
        *("+callbacks.fault.num_steps=40", "+callbacks.fault.factor=30.0"),
    ),
    "moment": (
        *(f"{FAULTS}.FlippedBit", f"+callbacks.fault.at_step={BEGINS}"),
        *("+callbacks.fault.where=exp_avg", "+callbacks.fault.bit=30"),
    ),
}
HEAL = (
    *("stability.snapshots.every_n_steps=10", "stability.snapshots.keep=6", "stability.policy.depth_steps=20"),
    *("stability.policy.skip_steps=60", "stability.policy.cooldown_steps=100", "stability.policy.rate_steps=40"),
    *("stability.policy.cut_rate_at_level=1", "stability.policy.rate_factor=0.1"),
)
ARMS = {
    "clip": ("stability=none",),
    "withhold": (
        "stability.way=watch",
        *(f"stability.policy.{key}={NUM_STEPS}" for key in ("max_withheld", "cooldown_steps")),
    ),
    "rewind": HEAL,
}
LABELS = {"clip": "clipping alone", "withhold": "bad updates\nleft out", "rewind": "rewind\nand skip"}


class RateBump(RateJump):
    """A schedule with a bump that the run cannot bear: it comes again after a rewind, whatever the data."""

    undone_by_rewind = False

    def _update(self, trainer: Trainer, module: PretrainModule) -> int:
        return trainer.global_step + 1


class Job(NamedTuple):
    seed: int
    cause: str
    arm: str


class Outcome(NamedTuple):
    """``loss``: held-out nats at the end, infinite where there is none. ``acted``: attempts in which the guard did."""

    job: Job
    loss: float
    acted: list[int]
    lost_steps: int


def run_job(folder: str, job: Job) -> Outcome:
    """Train one run in ``folder``, where its data lies prepared."""
    own = f"{folder}/{job.cause}_{job.arm}_{job.seed}"
    overrides = (*COMMON, *CAUSES.get(job.cause, ()), *ARMS[job.arm], f"seed={job.seed}")
    run = compose_run(folder, *overrides, f"folder={own}")
    loss = math.inf
    with suppress(Halted), redirect_stdout(StringIO()):  # a run that was halted has no final loss
        run.train(lambda *_: None, lambda _: None)
        loss = run.metrics.latest_validation["val_cross_entropy"]
    ledger = Ledger(Path(own) / "ledger.jsonl", writes=False)
    acted = [entry["attempt"] for entry in ledger.entries]
    return Outcome(job, loss if math.isfinite(loss) else math.inf, acted, ledger.lost_steps)


def run_all(jobs: Sequence[Job]) -> Iterator[Outcome]:
    """The outcomes as they come, from two processes of one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    with TemporaryDirectory() as folder:
        compose_run(folder, *COMMON).data.prepare(lambda *_: None)
        with get_context("spawn").Pool(2) as pool:
            yield from pool.imap_unordered(partial(run_job, folder), jobs)


def excess(outcomes: dict[Job, Outcome], cause: str, arm: str) -> list[float]:
    """Final loss over that of the clean run of the same seed, in percent, a number a seed."""
    return [
        100.0 * (one.loss / outcomes[Job(job.seed, "clean", "rewind")].loss - 1.0)
        for job, one in outcomes.items()
        if (job.cause, job.arm) == (cause, arm)
    ]


def table(outcomes: dict[Job, Outcome], causes: Sequence[str]) -> Iterator[Row]:
    for cause in causes:
        worse = [percent >= WORSE for percent in excess(outcomes, cause, "clip")]
        for arm in ARMS:
            those = [one for job, one in outcomes.items() if (job.cause, job.arm) == (cause, arm)]
            percents = excess(outcomes, cause, arm)
            healed = [percent <= HEALED for percent, bad in zip(percents, worse, strict=True) if bad]
            row: Row = {"cause": cause, "arm": arm, "final %": median(percents), "worst %": max(percents)}
            row |= {"of those worse by clipping": len(healed), "healed": sum(healed)}
            row |= {"caught": sum(any(at >= BEGINS for at in one.acted) for one in those)}
            row |= {"missed": sum(not any(at >= BEGINS for at in one.acted) for one in those)}
            row |= {"false": sum(at < BEGINS for one in those for at in one.acted)}
            yield row | {"steps lost": median(one.lost_steps for one in those)}


def draw(outcomes: dict[Job, Outcome], causes: Sequence[str], picture: Path) -> None:
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    for axes, cause in zip(figure.subplots(1, len(causes), sharey=True, squeeze=False)[0], causes, strict=True):
        for place, arm in enumerate(ARMS):
            percents = [min(percent, TOP) for percent in excess(outcomes, cause, arm)]
            spread = [place + 0.25 * (number / max(1, len(percents) - 1) - 0.5) for number in range(len(percents))]
            axes.plot(spread, percents, "o", markersize=4, alpha=0.8)
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_yticks([-1, 0, 1, 10, 100, TOP], ["-1", "0", "1", "10", "100", "1,000 or\nnot finite"])
        axes.axhspan(-HEALED, HEALED, color="#1f5f99", alpha=0.12, linewidth=0)
        axes.axhline(WORSE, color="#c8433f", linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(ARMS)), [LABELS[arm] for arm in ARMS])
        axes.set_title(cause)
        axes.grid(alpha=0.25, axis="y")
    figure.supylabel("final held-out loss over the clean run, %", fontsize=10)
    figure.savefig(picture, dpi=110)


def main() -> None:
    parser = make_parser(__doc__, rounds=1)
    parser.add_argument("--seeds", type=int, default=10, help="runs of each kind (default 10)")
    parser.add_argument("--causes", nargs="+", choices=CAUSES, default=list(CAUSES))
    parser.add_argument("--picture", type=Path, help="also draw the final losses to this PNG")
    options = parser.parse_args()
    jobs = [Job(seed, "clean", "rewind") for seed in range(options.seeds)]
    jobs += [Job(seed, cause, arm) for seed in range(options.seeds) for cause in options.causes for arm in ARMS]
    outcomes: dict[Job, Outcome] = {}
    for outcome in run_all(jobs):
        outcomes[outcome.job] = outcome
        print(f"{len(outcomes)}/{len(jobs)} {outcome}", file=sys.stderr, flush=True)
    outcomes = {job: outcomes[job] for job in jobs}
    report = Report()
    report.add(f"stability: {options.seeds} seeds, {NUM_STEPS} steps", list(table(outcomes, options.causes)))
    clean = [outcomes[job] for job in jobs if job.cause == "clean"]
    print(f"clean runs: {sum(bool(one.acted) for one in clean)} of {len(clean)} with an alarm")
    report.write(options.json)
    if options.picture is not None:
        draw(outcomes, options.causes, options.picture)


if __name__ == "__main__":
    main()
