"""What the guard makes of each step, one step late, and all that it remembers for it."""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from mulligan.stability.detector import Detector, Judgement
from mulligan.stability.ledger import Ledger
from mulligan.stability.policy import Halt, Policy, Rewind
from mulligan.training.clipping import OVERFLOWED, WITHHELD
from mulligan.training.step_sums import StepValues

RECORDED_STEPS = 64  # that a line of the ledger shows


class Verdict(NamedTuple):
    judgement: Judgement
    gradient_norm: float  # before clipping
    is_withheld: bool  # the step's update was left out
    is_spike: bool


class Judge:
    """``recent`` is the curve of the last steps, step, loss and norm of each; ``latest`` what was made of the last;
    ``told_onset`` that of a rise which was told and left alone.
    """

    def __init__(self, *, detector: Detector, policy: Policy, ledger: Ledger, regime: str) -> None:
        self.detector, self.policy, self.ledger, self.regime = detector, policy, ledger, regime
        self.recent: deque[list[float]] = deque(maxlen=RECORDED_STEPS)
        self.latest: Judgement | None = None
        self.told_onset: int | None = None
        self._pending: StepValues | None = None

    def due(self, values: StepValues, *, is_last: bool) -> list[StepValues]:
        """Take in the newest step; the steps to judge now: the one before it, and it too if none comes behind it."""
        steps = [self._pending, values] if is_last else [self._pending]
        self._pending = None if is_last else values
        return [step for step in steps if step is not None]

    def verdict(self, values: StepValues) -> Verdict:
        """What one step is. A bad gradient that the policy tolerates is no spike, one more is."""
        loss, norm, left_out = values.read()
        if self.ledger.rate_factor(values.step - 1) > self.ledger.rate_factor(values.step - 2):
            self.detector.expect_a_rise()  # a cut of the rate ends. Where it begins, the loss settles no higher
        self.recent.append([values.step, loss, norm])
        # An overflow of float16 says nothing of the gradient.
        judgement = self.detector.observe(values.step, loss, None if left_out == OVERFLOWED else norm)
        self.latest = judgement
        if left_out != WITHHELD:
            return Verdict(judgement, norm, is_withheld=False, is_spike=judgement.triggered is not None)
        if self.policy.tolerates(values.step, self.ledger.withheld_steps):
            return Verdict(judgement, norm, is_withheld=True, is_spike=False)
        onset = values.step if judgement.onset is None else judgement.onset  # the run stands still
        judgement = judgement._replace(onset=onset, triggered=judgement.triggered or "gradient")
        return Verdict(judgement, norm, is_withheld=True, is_spike=True)

    def decision(self, onset: int, step: int, find: Callable[[int], int | None]) -> tuple[Rewind | Halt, int | None]:
        """What to do at ``step`` about a spike, and the step to go back to: of the states there are, what ``find`` says
        is nearest to the one that is wanted.
        """
        history = self.ledger.history
        decision = self.policy.decide(onset, step, history)
        target = find(decision.latest_target)
        if isinstance(decision, Halt) or target is None:
            return decision, target
        halt = self.policy.overdraws(onset, step, target, history)
        return (decision, target) if halt is None else (halt, find(halt.latest_target))

    @property
    def band(self) -> dict[str, float]:
        """What the loss was held against last, for the log; nothing before there is a window."""
        if self.latest is None or not math.isfinite(self.latest.limit):
            return {}
        return {"loss_centre": self.latest.centre, "loss_limit": self.latest.limit}

    def host_state(self) -> dict[str, Any]:
        """Kept with a snapshot: it waits for nothing."""
        return {
            "detector": self.detector.state_dict(),
            "pending": self._pending,
            "recent": list(self.recent),
            "told_onset": self.told_onset,
        }

    def load_host_state(self, state: dict[str, Any]) -> None:
        self.latest, self.told_onset = None, state.get("told_onset")  # older checkpoints have none
        self.detector.load_state_dict(state["detector"])
        self._pending = state["pending"]
        self.recent.clear()
        self.recent.extend(state["recent"])

    def state_dict(self) -> dict[str, Any]:
        """Kept in a checkpoint: it waits for the device."""
        values = self._pending
        pending = None if values is None else [values.step, *values.raw()]
        return self.host_state() | {"pending": pending, "regime": self.regime}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pending = state["pending"]
        values = None if pending is None else StepValues(pending[0], torch.tensor(pending[1:], dtype=torch.float64))
        self.detector.reset()
        fresh, saved = self.detector.state_dict(), state["detector"]
        is_known = state["regime"] == self.regime and saved.keys() == fresh.keys()  # an older detector had others
        self.load_host_state(state | {"pending": values, "detector": saved if is_known else fresh})
