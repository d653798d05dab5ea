"""Weights in parts on meshes of every shape: each rank has the right block, and the whole is there once."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed.fake_pg import FakeStore

from mulligan.model.config import ModelConfig
from mulligan.model.parallel_plan import split_blocks
from mulligan.model.parts import fill, is_first_copy, num_copies, offsets_of
from mulligan.model.transformer import Transformer

CONFIG = ModelConfig(
    vocab_size=50, max_length=32, width=16, num_layers=1, num_heads=4, num_key_value_heads=2, feedforward_width=20,
    qk_norm=True, bias=True,
)  # fmt: skip


@contextmanager
def as_rank(rank: int, data_parallel: int, tensor_parallel: int) -> Iterator[Transformer]:
    """The model, its weights undefined, as this rank of a mesh holds it; nothing is sent."""
    _clear_sharding_prop_cache()  # which does not know that this process changes its rank
    dist.init_process_group("fake", rank=rank, world_size=data_parallel * tensor_parallel, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (data_parallel, tensor_parallel), mesh_dim_names=("data", "tensor"))
        model = Transformer(CONFIG)
        if tensor_parallel > 1:
            split_blocks(model, mesh["tensor"])
        for module in (*model.blocks, model):
            fully_shard(module, mesh=mesh["data"])
        yield model
    finally:
        dist.destroy_process_group()


SPLIT = (".q.", ".k.", ".v.", "gate.", "up.", "out.weight", "down.weight")


@torch.no_grad()
@pytest.mark.parametrize(("data_parallel", "tensor_parallel"), [(2, 1), (1, 2), (2, 2), (3, 2)])
def test_first_copies_are_the_whole_and_hold_nothing_twice(data_parallel: int, tensor_parallel: int) -> None:
    wanted, num_ranks = dict(Transformer(CONFIG).named_parameters()), data_parallel * tensor_parallel
    found = {name: torch.full_like(whole, torch.nan) for name, whole in wanted.items()}
    for rank in range(num_ranks):
        with as_rank(rank, data_parallel, tensor_parallel) as model:
            for name, weight in model.named_parameters():
                fill(weight, wanted[name])
                is_split = any(part in name for part in SPLIT)
                assert num_copies(weight, num_ranks) == (1 if is_split else tensor_parallel), name
                assert is_first_copy(weight) == (is_split or rank % tensor_parallel == 0), name
                part, block = weight.to_local(), found[name]
                for dim, (start, length) in enumerate(zip(offsets_of(weight), part.shape, strict=True)):
                    block = block.narrow(dim, start, length)
                if is_first_copy(weight):
                    assert block.isnan().all(), name
                    block.copy_(part)
    assert all(found[name].equal(whole) for name, whole in wanted.items())
