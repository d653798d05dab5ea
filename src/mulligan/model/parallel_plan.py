"""Tensor parallelism (Shoeybi et al. 2019): several ranks share the heads and the feed-forward width of every block.

Each rank multiplies with its rows of the projections into the heads and the feed-forward network, and with its columns
of those back; the stream between them is whole on every rank. Two sums over the ranks a block and pass.
"""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)  # fmt: skip

from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer


def split_blocks(model: Transformer, mesh: DeviceMesh) -> None:
    """Split every block over the ranks of the one-dimensional ``mesh``, whose size divides both numbers of heads and
    the feed-forward width. What lies outside the blocks, and their norms, stay whole.
    """
    for block in model.blocks:
        parallelize_module(block, mesh, _plan(model.config))


def _plan(config: ModelConfig) -> dict[str, ParallelStyle]:
    rows = ["attention.q", "attention.k", "attention.v", "feedforward.up"]
    if config.feedforward == "swiglu":
        rows.append("feedforward.gate")
    plan: dict[str, ParallelStyle] = {name: ColwiseParallel() for name in rows}
    plan |= {name: RowwiseParallel() for name in ("attention.out", "feedforward.down")}
    # The input of all three projections, or both, is made one tensor of the mesh: one sum of its gradient.
    whole = Replicate()
    plan["attention"] = PrepareModuleInput(input_layouts=(whole, None, None), desired_input_layouts=(whole, None, None))
    plan["feedforward"] = PrepareModuleInput(input_layouts=whole, desired_input_layouts=whole)
    if config.qk_norm:  # one weight for all heads, of which each rank sees some: its gradient is summed over them
        over_heads = SequenceParallel(sequence_dim=1, use_local_output=True)  # B, H, T, K: the heads are what is split
        plan |= dict.fromkeys(("attention.q_norm", "attention.k_norm"), over_heads)
    return plan
