"""Time and cost follow from the peak, the share of it, and the price."""

from mulligan.planning.pace import Pace


def test_time_and_compute_are_each_others_inverse() -> None:
    pace = Pace(num_devices=8, peak_flops=1e15, mfu=0.5, price_per_hour=2.0)
    assert pace.seconds(4e15) == 1.0
    assert pace.seconds(pace.flops_in(3.0)) == 3.0 * 3600.0
    told = pace.numbers(pace.flops_in(3.0))
    assert (told["device_hours"], told["cost"]) == (24.0, 48.0)
    assert Pace(8, 1e15, 0.5, None).numbers(1e18)["cost"] is None
