"""Our detector and other frameworks' rules on made-up curves whose spikes are known.

    python -m benchmarks.backtest [--seeds 20]

A curve falls to 2.5 nats in 3,000 steps, with normal noise of 0.05 where nothing else is said, and has one spike from
step 2,000 on or none. The gradient norm is log-normal around 1, and 4 times that in the first 5 steps of a spike. Each
cell is caught/missed/false, summed over the seeds, in a Markdown table.
"""

import argparse
import math
import random
from collections.abc import Callable
from typing import NamedTuple

from mulligan.report.backtest import Span, judge
from mulligan.report.curve import Curve
from mulligan.stability.detector import Detector
from mulligan.stability.rules import every_rule

NUM_STEPS, START = 3000, 2000


def normal(rng: random.Random) -> float:
    return rng.gauss(0.0, 1.0)


def student(rng: random.Random) -> float:
    """Of Student's t with 4 degrees of freedom."""
    return normal(rng) / math.sqrt(rng.gammavariate(2.0, 2.0) / 4.0)


def skewed(rng: random.Random) -> float:
    """A gamma distribution of shape 4, as the mean over a batch is where a few samples are hard."""
    return (rng.gammavariate(4.0, 1.0) - 4.0) / 2.0


def with_outliers(rng: random.Random) -> float:
    """Every 200th value is 20 deviations too high."""
    return normal(rng) + (20.0 if rng.random() < 1 / 200 else 0.0)


class Kind(NamedTuple):
    """``rise``: nats at a step after the start of the spike, which ends at ``stop``. ``noise`` times a draw is added;
    ``correlation`` is that of the noise of one step with the next one's.
    """

    noise: float = 0.05
    draw: Callable[[random.Random], float] = normal
    correlation: float = 0.0
    stop: int = START
    rise: Callable[[int], float] = lambda since: 0.0
    fall: Callable[[int], float] = lambda step: 2.3 + 4.5 * math.exp(-step / 60) + 2.0 / (1 + step / 200)


KINDS = {
    "no spike": Kind(),
    "no spike, a steep fall ends at a bend": Kind(fall=lambda step: 2.5 + max(0.0, 0.02 * (200 - step))),
    "no spike, noise of 0.1 with a correlation of 0.7": Kind(noise=0.1, correlation=0.7),
    "no spike, noise of 0.1 with heavy tails": Kind(noise=0.1, draw=student),
    "no spike, noise of 0.2 with a long upper tail": Kind(noise=0.2, draw=skewed),
    "no spike, 1 loss in 200 is 1.0 too high": Kind(draw=with_outliers),
    "+0.4 for 30 steps": Kind(stop=START + 30, rise=lambda since: 0.4),
    "+0.4 for 100 steps, noise 0.1": Kind(noise=0.1, stop=START + 100, rise=lambda since: 0.4),
    "2.5 to 4.5, decaying over 200": Kind(stop=START + 200, rise=lambda since: 2.0 * math.exp(-since / 80)),
    "+1.0 to the end": Kind(stop=NUM_STEPS, rise=lambda since: 1.0),
    "one NaN": Kind(stop=START + 1, rise=lambda since: math.nan),
}


def make(kind: Kind, seed: int) -> tuple[Curve, list[Span]]:
    rng, losses, norms, stray = random.Random(seed), [], [], 0.0
    for step in range(NUM_STEPS):
        in_spike = START <= step < kind.stop
        rise = kind.rise(step - START) if in_spike else 0.0
        stray = kind.correlation * stray + math.sqrt(1.0 - kind.correlation**2) * kind.draw(rng)
        losses.append(kind.fall(step) + rise + kind.noise * stray)
        norms.append(math.exp(rng.gauss(0.0, 0.15)) * (4.0 if in_spike and step < START + 5 else 1.0))
    spikes = [Span(START, kind.stop)] if kind.stop > START else []
    return Curve(list(range(NUM_STEPS)), losses, norms), spikes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    names = list(every_rule(Detector(), num_steps=NUM_STEPS))
    print(f"| {seeds} curves each | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for title, kind in KINDS.items():
        sums = {name: [0, 0, 0] for name in names}
        for seed in range(seeds):
            curve, spikes = make(kind, seed)
            for name, rule in every_rule(Detector(), num_steps=NUM_STEPS).items():
                score = judge(rule, curve, spikes)
                assert score is not None
                for at, number in enumerate((len(score.delays), score.missed, score.false_alarms)):
                    sums[name][at] += number
        print(f"| {title} | {' | '.join('/'.join(map(str, sums[name])) for name in names)} |", flush=True)


if __name__ == "__main__":
    main()
