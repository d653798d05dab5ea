"""What a rank sends in one step: the collectives of DDP, FSDP2 and tensor parallelism, of this model, to the byte.

tests/planning/test_messages.py holds them against those that two ranks really made.
"""

from typing import Literal, NamedTuple

from mulligan.model.config import ModelConfig
from mulligan.planning.memory import Layout

REDUCED_BYTES = 4  # an entry of a gradient that FSDP2 sums
CARRIED = 2  # the loss and the count that travel with DDP's gradients, in float32
NORM_AND_SUMS = 3  # that follow FSDP2's gradients, in float32
Operation = Literal["all-reduce", "all-gather", "reduce-scatter"]


class Message(NamedTuple):
    """``times`` collectives of ``num_bytes`` each: of the whole that is gathered, summed, or scattered in the end."""

    operation: Operation
    num_bytes: int
    times: int = 1


class Messages(NamedTuple):
    """Of one micro-batch, ``block_`` of each block; ``last`` follow the last micro-batch of a step. ``block_shared``
    and ``block_shared_backward`` go over the ranks of tensor parallelism, all others over those that read different
    samples.
    """

    outside_gather: Message | None = None
    block_gather: Message | None = None  # forward, and once more backward
    block_reduce: Message | None = None
    outside_reduce: Message | None = None
    block_shared: tuple[Message, ...] = ()
    block_shared_backward: tuple[Message, ...] = ()
    last: tuple[Message, ...] = ()

    def of_step(self, num_layers: int, accumulation: int) -> list[Message]:
        """All of a step, those of the same kind apart where they come at different times."""
        of_block = (self.block_gather, self.block_gather, self.block_reduce)
        blocks = (*of_block, *self.block_shared, *self.block_shared_backward)
        found = [(one, num_layers * accumulation) for one in blocks]
        found += [(one, accumulation) for one in (self.outside_gather, self.outside_reduce)]
        found += [(one, 1) for one in self.last]
        return [one._replace(times=one.times * times) for one, times in found if one is not None]


def messages_of(model: ModelConfig, layout: Layout) -> Messages:
    """Of a rank in ``layout``; nothing goes over a group of one rank."""
    tensor, data = layout.tensor_parallel_size, layout.data_parallel_size
    if not layout.sharded:
        if data == 1:
            return Messages()
        gradients = model.num_parameters * layout.kept_bytes
        carried = CARRIED * 4
        if layout.kept_bytes == 4:  # in one stream of buckets
            return Messages(last=(Message("all-reduce", gradients + carried),))
        return Messages(last=(Message("all-reduce", gradients), Message("all-reduce", carried)))
    forward, backward = _shared(model, layout) if tensor > 1 else ((), ())
    if data == 1:
        last = (Message("all-reduce", NORM_AND_SUMS * 4),) if tensor > 1 else ()
        return Messages(block_shared=forward, block_shared_backward=backward, last=last)
    block = sum(_padded(rows, data) * columns for rows, columns in block_shapes(model, tensor))
    outside = sum(_padded(rows, data) * columns for rows, columns in outside_shapes(model))
    return Messages(
        outside_gather=Message("all-gather", outside * layout.kept_bytes),
        block_gather=Message("all-gather", block * layout.computed_bytes),
        block_reduce=Message("reduce-scatter", block * REDUCED_BYTES),
        outside_reduce=Message("reduce-scatter", outside * REDUCED_BYTES),
        block_shared=forward,
        block_shared_backward=backward,
        last=(Message("all-reduce", NORM_AND_SUMS * 4),),
    )


def _shared(model: ModelConfig, layout: Layout) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Sums over the ranks that share samples: what attention and feed-forward network put out, and the gradients of
    what goes into them (Shoeybi et al. 2019, figure 3).
    """
    stream = layout.micro_batch * layout.sequence_length * model.width
    # The gradients of three projections, or two, are added up in the type of what went into them, and then summed.
    back = (Message("all-reduce", stream * layout.kept_bytes, 2),)
    out = Message("all-reduce", stream * layout.computed_bytes, 2)
    again = (out._replace(times=1),) if layout.activation_checkpointing else ()  # the last is not needed
    norms = (Message("all-reduce", model.head_width * layout.computed_bytes, 2),) if model.qk_norm else ()
    return (out,), (*back, *again, *norms)


def block_shapes(model: ModelConfig, tensor_parallel_size: int = 1) -> list[tuple[int, int]]:
    """Rows and columns of each parameter of a block, on one of so many ranks that split it."""
    width, split = model.width, tensor_parallel_size
    heads, fed = width // split, model.feedforward_width // split
    key_values = model.key_value_heads * model.head_width // split
    into = [heads, key_values, key_values, fed, *([fed] if model.feedforward == "swiglu" else [])]
    shapes = [*((rows, width) for rows in into), (width, heads), (width, fed)]
    norms = [width] * (4 if model.norm == "layer" and model.bias else 2)
    vectors = [*norms, *([model.head_width] * 2 if model.qk_norm else [])]
    if model.bias:
        vectors += [*into, width, width]
    return [*shapes, *((entries, 1) for entries in vectors)]


def outside_shapes(model: ModelConfig) -> list[tuple[int, int]]:
    """Those of the embeddings, the last norm and a head of its own, which every rank of a block has whole."""
    vocabulary = (model.vocab_size, model.width)
    shapes = [vocabulary, *([] if model.tied_embeddings else [vocabulary])]
    if model.positions == "learned":
        shapes.append((model.max_length, model.width))
    return [*shapes, *[(model.width, 1)] * (2 if model.norm == "layer" and model.bias else 1)]


def _padded(rows: int, ranks: int) -> int:
    """FSDP2 gives each rank as many rows, so that more ranks than rows send rows that no one needs."""
    return -(-rows // ranks) * ranks
