"""Collectives as they are planned, and as tests/training/train_and_record.py saw them, in the same form."""

from collections import Counter
from dataclasses import replace
from typing import Any

from mulligan.model.config import ModelConfig
from mulligan.planning.memory import Layout
from mulligan.planning.messages import messages_of

NAMED = {
    "all-reduce": ("c10d::allreduce_", "_c10d_functional::all_reduce"),
    "all-gather": ("c10d::_allgather_base_",),
    "reduce-scatter": ("c10d::_reduce_scatter_base_",),
}
# As tests/conftest.py's tiny.
MODEL = ModelConfig(
    vocab_size=400, max_length=256, width=16, num_layers=2, num_heads=2, feedforward_width=32, qk_norm=True
)
LAYOUT = Layout(precision="bf16-mixed", micro_batch=2, sequence_length=32)
SHAPES = {
    "cpu_ddp": replace(LAYOUT, data_parallel_size=2),
    "cpu_fsdp": replace(LAYOUT, sharded=True, data_parallel_size=2),
    "cpu_tp": replace(LAYOUT, sharded=True, tensor_parallel_size=2, micro_batch=4),
}


def sent(seen: dict[str, Any]) -> dict[str, dict[int, int]]:
    """Of a step, by operation: how many collectives of so many bytes."""
    found = {}
    for operation, names in NAMED.items():
        counts = {(name, size): count for (name, size), count in seen["sent"].items() if name in names}
        found[operation] = {size: 0 for _, size in counts}
        for (_, size), count in counts.items():
            found[operation][size] += count
    return {name: {size: count // 2 for size, count in counts.items()} for name, counts in found.items() if counts}


def planned(trainer: str, *, accumulation: int = 1, **changes: Any) -> dict[str, dict[int, int]]:
    """Of a step of the tiny model, as ``sent``."""
    layout = replace(SHAPES[trainer], **changes)
    layout = replace(layout, micro_batch=layout.micro_batch // accumulation)
    found: dict[str, Counter[int]] = {}
    for one in messages_of(MODEL, layout).of_step(MODEL.num_layers, accumulation):
        found.setdefault(one.operation, Counter())[one.num_bytes] += one.times
    return {operation: dict(counts) for operation, counts in found.items()}
