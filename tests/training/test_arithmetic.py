"""Batch and length: what divides, and what the errors propose."""

from contextlib import nullcontext
from typing import Any

import pytest

from mulligan.training.arithmetic import accumulation_of, check_split, num_steps_of, samples_of_global_batch


def test_global_batch_from_samples_or_tokens() -> None:
    assert samples_of_global_batch(samples=8, tokens=None, sequence_length=256) == 8
    assert samples_of_global_batch(samples=None, tokens=2**19, sequence_length=1024) == 512


@pytest.mark.parametrize(
    ("micro_batch", "world_size", "expected"), [(None, 1, (16, 1)), (None, 4, (4, 1)), (2, 2, (2, 4)), (16, 1, (16, 1))]
)
def test_accumulation_follows(micro_batch: int | None, world_size: int, expected: tuple[int, int]) -> None:
    assert accumulation_of(global_batch=16, micro_batch=micro_batch, world_size=world_size) == expected


@pytest.mark.parametrize(
    ("options", "proposal"),
    [
        (
            {"global_batch": 16, "micro_batch": None, "world_size": 3},
            "nearest that can is 15 or 18, and 16 can over 2 or 4",
        ),
        ({"global_batch": 2, "micro_batch": None, "world_size": 4}, "nearest that can is 4, and 2 can over 2"),
        ({"global_batch": 16, "micro_batch": 5, "world_size": 1}, "nearest that does is 4"),
        ({"global_batch": 16, "micro_batch": 0, "world_size": 1}, "nearest that does is 1"),
    ],
)
def test_what_cannot_divide_names_the_nearest(options: dict[str, Any], proposal: str) -> None:
    with pytest.raises(ValueError, match=proposal):
        accumulation_of(**options)


@pytest.mark.parametrize(
    ("size", "named"), [(3, "ranks=16: the nearest that divides all it has to is 2"), (8, "heads=12.* is 4"), (2, None)]
)
def test_tensor_parallel_ranks_divide_all(size: int, named: str | None) -> None:
    with nullcontext() if named is None else pytest.raises(ValueError, match=f"tensor_parallel_size={size} .*{named}"):
        check_split(size, {"ranks": 16, "heads": 12, "width": 32})


def test_tokens_name_the_nearest_multiples() -> None:
    with pytest.raises(ValueError, match="1024 or 2048"):
        samples_of_global_batch(samples=None, tokens=1500, sequence_length=1024)


@pytest.mark.parametrize(
    ("given", "expected"), [({"steps": 7}, 7), ({"tokens": 1001}, 11), ({"tokens_per_parameter": 20.0}, 200)]
)
def test_length(given: dict[str, Any], expected: int) -> None:
    nothing: dict[str, Any] = {"steps": None, "tokens": None, "tokens_per_parameter": None}
    assert num_steps_of(**(nothing | given), tokens_per_step=100, num_parameters=1000) == expected


def test_length_is_given_once() -> None:
    with pytest.raises(ValueError, match="max_steps=1, max_tokens=2"):
        num_steps_of(steps=1, tokens=2, tokens_per_parameter=None, tokens_per_step=1, num_parameters=1)
