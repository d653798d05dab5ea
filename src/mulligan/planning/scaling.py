"""A run on more and more devices: what each strategy makes of them, and where it stops paying."""

from dataclasses import replace
from typing import NamedTuple

from mulligan.model.config import ModelConfig
from mulligan.planning.communication import Network, step_of
from mulligan.planning.memory import Layout, rank_memory

DEVICES = tuple(2**power for power in range(3, 13))
PAYS = 0.5  # the efficiency below which more than half of the devices' time is lost
GROUPS = (2, 4, 8)  # of tensor parallelism
WAYS = {"ddp": (1,), "fsdp": (1,), "fsdp x tp": GROUPS}


class Point(NamedTuple):
    """One way on so many devices. ``efficiency`` is its share of what they would do if each worked for itself."""

    tokens_per_second: float
    efficiency: float
    tensor_parallel_size: int
    micro_batch: int
    fits: bool


def points_of(
    model: ModelConfig,
    layout: Layout,
    network: Network,
    *,
    devices: int,
    global_batch: int,
    flops: float,
    usable_bytes: float,
) -> dict[str, Point | None]:
    """The best of each of ``WAYS`` on ``devices`` that do ``flops`` of the model's a second each when alone; None where
    it cannot divide ``global_batch``, in samples, or the model. Precision and the rest are those of ``layout``.
    """
    found: dict[str, Point | None] = {}
    for way, sizes in WAYS.items():
        able = [size for size in sizes if _divides(size, model, network.devices_per_host, devices, global_batch)]
        points = []
        for size in able:
            groups = devices // size
            spread = replace(
                layout, sharded=way != "ddp", tensor_parallel_size=size, data_parallel_size=groups, micro_batch=1
            )
            spread, fits = _with_largest_micro_batch(model, spread, global_batch // groups, usable_bytes)
            accumulation = global_batch // groups // spread.micro_batch
            step = step_of(model, spread, network, accumulation=accumulation, flops=flops)
            speed = global_batch * layout.sequence_length / step.seconds
            points.append(Point(speed, step.efficiency, size, spread.micro_batch, fits))
        found[way] = max(points, key=lambda point: (point.fits, point.tokens_per_second), default=None)
    return found


def _divides(size: int, model: ModelConfig, devices_per_host: int, devices: int, global_batch: int) -> bool:
    whole = (devices, devices_per_host, model.num_heads, model.key_value_heads, model.feedforward_width)
    if size > 1 and any(number % size for number in whole):
        return False
    return global_batch > 0 and global_batch % (devices // size) == 0


def _with_largest_micro_batch(
    model: ModelConfig, layout: Layout, samples: int, usable_bytes: float
) -> tuple[Layout, bool]:
    """That fits, of those that divide the ``samples`` of a rank; or 1, which does not."""
    for micro_batch in sorted((size for size in range(1, samples + 1) if samples % size == 0), reverse=True):
        larger = replace(layout, micro_batch=micro_batch)
        if sum(rank_memory(model, larger).values()) <= usable_bytes:
            return larger, True
    return layout, False
