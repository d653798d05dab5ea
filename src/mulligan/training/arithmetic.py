"""How batch and length divide: pure functions whose errors name the nearest numbers that work."""

from typing import NamedTuple

from mulligan.model.config import ModelConfig


def samples_of_global_batch(*, samples: int | None, tokens: int | None, sequence_length: int) -> int:
    """The global batch in samples, from exactly one of ``samples`` and ``tokens``."""
    if (samples is None) == (tokens is None):
        raise ValueError(f"give one of global_batch_samples={samples} and global_batch_tokens={tokens}, null the other")
    if tokens is not None:
        if tokens < sequence_length or tokens % sequence_length:
            below = max(1, tokens // sequence_length) * sequence_length
            raise ValueError(
                f"global_batch_tokens={tokens} must be a multiple of sequence_length={sequence_length}: "
                f"{below} or {below + sequence_length}"
            )
        return tokens // sequence_length
    assert samples is not None
    if samples < 1:
        raise ValueError(f"global_batch_samples={samples} must be at least 1")
    return samples


class Sizes(NamedTuple):
    """What belongs to the run, whatever machines it has."""

    global_batch: int  # samples of a step
    tokens_per_step: int
    num_steps: int


def sizes_of(
    *,
    sequence_length: int,
    global_batch_samples: int | None,
    global_batch_tokens: int | None,
    max_steps: int | None,
    max_tokens: int | float | None,
    max_tokens_per_parameter: float | None,
    num_parameters: int,
) -> Sizes:
    global_batch = samples_of_global_batch(
        samples=global_batch_samples, tokens=global_batch_tokens, sequence_length=sequence_length
    )
    num_steps = num_steps_of(
        steps=max_steps,
        tokens=max_tokens,
        tokens_per_parameter=max_tokens_per_parameter,
        tokens_per_step=global_batch * sequence_length,
        num_parameters=num_parameters,
    )
    return Sizes(global_batch, global_batch * sequence_length, num_steps)


def accumulation_of(
    *, global_batch: int, micro_batch: int | None, world_size: int, tensor_parallel_size: int = 1
) -> tuple[int, int]:
    """(samples of a micro-batch, micro-batches a step) of each rank; without ``micro_batch`` one does the step.

    ``world_size`` counts the ranks that read different samples, each of them ``tensor_parallel_size`` ranks in fact.
    """
    if global_batch % world_size:
        below, above = global_batch // world_size * world_size, -(-global_batch // world_size) * world_size
        nearest = f"{below} or {above}" if below else str(above)
        fewer = max(ranks for ranks in range(1, world_size) if global_batch % ranks == 0)
        more = next((ranks for ranks in range(world_size + 1, global_batch + 1) if global_batch % ranks == 0), None)
        ranks = f"{world_size * tensor_parallel_size} ranks"
        if tensor_parallel_size > 1:
            ranks += f" in groups of {tensor_parallel_size}"
        able = " or ".join(str(count * tensor_parallel_size) for count in (fewer, more) if count is not None)
        raise ValueError(
            f"global_batch_samples={global_batch} cannot be split over {ranks}: the nearest that can is {nearest}, "
            f"and {global_batch} can over {able}"
        )
    per_rank = global_batch // world_size
    if micro_batch is None:
        return per_rank, 1
    if micro_batch < 1 or per_rank % micro_batch:
        divisors = [size for size in range(1, per_rank + 1) if per_rank % size == 0]
        nearest_size = min(divisors, key=lambda size: (abs(size - micro_batch), size))
        raise ValueError(
            f"micro_batch={micro_batch} must divide the {per_rank} samples of a rank: "
            f"the nearest that does is {nearest_size}"
        )
    return micro_batch, per_rank // micro_batch


def check_length(*, sequence_length: int, max_length: int) -> None:
    if sequence_length < 1 or sequence_length > max_length:
        raise ValueError(f"sequence_length={sequence_length} must be in [1, model.max_length={max_length}]")


def check_tensor_parallel(size: int, *, model: ModelConfig, num_ranks: int) -> None:
    """Raise ValueError unless groups of ``size`` ranks can split every block of ``model``."""
    check_split(
        size,
        {
            "trainer.devices x trainer.num_nodes": num_ranks,
            "model.num_heads": model.num_heads,
            "model.num_key_value_heads": model.key_value_heads,
            "model.feedforward_width": model.feedforward_width,
        },
    )


def check_split(size: int, divided: dict[str, int]) -> None:
    """Raise ValueError unless tensor parallelism of ``size`` ranks divides each number."""
    sizes = [able for able in range(1, min(divided.values()) + 1) if not any(n % able for n in divided.values())]
    for name, number in divided.items():
        if number % size:
            nearest = min(sizes, key=lambda able: (abs(able - size), able))
            raise ValueError(
                f"trainer.strategy.tensor_parallel_size={size} must divide {name}={number}: the nearest that divides "
                f"all it has to is {nearest}"
            )


def num_steps_of(
    *,
    steps: int | None,
    tokens: int | float | None,
    tokens_per_parameter: float | None,
    tokens_per_step: int,
    num_parameters: int,
) -> int:
    """Length of the run in steps, from exactly one of the three; 20 tokens a parameter is Chinchilla's."""
    given = {
        "max_steps": steps, "max_tokens": tokens, "max_tokens_per_parameter": tokens_per_parameter
    }  # fmt: skip
    named = [f"{name}={number}" for name, number in given.items() if number is not None]
    if len(named) != 1:
        raise ValueError(
            f"give exactly one of {', '.join(given)}, and null for the others; given: {', '.join(named) or 'none'}"
        )
    if tokens_per_parameter is not None:
        if not 0.0 < tokens_per_parameter < float("inf"):
            raise ValueError(f"max_tokens_per_parameter={tokens_per_parameter} must be a number above 0")
        tokens = round(tokens_per_parameter * num_parameters)
    if isinstance(tokens, float) and not tokens.is_integer():  # 1e12 is one, as YAML reads it
        raise ValueError(f"max_tokens={tokens} must be a whole number")
    count = steps if steps is not None else -(-int(tokens or 0) // tokens_per_step)
    if count < 1:
        raise ValueError(f"{named[0]} must give at least one step of {tokens_per_step} tokens")
    return count
