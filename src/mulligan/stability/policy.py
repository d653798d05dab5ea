"""What to do about a spike: a pure function of the judgement, of what was done before, and of the settings.

In rising order: leave out the update of a lone bad gradient; rewind and skip; rewind further with a wider skip while
the spike comes back; cut the learning rate for a while; halt.
"""

import math
from collections.abc import Container, Sequence
from typing import NamedTuple

LONGEST = 40  # log2 of more steps than any run has


class Done(NamedTuple):
    """A rewind of the past, as the policy looks back on it. Steps on the lineage of then; the learning rate was lower
    up to ``rate_until``.
    """

    onset: int
    trigger: int
    target: int
    skip_steps: int
    level: int
    rate_until: int = 0


class Rewind(NamedTuple):
    """Go back to a state near ``latest_target``, and leave out what lies between it and ``skip_steps`` global batches
    behind ``latest_target``, at least up to the present. ``rate_factor`` scales the learning rate from that state to
    ``rate_steps`` steps behind the onset; 1.0 leaves it alone.
    """

    latest_target: int
    skip_steps: int
    level: int
    rate_factor: float
    rate_steps: int


class Halt(NamedTuple):
    """End the run with a state near ``latest_target``."""

    reason: str
    latest_target: int


class Policy:
    def __init__(
        self,
        *,
        withhold: bool = True,
        max_withheld: int = 2,
        rewind: bool = True,
        depth_steps: int = 100,
        skip_steps: int = 200,
        widen: float = 2.0,
        cooldown_steps: int = 200,
        cut_rate_at_level: int | None = 2,
        rate_factor: float = 0.5,
        rate_steps: int = 500,
        halt_at_level: int = 4,
        max_rewinds: int = 20,
        max_lost_share: float = 0.5,
    ) -> None:
        """PaLM's practice (Chowdhery et al. 2022, section 5.1) is the default: about 100 steps before the spike, and
        200 batches left out, which cover those seen before and during it.

        Up to ``max_withheld`` bad gradients within ``cooldown_steps`` only have their updates left out. A spike within
        ``cooldown_steps`` after the last one's place, or after the end of its cut of the rate, is the same come back:
        its level is one higher, depth and skip ``widen`` times as large. ``max_lost_share``: steps lost to rewinds, as
        a share of the steps kept.
        """
        for name, number in (("depth_steps", depth_steps), ("skip_steps", skip_steps), ("rate_steps", rate_steps)):
            if number < 1:
                raise ValueError(f"stability.policy.{name}={number} must be at least 1")
        for name, number in (
            ("max_withheld", max_withheld), ("cooldown_steps", cooldown_steps), ("max_rewinds", max_rewinds)
        ):  # fmt: skip
            if number < 0:
                raise ValueError(f"stability.policy.{name}={number} must not be negative")
        if withhold and cooldown_steps < max_withheld:
            raise ValueError(
                f"stability.policy.cooldown_steps={cooldown_steps} is too short for max_withheld={max_withheld} bad "
                "gradients to come within it: no number of them would be a spike; make it longer, or allow fewer"
            )
        if halt_at_level < 1:
            raise ValueError(f"stability.policy.halt_at_level={halt_at_level} must be at least 1")
        if cut_rate_at_level is not None and cut_rate_at_level < 0:
            raise ValueError(f"stability.policy.cut_rate_at_level={cut_rate_at_level} must not be negative, or null")
        if not 1.0 <= widen < float("inf"):
            raise ValueError(f"stability.policy.widen={widen} must be a finite number of at least 1")
        if math.log2(max(depth_steps, skip_steps)) + (halt_at_level - 1) * math.log2(widen) > LONGEST:
            raise ValueError(
                f"stability.policy: depth_steps={depth_steps} and skip_steps={skip_steps}, widen={widen} times as many "
                f"up to halt_at_level={halt_at_level}, are more steps than a run has: make one of them smaller"
            )
        if not 0.0 < rate_factor <= 1.0:
            raise ValueError(f"stability.policy.rate_factor={rate_factor} must be in (0, 1]")
        if not 0.0 < max_lost_share < float("inf"):
            raise ValueError(f"stability.policy.max_lost_share={max_lost_share} must be a finite number above 0")
        self.withhold, self.max_withheld = withhold, max_withheld
        self.rewind, self.depth_steps, self.skip_steps, self.widen = rewind, depth_steps, skip_steps, widen
        self.cooldown_steps, self.cut_rate_at_level = cooldown_steps, cut_rate_at_level
        self.rate_factor, self.rate_steps = rate_factor, rate_steps
        self.halt_at_level, self.max_rewinds, self.max_lost_share = halt_at_level, max_rewinds, max_lost_share

    def tolerates(self, step: int, withheld_steps: Container[int]) -> bool:
        """Whether a bad gradient at ``step`` is one of few, whose updates alone are left out: of ``withheld_steps``."""
        recent = range(max(0, step - self.cooldown_steps), step)
        return sum(other in withheld_steps for other in recent) < self.max_withheld

    def decide(self, onset: int, step: int, history: Sequence[Done]) -> Rewind | Halt:
        """``step`` is the present one, at which the detector is sure of a spike that began at ``onset``."""
        if not self.rewind:
            return self._halt("stability.policy.rewind=false allows no rewind", onset, history)
        if len(history) >= self.max_rewinds:
            return self._halt(
                f"{len(history)} rewinds are as many as stability.policy.max_rewinds allows", onset, history
            )
        level = self._level(onset, history)
        if level >= self.halt_at_level:
            times = "once" if level == 1 else f"{level} times"
            return self._halt(
                f"the spike came back {times}: stability.policy.halt_at_level={self.halt_at_level}", onset, history
            )
        scale = self.widen**level
        cut = self.cut_rate_at_level is not None and level >= self.cut_rate_at_level
        latest_target = max(0, onset - round(self.depth_steps * scale))
        return Rewind(
            latest_target=latest_target,
            skip_steps=max(round(self.skip_steps * scale), step - latest_target),
            level=level,
            rate_factor=self.rate_factor if cut else 1.0,
            rate_steps=self.rate_steps if cut else 0,
        )

    def overdraws(self, onset: int, step: int, target: int, history: Sequence[Done]) -> Halt | None:
        """The end of the run, where to go back from ``step`` to ``target`` would lose too many steps."""
        lost = step - target + sum(done.trigger - done.target for done in history)
        one_ladder = sum(self.depth_steps * self.widen**level for level in range(self.halt_at_level))
        if lost <= max(self.max_lost_share * step, one_ladder):  # a run has few steps at first
            return None
        return self._halt(
            f"back at step {target} {lost} steps would be lost, more than stability.policy.max_lost_share="
            f"{self.max_lost_share} of {step}",
            onset,
            history,
        )

    def _level(self, onset: int, history: Sequence[Done]) -> int:
        """How many times in a row the spike has come back."""
        if not history or onset > max(history[-1].trigger, history[-1].rate_until) + self.cooldown_steps:
            return 0
        return history[-1].level + 1

    def _halt(self, reason: str, onset: int, history: Sequence[Done]) -> Halt:
        """What lies behind the last rewind has led to the spike again, where that came back."""
        return Halt(reason, history[-1].target if self._level(onset, history) else onset - 2)
