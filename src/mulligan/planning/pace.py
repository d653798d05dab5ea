"""How long a number of devices takes, and what that costs."""

from typing import Any, NamedTuple

SECONDS_PER_HOUR = 3600.0


class Pace(NamedTuple):
    """``peak_flops`` of one device; ``mfu`` is the share of it that goes into the model's FLOPs (Chowdhery et al. 2022,
    appendix B), so computing activations again lowers it. ``price_per_hour`` of one device, None where unknown.
    """

    num_devices: int
    peak_flops: float
    mfu: float
    price_per_hour: float | None

    def seconds(self, flops: float) -> float:
        return flops / (self.num_devices * self.peak_flops * self.mfu)

    def flops_in(self, hours: float) -> float:
        return hours * SECONDS_PER_HOUR * self.num_devices * self.peak_flops * self.mfu

    def numbers(self, flops: float) -> dict[str, Any]:
        device_hours = self.num_devices * self.seconds(flops) / SECONDS_PER_HOUR
        return {
            "num_devices": self.num_devices,
            "peak_flops": self.peak_flops,
            "mfu": self.mfu,
            "seconds": self.seconds(flops),
            "device_hours": device_hours,
            "cost": None if self.price_per_hour is None else device_hours * self.price_per_hour,
        }
