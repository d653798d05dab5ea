"""Timing on a machine that others use too: run the variants in turns, compare within a round, take medians.

Load that comes and goes then hits every variant alike. A ratio is the median over the rounds of (this variant's
seconds / the first variant's in the same round), so a slow minute does not enter it. No round is left out but warm-up.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass
class Timing:
    """Wall and processor seconds of one variant, a number a round; processor seconds count every thread and child."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def lap(self, since: tuple[float, float], processes: Sequence[int] = ()) -> tuple[float, float]:
        """Add the seconds since both ``clocks`` read so, and return what they read now."""
        now = clocks(processes)
        self.seconds.append(now[0] - since[0])
        self.cpu_seconds.append(now[1] - since[1])
        return now

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def cpu_median(self) -> float:
        return median(self.cpu_seconds)

    def ratio_to(self, first: "Timing") -> float:
        """Median over the rounds of own seconds / the first variant's."""
        return median(mine / other for mine, other in zip(self.seconds, first.seconds, strict=True))

    def cpu_ratio_to(self, first: "Timing") -> float:
        return median(mine / other for mine, other in zip(self.cpu_seconds, first.cpu_seconds, strict=True))


def interleave(
    variants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup_rounds: int = 1,
    processes: Sequence[int] = (),
) -> dict[str, Timing]:
    """Run every variant once a round, forwards and backwards by turns, and time each run.

    ``processes`` are those still running that do a variant's work: their processor seconds count too.
    """
    timings = {name: Timing() for name in variants}
    for number in range(-warmup_rounds, rounds):
        for name in list(variants) if number % 2 == 0 else reversed(list(variants)):
            since = clocks(processes)
            variants[name]()
            if number >= 0:
                timings[name].lap(since, processes)
    return timings


def clocks(processes: Sequence[int] = ()) -> tuple[float, float]:
    """Wall and processor seconds."""
    return time.perf_counter(), cpu_seconds_now(processes)


def cpu_seconds_now(processes: Sequence[int] = ()) -> float:
    """Processor seconds of this process, its threads and its finished children, and of other ``processes``."""
    ticks = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13] for process in processes]
    return sum(os.times()[:4]) + sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")
