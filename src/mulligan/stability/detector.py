"""Has the loss risen? Judged from one step's loss after another, against a window of accepted values.

A one-sided cumulative sum (Page 1954, "Continuous inspection schemes") over a robust centre and scale. While the sum is
above zero values wait, and enter the window only if it comes back to zero: so neither a spike nor the plateau after it
is learnt as normal, but the upper half of what is normal is. One NaN hides nothing. Centre and scale are medians, which
a few odd values do not move.
"""

import math
from collections import deque
from statistics import median
from typing import Any, Literal, NamedTuple

MAD_TO_DEVIATION = 1.4826  # of a normal distribution
RUN = 4  # steps whose mean the scale is taken from: losses that stray together make it wider than lone ones do
FULL = 2.0  # slacks above the limit at which a step counts one; no more beyond, for it may be an outlier
Reason = Literal["loss", "not finite", "gradient"]  # the last is the guard's: too many bad ones


class Judgement(NamedTuple):
    """What one step's loss was held against. ``onset`` is the first step of the present rise, None where there is none;
    ``triggered`` says that the detector is sure. ``centre`` and ``limit`` are nats, NaN before there is a window.
    """

    step: int
    loss: float
    centre: float
    limit: float
    onset: int | None
    triggered: Reason | None


class Detector:
    """One-sided, robust and aware of drift; its whole state is in ``state_dict``.

    The limit lies one slack, ``max(min_rise, width * scale)`` nats, above the centre. A loss at the limit adds nothing
    to the sum, one above it up to 1, reached ``FULL`` slacks higher, and one below it takes off in the same proportion.
    At ``patience`` the detector is sure; the onset is the step at which the sum left zero.

    The centre is the median of the newest quarter of the window. It is never below what was seen, so that the end of a
    fall is no rise, and follows a creeping rise no further than one slack above the lowest it has been.
    """

    def __init__(
        self,
        *,
        window: int = 128,
        width: float = 2.25,
        min_rise: float = 0.15,
        patience: int = 3,
        warmup_steps: int = 50,
        norm_ratio: float = 20.0,
    ) -> None:
        """``window`` in accepted values, ``width`` in standard deviations, ``min_rise`` in nats: a smaller rise never
        counts, however long. ``patience``: the fewest steps to be sure in.

        During the first ``warmup_steps``, and until half a window is full, only a value that is not finite triggers.
        ``norm_ratio``: a gradient norm this many times the window's median is a bad gradient by itself.
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
        self._losses: deque[float] = deque(maxlen=self.window)
        self._deviations: deque[float] = deque(maxlen=self.window)
        self._norms: deque[float] = deque(maxlen=self.window)
        self._waiting: deque[tuple[float, float | None]] = deque(maxlen=self.window)  # losses and norms of a rise
        self._seen = 0
        self._sum = 0.0
        self._onset: int | None = None
        self._is_sure = False  # of this rise
        self._lowest = math.inf  # centre
        self._lenient = 0  # values to accept with twice the slack

    def expect_a_rise(self) -> None:
        """Follow the loss to another level, once, by a slack more than else: where a cut of the rate ends."""
        self._lowest = math.inf
        self._lenient = self.window // 4  # then the centre is of new values alone

    @property
    def has_settled(self) -> bool:
        """Whether a rise has lasted for a whole window."""
        return len(self._waiting) == self.window

    def settle(self) -> None:
        """Take the rise for normal: where nothing goes back, what comes after it is to be seen."""
        self._lowest = math.inf
        self._take_in()

    @property
    def norm_limit(self) -> float:
        """Above this a gradient norm is that of a bad gradient; infinite until there is a window of norms."""
        return self.norm_ratio * median(self._norms) if len(self._norms) >= self.window // 2 else math.inf

    def observe(self, step: int, loss: float, gradient_norm: float | None) -> Judgement:
        """Judge the loss (nats a token, over all ranks) and the gradient norm before clipping of ``step``, if known."""
        if not (math.isfinite(loss) and math.isfinite(gradient_norm or 0.0)):
            self._onset = step if self._onset is None else self._onset
            return Judgement(step, loss, math.nan, math.nan, self._onset, "not finite")
        armed = self._seen >= self.warmup_steps and len(self._losses) >= self.window // 2
        self._seen += 1
        if not armed:
            self._accept(loss, gradient_norm)
            return Judgement(step, loss, math.nan, math.nan, None, None)
        recent = self._recent(loss)
        slack = max(self.min_rise, self.width * self._scale()) * (2 if self._lenient else 1)
        self._lowest = min(self._lowest, recent)
        centre = min(recent, self._lowest + slack)
        limit = centre + slack
        counted = min(1.0, (loss - limit) / (FULL * slack))
        self._sum = min(max(0.0, self._sum + counted), float(self.patience))
        self._waiting.append((loss, gradient_norm))
        if self._sum == 0.0:
            if self._is_sure:  # of a spike that is over
                self._waiting = deque([self._waiting[-1]], self.window)
            self._take_in()
        elif self._onset is None:
            self._onset = step
        triggered = self._sum >= self.patience
        self._is_sure |= triggered
        return Judgement(step, loss, centre, limit, self._onset, "loss" if triggered else None)

    def _take_in(self) -> None:
        """Accept what waits: nothing has come of it."""
        self._sum, self._onset, self._is_sure = 0.0, None, False
        for loss, gradient_norm in self._waiting:
            self._accept(loss, gradient_norm)
            self._lenient = max(0, self._lenient - 1)
        self._waiting.clear()

    def _recent(self, loss: float) -> float:
        """The median of the newest quarter of the window, or of ``loss`` alone."""
        return median(list(self._losses)[-(self.window // 4) :]) if self._losses else loss

    def _accept(self, loss: float, gradient_norm: float | None) -> None:
        centre = self._recent(loss)
        self._onset = None
        self._losses.append(loss)
        newest = list(self._losses)[-RUN:]
        self._deviations.append(sum(newest) / len(newest) - centre)
        if gradient_norm is not None:
            self._norms.append(gradient_norm)

    def _scale(self) -> float:
        """The standard deviation of a loss, by how means of ``RUN`` in a row stray from the centre of their time.

        Each half of the window by itself: a fall that slows down changes how late the centre is.
        """
        deviations, half = list(self._deviations), len(self._deviations) // 2
        strays = _strays(deviations[:half]) + _strays(deviations[half:])
        return MAD_TO_DEVIATION * math.sqrt(RUN) * median(strays)

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": list(self._losses),
            "deviations": list(self._deviations),
            "norms": list(self._norms),
            "waiting": list(self._waiting),
            "seen": self._seen,
            "sum": self._sum,
            "sure": self._is_sure,
            "onset": self._onset,
            "lowest": self._lowest,
            "lenient": self._lenient,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        self._losses.extend(state["losses"])
        self._deviations.extend(state["deviations"])
        self._norms.extend(state["norms"])
        self._waiting.extend((loss, norm) for loss, norm in state["waiting"])
        self._seen, self._sum, self._onset = state["seen"], state["sum"], state["onset"]
        self._is_sure, self._lowest, self._lenient = state["sure"], state["lowest"], state["lenient"]


def _strays(values: list[float]) -> list[float]:
    typical = median(values)
    return [abs(value - typical) for value in values]
