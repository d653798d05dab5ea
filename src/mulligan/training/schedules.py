"""Learning-rate schedules: pure functions from the step to a factor of the peak rate, each with a linear warm-up."""

import math
from typing import Literal, Protocol, get_args, runtime_checkable

Kind = Literal["cosine", "wsd", "linear", "constant"]


@runtime_checkable  # the command line checks values against it
class LearningRateSchedule(Protocol):
    def warmup_steps(self, num_steps: int) -> int:
        """Of a run of ``num_steps``."""
        ...

    def factor(self, step: int, num_steps: int) -> float:
        """Factor of the peak rate of the update after ``step`` of ``num_steps`` updates."""
        ...


class Schedule:
    """``factor`` is that of the update after ``step`` updates; ``warmup`` and ``decay`` are shares of the run.

    - ``cosine``: half a cosine from 1 to ``final`` (Loshchilov and Hutter 2017)
    - ``wsd``: constant, then linear to ``final`` over the last ``decay`` of the run (Hu et al. 2024, MiniCPM)
    - ``linear``: a straight line from 1 to ``final``
    - ``constant``: 1
    """

    def __init__(
        self,
        *,
        kind: Kind,
        warmup: float = 0.02,
        final: float = 0.1,
        decay: float = 0.2,
    ) -> None:
        if kind not in get_args(Kind):
            raise ValueError(f"schedule.kind={kind} must be one of {', '.join(get_args(Kind))}")
        for name, share in (("warmup", warmup), ("final", final), ("decay", decay)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"schedule.{name}={share} is a share and must be in [0, 1]")
        if kind == "wsd" and warmup + decay > 1.0:
            raise ValueError(
                f"schedule.warmup={warmup} and schedule.decay={decay} overlap: their sum must be at most 1"
            )
        self.kind, self.warmup, self.final, self.decay = kind, warmup, final, decay

    def warmup_steps(self, num_steps: int) -> int:
        """Of a run of ``num_steps``."""
        return _steps(self.warmup, num_steps)

    def factor(self, step: int, num_steps: int) -> float:
        """Factor of the peak rate at ``step`` of a run of ``num_steps``."""
        warmup_steps = self.warmup_steps(num_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if self.kind == "constant":
            return 1.0
        start = num_steps - _steps(self.decay, num_steps) if self.kind == "wsd" else warmup_steps
        progress = min(1.0, max(0.0, (step - start) / max(1, num_steps - start)))
        shape = 0.5 * (1.0 + math.cos(math.pi * progress)) if self.kind == "cosine" else 1.0 - progress
        return self.final + (1.0 - self.final) * shape


def _steps(share: float, num_steps: int) -> int:
    """Rounded up; 0.07 of 100 is 7, though the nearest floats have a product above that."""
    return math.ceil(round(share * num_steps, 6))
