"""Has the loss left its band? Judged from one step's loss after another, against a window of accepted values.

Only finite values inside the band enter the window, so neither a spike nor the plateau after it is ever learnt as
normal, and one NaN hides nothing. Centre and scale are medians, which a few odd values do not move; the centre follows
a falling loss, and never a rising one.
"""

import math
from collections import deque
from statistics import median
from typing import Any, Literal, NamedTuple

MAD_TO_DEVIATION = 1.4826  # of a normal distribution
Reason = Literal["loss", "not finite", "drift"]


class Judgement(NamedTuple):
    """What one step's loss was held against. ``onset`` is the first step of the present rise, None inside the band;
    ``triggered`` says that the detector is sure. ``centre`` and ``limit`` are nats, NaN before there is a band.
    """

    step: int
    loss: float
    centre: float
    limit: float
    onset: int | None
    triggered: Reason | None


class Detector:
    """One-sided, robust and aware of drift; its whole state is in ``state_dict``.

    The band ends ``max(min_rise, width * scale)`` nats above the centre. A loss outside it counts one up, a loss inside
    it one down; at ``patience`` the detector is sure, and the onset is the step at which the count left zero. A loss
    that creeps up inside the band is caught when its centre stands as far above the lowest centre so far.
    """

    def __init__(
        self,
        *,
        window: int = 64,
        width: float = 6.0,
        min_rise: float = 0.2,
        patience: int = 3,
        warmup_steps: int = 50,
        norm_ratio: float = 20.0,
    ) -> None:
        """``window`` and ``patience`` in steps, ``min_rise`` in nats, ``width`` in standard deviations.

        During the first ``warmup_steps`` only a value that is not finite triggers. ``norm_ratio``: a gradient norm this
        many times the window's median is a bad gradient by itself.
        """
        for name, number, least in (
            ("window", window, 8),
            ("patience", patience, 1),
            ("warmup_steps", warmup_steps, 0),
        ):
            if number < least:
                raise ValueError(f"stability.detector.{name}={number} must be at least {least}")
        for name, value in (("width", width), ("min_rise", min_rise)):
            if not 0.0 < value < math.inf:
                raise ValueError(f"stability.detector.{name}={value} must be a number above 0")
        if not norm_ratio > 1.0:
            raise ValueError(f"stability.detector.norm_ratio={norm_ratio} must be above 1")
        self.window, self.width, self.min_rise = window, width, min_rise
        self.patience, self.warmup_steps, self.norm_ratio = patience, warmup_steps, norm_ratio
        self.reset()

    def reset(self) -> None:
        """Judge with a fresh window: after a change of the rate, the batch, the length or the data."""
        self._steps: deque[int] = deque(maxlen=self.window)
        self._losses: deque[float] = deque(maxlen=self.window)
        self._norms: deque[float] = deque(maxlen=self.window)
        self._seen = 0
        self._excess = 0
        self._onset: int | None = None
        self._lowest: tuple[float, int] | None = None  # centre, step

    @property
    def norm_limit(self) -> float:
        """Above this a gradient norm is that of a bad gradient; infinite until there is a window of norms."""
        return self.norm_ratio * median(self._norms) if len(self._norms) >= self.window // 2 else math.inf

    def observe(self, step: int, loss: float, gradient_norm: float) -> Judgement:
        """Judge the loss (nats a token, over all ranks) and the gradient norm before clipping of ``step``."""
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            self._onset = step if self._onset is None else self._onset
            return Judgement(step, loss, math.nan, math.nan, self._onset, "not finite")
        armed = self._seen >= self.warmup_steps and len(self._losses) >= self.window // 2
        self._seen += 1
        if not armed:
            self._accept(step, loss, gradient_norm)
            return Judgement(step, loss, math.nan, math.nan, None, None)
        centre, scale = self._band(step)
        rise = max(self.min_rise, self.width * scale)
        limit = centre + rise
        if loss > limit:
            self._excess += 1
            self._onset = step if self._onset is None else self._onset
            triggered: Reason | None = "loss" if self._excess >= self.patience else None
            return Judgement(step, loss, centre, limit, self._onset, triggered)
        self._excess = max(0, self._excess - 1)
        self._onset = None if self._excess == 0 else self._onset
        self._accept(step, loss, gradient_norm)
        if self._lowest is None or centre <= self._lowest[0]:
            self._lowest = centre, step
        if centre > self._lowest[0] + rise:
            return Judgement(step, loss, centre, self._lowest[0] + rise, self._lowest[1], "drift")
        return Judgement(step, loss, centre, limit, self._onset, None)

    def _accept(self, step: int, loss: float, gradient_norm: float) -> None:
        self._steps.append(step)
        self._losses.append(loss)
        self._norms.append(gradient_norm)

    def _band(self, step: int) -> tuple[float, float]:
        """Centre and scale at ``step``: of a line through the medians of the window's halves."""
        steps, losses = list(self._steps), list(self._losses)
        half = len(losses) // 2
        older, newer = median(losses[:half]), median(losses[half:])
        older_step, newer_step = median(steps[:half]), median(steps[half:])
        slope = min(0.0, (newer - older) / (newer_step - older_step))
        deviations = (abs(loss - newer - slope * (at - newer_step)) for at, loss in zip(steps, losses, strict=True))
        return newer + slope * (step - newer_step), MAD_TO_DEVIATION * median(deviations)

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": list(self._steps),
            "losses": list(self._losses),
            "norms": list(self._norms),
            "seen": self._seen,
            "excess": self._excess,
            "onset": self._onset,
            "lowest": None if self._lowest is None else list(self._lowest),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        self._steps.extend(state["steps"])
        self._losses.extend(state["losses"])
        self._norms.extend(state["norms"])
        self._seen, self._excess, self._onset = state["seen"], state["excess"], state["onset"]
        self._lowest = None if state["lowest"] is None else (state["lowest"][0], state["lowest"][1])
