"""What one rank holds in memory, in bytes by part, at the point where a step needs most: forward is done.

Activations are what eager PyTorch keeps for the backward pass, as Korthikanti et al. 2022, section 4, count them, of
this model, whose attention keeps no scores (Dao et al. 2022). The masks of dropout and documents are not counted.
"""

from dataclasses import dataclass

from mulligan.model.config import ModelConfig
from mulligan.objective.linear_cross_entropy import rows_of_a_chunk
from mulligan.objective.next_token import PLAIN_VOCABULARY
from mulligan.objective.row_loss import rows_of_scratch

PLAIN_HEAD_COPIES = 6  # of its logits in float32: themselves, two log-softmaxes, and the gradients of the three
GATHERED_BLOCKS = 2  # that FSDP2 holds whole at once: one computes, the next one comes
# On a CPU: pages of the libraries and their buffers that come to use after they are imported, of a model of no size.
LIBRARIES_AT_WORK_BYTES = 40e6
# On a CPU: what comes and goes in a step leaves holes in glibc's heap. Seen: 0.6; none where each block is mapped.
HEAP_HOLES = 2.0 / 3.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a run lies on its devices. ``data_parallel_size`` ranks (or groups of ``tensor_parallel_size``) read
    different samples, ``micro_batch`` of them at once. ``sharded`` is FSDP2, else each rank has all.
    """

    precision: str
    sharded: bool = False
    data_parallel_size: int = 1
    tensor_parallel_size: int = 1
    micro_batch: int
    sequence_length: int
    activation_checkpointing: bool = False
    copies_gradients: bool = False  # into DDP's buckets, where they are no views of them
    on_cpu: bool = False

    @property
    def kept_bytes(self) -> int:
        """Of a weight, a gradient, a moment and an entry of the stream between the blocks."""
        return 2 if self.precision == "bf16-true" else 4

    @property
    def computed_bytes(self) -> int:
        """Of an entry that a matrix is multiplied with."""
        return 4 if self.precision == "32-true" else 2

    @property
    def is_mixed(self) -> bool:
        return self.precision.endswith("mixed")


def parameters_of_rank(model: ModelConfig, layout: Layout) -> float:
    """Numbers of the model that one rank keeps. Tensor parallelism splits the matrices of the blocks alone."""
    if not layout.sharded:
        return model.num_parameters
    matrices = model.num_layers * model.num_block_matrix_parameters
    rest = model.num_parameters - matrices
    return (matrices / layout.tensor_parallel_size + rest) / layout.data_parallel_size


def state_bytes(model: ModelConfig, layout: Layout) -> float:
    """One rank's part of what a snapshot and a checkpoint hold: weights and two moments."""
    return 3 * parameters_of_rank(model, layout) * layout.kept_bytes


def rank_memory(model: ModelConfig, layout: Layout) -> dict[str, float]:
    """Bytes of one rank by part, without the libraries, snapshots and checkpoints."""
    own = parameters_of_rank(model, layout) * layout.kept_bytes
    parts = {"weights": own, "gradients": own, "moments": 2 * own}
    if layout.copies_gradients:
        parts["DDP buckets"] = own
    if layout.sharded:
        parts["gathered weights, gradients"] = _gathered(model, layout)
    elif layout.is_mixed:  # autocast keeps them from forward to backward
        parts["weights as computed with"] = model.num_layers * model.num_block_matrix_parameters * layout.computed_bytes
    head = _head(model, layout)
    parts["activations"] = _activations(model, layout, head)
    parts["loss head"] = head
    return parts


def heap_holes(parts: dict[str, float]) -> float:
    """Bytes that a CPU's allocator keeps beside ``parts``."""
    return HEAP_HOLES * (parts["activations"] + parts["loss head"])


def _gathered(model: ModelConfig, layout: Layout) -> float:
    """FSDP2's whole blocks and the gradient of one in float32; what is outside the blocks stays whole after forward."""
    block = model.num_block_matrix_parameters / layout.tensor_parallel_size
    blocks = min(GATHERED_BLOCKS, model.num_layers) * block * layout.computed_bytes + block * 4
    outside = model.num_parameters - model.num_layers * model.num_block_matrix_parameters
    return blocks + outside * (layout.kept_bytes + 4)


def _activations(model: ModelConfig, layout: Layout, head: float) -> float:
    tokens = layout.micro_batch * layout.sequence_length
    block = _block_bytes_per_token(model, layout)
    input_of_block = model.width * layout.kept_bytes
    token_and_target = 2 * 8
    around = tokens * (_norm_bytes_per_token(model, layout) + token_and_target)
    if not layout.activation_checkpointing:
        return around + tokens * model.num_layers * block
    # One block at a time, with the gradients of the stream and of its widest entries, when the head's memory is free.
    again = block + input_of_block + model.feedforward_width * layout.computed_bytes / layout.tensor_parallel_size
    return around + tokens * model.num_layers * input_of_block + max(0.0, tokens * again - head)


def _block_bytes_per_token(model: ModelConfig, layout: Layout) -> float:
    width, split, computed = model.width, layout.tensor_parallel_size, layout.computed_bytes
    key_value_width = model.key_value_heads * model.head_width
    is_swiglu = model.feedforward == "swiglu"
    # Autocast makes a copy of the norms' outputs for each of the matrices: q, k, v, up and gate.
    inputs = width * computed * ((5 if is_swiglu else 4) if layout.is_mixed else 2)
    attention = computed * (2 * width + 2 * key_value_width) + 4 * model.num_heads  # q, k, v, out; the log-sums
    if model.qk_norm:  # in float32, and the heads' outputs once more in the order of the tokens
        attention += (width + key_value_width) * 4 * (2 if layout.on_cpu else 1) + width * computed
    feedforward = computed * model.feedforward_width * (4 if is_swiglu else 2)
    return 2 * _norm_bytes_per_token(model, layout) + inputs + (attention + feedforward) / split


def _norm_bytes_per_token(model: ModelConfig, layout: Layout) -> float:
    """Its input. A CPU has no kernel for the whole of RMSNorm, which then keeps what it has normalized as well."""
    normalized = 4 * model.width if layout.on_cpu and model.norm == "rms" else 0
    return model.width * layout.kept_bytes + normalized


def _head(model: ModelConfig, layout: Layout) -> float:
    """objective/linear_cross_entropy.py's buffers and the two gradients that it makes in the forward pass."""
    tokens, vocabulary = layout.micro_batch * layout.sequence_length, model.vocab_size
    computed = layout.computed_bytes
    hidden = 2 * tokens * model.width * layout.kept_bytes  # and its gradient
    if vocabulary <= PLAIN_VOCABULARY:
        return hidden + tokens * vocabulary * (computed + PLAIN_HEAD_COPIES * 4)
    rows = rows_of_a_chunk(tokens, vocabulary, bytes_of_a_logit=computed, on_cpu=layout.on_cpu)
    logits = rows * vocabulary * computed
    weight = vocabulary * model.width
    if computed == 4:
        return hidden + logits + 4 * weight
    scratch_rows = rows_of_scratch(rows, vocabulary) if layout.on_cpu else 0  # a GPU's kernel, where it is, needs none
    copies = 4 + (computed if layout.is_mixed else 0) + (computed if layout.on_cpu else 0)  # gradient, weight, product
    return hidden + logits + 4 * vocabulary * scratch_rows + copies * weight
