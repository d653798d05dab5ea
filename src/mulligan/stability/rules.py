"""At which steps other frameworks would have acted on a loss curve: their rules re-built, beside our own.

They are fed the same scalars, and keep what is odd about them: what a NaN or a plateau does to their windows is theirs.
"""

import math
from collections import Counter, deque
from collections.abc import Collection
from fractions import Fraction
from typing import ClassVar, Protocol

from mulligan.stability.detector import Detector


class Rule(Protocol):
    """``observe`` takes each step in turn, nats and the norm before clipping, and says whether it raises an alarm."""

    needs_norms: ClassVar[bool]

    def observe(self, step: int, loss: float, gradient_norm: float | None) -> bool: ...


class Mulligan:
    """Our detector. An alarm is a rewind: the detector is again as it was before the rise, steps included, and judges
    what comes next from there. So a long spike raises one alarm after another, and leaves nothing behind.
    """

    needs_norms: ClassVar[bool] = False

    def __init__(self, detector: Detector) -> None:
        self._detector, self._calm, self._calm_step, self._lost = detector, detector.state_dict(), 0, 0

    def observe(self, step: int, loss: float, gradient_norm: float | None) -> bool:
        judgement = self._detector.observe(step - self._lost, loss, 1.0 if gradient_norm is None else gradient_norm)
        if judgement.triggered is not None:
            self._detector.load_state_dict(self._calm)
            self._lost = step - self._calm_step
            return True
        if judgement.onset is None:
            self._calm, self._calm_step = self._detector.state_dict(), judgement.step
        return False


class SkipStep:
    """OLMo-core's SkipStepOptimizer (allenai/OLMo-core, olmo_core/optim/skip_step_optimizer.py, read at v2.5): an
    update is skipped when loss or norm lies more than ``width`` deviations above the mean of the ``window`` before it.

    Judging begins with half a window. Every value then enters the window, also one that was skipped or is not finite.
    """

    needs_norms: ClassVar[bool] = False

    def __init__(self, *, window: int = 128, width: float = 6.0) -> None:
        assert window >= 8
        self.window, self.width = window, width
        self._losses: deque[float] = deque(maxlen=window)
        self._norms: deque[float] = deque(maxlen=window)

    def observe(self, step: int, loss: float, gradient_norm: float | None) -> bool:
        within = True
        if len(self._losses) + 1 >= self.window // 2:  # theirs counts the judged value
            within = self._within(loss, self._losses)
            within = within and (gradient_norm is None or self._within(gradient_norm, self._norms))
        self._losses.append(loss)
        if gradient_norm is not None:
            self._norms.append(gradient_norm)
        return not within

    def _within(self, value: float, window: Collection[float]) -> bool:
        mean = sum(window) / len(window)
        variance = sum((other - mean) * (other - mean) for other in window) / (len(window) - 1)
        return value - mean <= self.width * math.sqrt(variance)  # false where a NaN is in the window


class SpikeDetection:
    """Lightning's SpikeDetection (lightning.fabric.utilities.spike, read at 2.6): the run is stopped when a loss above
    the last one is off the mean of the last ``window`` by ``rtol`` times that mean, or is not finite.

    What raised an alarm does not enter the window. ``atol``, nats, is a second condition; theirs is off by default.
    """

    needs_norms: ClassVar[bool] = False

    def __init__(self, *, window: int = 10, warmup: int = 1, atol: float | None = None, rtol: float = 2.0) -> None:
        self.warmup, self.atol, self.rtol = warmup, atol, rtol
        self._losses: deque[float] = deque(maxlen=window)
        self._seen = 0

    def observe(self, step: int, loss: float, gradient_norm: float | None) -> bool:
        self._seen += 1
        if self._seen > self.warmup and self._is_spike(loss):
            return True
        if math.isfinite(loss):
            self._losses.append(loss)
        return False

    def _is_spike(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return True
        if not self._losses or loss <= self._losses[-1]:
            return False
        mean = sum(self._losses) / len(self._losses)
        off = abs(loss - mean)
        return off >= abs(self.rtol * mean) and (self.atol is None or off >= abs(self.atol))


class RunningSum:
    """Of what was added and not taken off again, without a rounding that would stay: the window of a long run has
    50,000 losses, too many to add up at each step.
    """

    def __init__(self) -> None:
        self._finite = Fraction()
        self._others: Counter[str] = Counter()  # nan, inf

    def add(self, value: float, times: int = 1) -> None:
        if math.isfinite(value):
            self._finite += times * Fraction(value)
        else:
            self._others[str(value)] += times

    @property
    def value(self) -> float:
        return float(self._finite) + sum(float(name) for name, count in self._others.items() if count)


class KillLossSpike:
    """llm-foundry's KillLossSpike (mosaicml/llm-foundry, llmfoundry/callbacks/kill_loss_spike_callback.py): the run is
    stopped when more than ``patience`` losses in a row are ``multiplier`` times the mean of the last ``window``, or,
    after two windows, when half of the window is above ``loss_cap`` nats.

    Every loss enters the window. Theirs is a 20th of the run's steps, at least 100: give it so. It may also lower the
    cap to the first window's largest loss; whether it ever comes to that could not be verified, and it is left out.
    """

    needs_norms: ClassVar[bool] = False

    def __init__(
        self, *, window: int = 100, multiplier: float = 2.0, patience: int = 4, loss_cap: float = 10.0
    ) -> None:
        self.window, self.multiplier, self.patience, self.loss_cap = window, multiplier, patience, loss_cap
        self._losses: deque[float] = deque(maxlen=window)
        self._sum = RunningSum()
        self._seen = self._outliers = self._high = 0

    def observe(self, step: int, loss: float, gradient_norm: float | None) -> bool:
        self._seen += 1
        alarm = False
        if len(self._losses) == self.window:
            is_outlier = loss >= self.multiplier * self._sum.value / self.window
            self._outliers = self._outliers + 1 if is_outlier else 0
            is_high = self._seen >= 2 * self.window and self._high >= self.window / 2
            alarm = self._outliers > self.patience or is_high
            self._high -= self._losses[0] > self.loss_cap
            self._sum.add(self._losses[0], times=-1)
        self._losses.append(loss)
        self._sum.add(loss)
        self._high += loss > self.loss_cap
        return alarm


class ZClip:
    """ZClip (Kumar et al. 2025, arXiv 2504.02507; bluorion-com/ZClip): a gradient norm more than ``width`` deviations
    above its moving mean is clipped, the more the further it is off. An alarm is such a step.

    Mean and variance are those of the first ``warmup_steps`` norms and from then on decay by ``alpha`` a step; a
    clipped norm enters as what it was clipped to. Their clipping at a fixed norm of 1.0 besides is no alarm.
    """

    needs_norms: ClassVar[bool] = True

    def __init__(self, *, alpha: float = 0.97, width: float = 2.5, warmup_steps: int = 25) -> None:
        self.alpha, self.width, self.warmup_steps = alpha, width, warmup_steps
        self._first: list[float] = []
        self._mean = self._variance = 0.0

    def observe(self, step: int, loss: float, gradient_norm: float | None) -> bool:
        assert gradient_norm is not None
        if len(self._first) < self.warmup_steps:
            self._first.append(gradient_norm)
            self._mean = sum(self._first) / len(self._first)
            self._variance = sum((norm - self._mean) * (norm - self._mean) for norm in self._first) / len(self._first)
            return False
        deviation = math.sqrt(self._variance)
        score = (gradient_norm - self._mean) / (deviation + 1e-6)
        is_clipped = score > self.width
        norm = self._mean + self.width * deviation * (self.width / score) if is_clipped else gradient_norm
        self._mean = self.alpha * self._mean + (1.0 - self.alpha) * norm
        self._variance = self.alpha * self._variance + (1.0 - self.alpha) * (norm - self._mean) * (norm - self._mean)
        return is_clipped


def every_rule(detector: Detector, *, num_steps: int) -> dict[str, Rule]:
    """Ours and theirs by name, each with its published numbers, for a curve of ``num_steps``."""
    return {
        "mulligan": Mulligan(detector),
        "OLMo-core SkipStep": SkipStep(),
        "Lightning SpikeDetection": SpikeDetection(),
        "llm-foundry KillLossSpike": KillLossSpike(window=max(100, round(num_steps / 20))),
        "ZClip": ZClip(),
    }
