"""The best of each way on so many devices, or none."""

from dataclasses import replace

import pytest

from mulligan.model.config import ModelConfig
from mulligan.planning.communication import Network
from mulligan.planning.memory import Layout
from mulligan.planning.scaling import Point, points_of

MODEL = ModelConfig(vocab_size=32_000, max_length=2048, width=1536, num_layers=8, num_heads=6, feedforward_width=3072)
LAYOUT = Layout(precision="bf16-mixed", micro_batch=4, sequence_length=2048)
NETWORK = Network(devices_per_host=8, link_bandwidth=450e9, network_bandwidth=50e9)


def points(devices: int, global_batch: int, usable_bytes: float = 70e9) -> dict[str, Point | None]:
    return points_of(
        MODEL, LAYOUT, NETWORK, devices=devices, global_batch=global_batch, flops=4e14, usable_bytes=usable_bytes
    )


def test_more_devices_than_samples_are_left_to_tensor_parallelism() -> None:
    found = points(64, 32)
    assert found["ddp"] is None
    assert found["fsdp"] is None
    split = found["fsdp x tp"]
    assert split is not None
    assert (split.tensor_parallel_size, split.micro_batch) == (2, 1), "6 heads can be split by 2 alone, of 2, 4 and 8"


def test_the_micro_batch_is_the_largest_that_fits() -> None:
    roomy, tight, none = (points(8, 64, usable)["fsdp"] for usable in (70e9, 3e9, 1e6))
    assert roomy is not None
    assert tight is not None
    assert none is not None
    assert (roomy.micro_batch, roomy.fits) == (8, True)
    assert tight.fits
    assert tight.micro_batch < 8
    assert tight.efficiency < roomy.efficiency, "FSDP2 gathers for each micro-batch"
    assert (none.micro_batch, none.fits) == (1, False)


@pytest.mark.parametrize(("devices", "global_batch", "usable"), [(512, 4096, 70e9), (8, 64, 3e9)])
def test_speed_is_the_efficient_part_of_all_devices(devices: int, global_batch: int, usable: float) -> None:
    """With the second, steps of several micro-batches."""
    for point in points(devices, global_batch, usable).values():
        assert point is not None
        ideal = devices * 4e14 / MODEL.flops_per_token(2048)
        assert abs(point.tokens_per_second / (point.efficiency * ideal) - 1.0) < 1e-9


@pytest.mark.parametrize(("key_value_heads", "devices_per_host"), [(8, 8), (2, 8), (8, 6)])
def test_groups_divide_key_value_heads_and_hosts(key_value_heads: int, devices_per_host: int) -> None:
    """64 devices and 16 samples take groups of 4."""
    found = points_of(
        replace(MODEL, num_heads=8, num_key_value_heads=key_value_heads),
        LAYOUT,
        replace(NETWORK, devices_per_host=devices_per_host),
        devices=64,
        global_batch=16,
        flops=4e14,
        usable_bytes=70e9,
    )
    assert (found["fsdp x tp"] is not None) is (key_value_heads == devices_per_host == 8)


def test_a_batch_of_nothing_is_no_plan() -> None:
    assert set(points(8, 0).values()) == {None}
