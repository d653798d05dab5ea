"""Activations against what autograd keeps of the built model, state against its tensors, and what each choice saves."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from mulligan.model.config import ModelConfig
from mulligan.model.transformer import Transformer
from mulligan.objective.next_token import NextToken
from mulligan.planning.memory import Layout, heap_holes, parameters_of_rank, rank_memory, state_bytes

SHAPE: dict[str, Any] = {
    "vocab_size": 2048, "max_length": 128, "width": 96, "num_layers": 3, "num_heads": 4, "feedforward_width": 256
}  # fmt: skip
GPT2 = {"norm": "layer", "positions": "learned", "feedforward": "gelu", "bias": True}
BATCH, LENGTH = 8, 128


def saved_bytes(config: ModelConfig, precision: str, again: bool) -> int:
    """Of the memory that autograd keeps for the backward pass, without weights and their copies."""
    with torch.device("meta"):
        model = Transformer(config, checkpoints_activations=again)
    model.materialize("cpu", 0)
    weights = {parameter.numel() for parameter in model.parameters()}
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.numel() not in weights:
            kept[storage.data_ptr()] = tensor  # held, so that no other comes to its place
        return tensor

    tokens = torch.randint(0, config.vocab_size, (BATCH, LENGTH + 1))
    head = partial(NextToken(), targets_BT=tokens[:, 1:], softcap=None, regularized=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"),
    ):
        model(tokens[:, :-1], head=head)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def layout_of(precision: str, **options: Any) -> Layout:
    return Layout(precision=precision, micro_batch=BATCH, sequence_length=LENGTH, **options)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "options",
    [{}, {"qk_norm": True}, {"num_key_value_heads": 2}, GPT2],
    ids=["llama", "qk_norm", "grouped", "gpt2"],
)
def test_activations_are_what_autograd_keeps(options: dict[str, Any], precision: str) -> None:
    config = ModelConfig(**(SHAPE | options))
    told = rank_memory(config, layout_of(precision, on_cpu=True))["activations"]
    assert told == pytest.approx(saved_bytes(config, precision, again=False), rel=0.05)


def test_with_checkpointing_a_block_keeps_its_input_alone() -> None:
    config = ModelConfig(**SHAPE)
    told = [
        rank_memory(replace(config, num_layers=count), layout_of("32-true", activation_checkpointing=True))
        for count in (3, 4)
    ]
    kept = [saved_bytes(replace(config, num_layers=count), "32-true", again=True) for count in (3, 4)]
    more = told[1]["activations"] - told[0]["activations"]
    assert more == BATCH * LENGTH * config.width * 4
    assert more == pytest.approx(kept[1] - kept[0], rel=0.01)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("again", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("vocab_size", [4_096, 65_536])
def test_a_gpu_holds_at_most_what_is_planned(vocab_size: int, again: bool) -> None:
    """Of steps with two micro-batches: where there is but one, its gradients come when the activations go."""
    config = ModelConfig(**(SHAPE | {"width": 512, "num_layers": 8, "feedforward_width": 1408, "max_length": 1024}))
    config = replace(config, vocab_size=vocab_size)
    layout = Layout(precision="bf16-mixed", micro_batch=8, sequence_length=1024, activation_checkpointing=again)
    with torch.device("meta"):
        model = Transformer(config, checkpoints_activations=again)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model.materialize("cuda", 0)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):
        for _ in range(2):
            tokens = torch.randint(0, vocab_size, (8, 1025), device="cuda")
            head = partial(NextToken(), targets_BT=tokens[:, 1:], softcap=None, regularized=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(tokens[:, :-1], head=head).loss_sum
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    held = torch.cuda.max_memory_allocated() - before
    assert sum(rank_memory(config, layout).values()) == pytest.approx(held, rel=0.07)


def test_one_device_holds_weights_gradients_and_two_moments() -> None:
    config = ModelConfig(**SHAPE)
    parts = rank_memory(config, layout_of("32-true"))
    assert (parts["weights"], parts["gradients"], parts["moments"]) == tuple(
        config.num_parameters * number for number in (4, 4, 8)
    )
    assert state_bytes(config, layout_of("32-true")) == 12 * config.num_parameters
    assert state_bytes(config, layout_of("bf16-true")) == 6 * config.num_parameters


def test_ddp_copies_gradients_only_where_they_are_no_views() -> None:
    config = ModelConfig(**SHAPE)
    plain = rank_memory(config, layout_of("32-true", data_parallel_size=8))
    copied = rank_memory(config, layout_of("32-true", data_parallel_size=8, copies_gradients=True))
    assert sum(copied.values()) - sum(plain.values()) == 4 * config.num_parameters


def test_sharded_ranks_hold_all_together() -> None:
    config = ModelConfig(**SHAPE)
    assert 8 * parameters_of_rank(config, layout_of("32-true", sharded=True, data_parallel_size=8)) == (
        config.num_parameters
    )
    paired = layout_of("32-true", sharded=True, data_parallel_size=4, tensor_parallel_size=2)
    matrices = config.num_layers * config.num_block_matrix_parameters
    assert 8 * parameters_of_rank(config, paired) == matrices + 2 * (config.num_parameters - matrices)


@pytest.mark.parametrize(("num_layers", "gathered"), [(1, 1), (3, 2)])
def test_fsdp_gathers_two_blocks_and_keeps_what_is_outside_them_whole(num_layers: int, gathered: int) -> None:
    config = ModelConfig(**(SHAPE | {"num_layers": num_layers}))
    block = config.num_block_matrix_parameters
    outside = config.num_parameters - num_layers * block
    parts = rank_memory(config, layout_of("bf16-mixed", sharded=True, data_parallel_size=8))
    assert parts["gathered weights, gradients"] == block * (gathered * 2 + 4) + outside * (4 + 4)


def test_autocast_keeps_its_copies_of_the_blocks_matrices() -> None:
    config = ModelConfig(**SHAPE)
    mixed, whole = (rank_memory(config, layout_of(precision)) for precision in ("bf16-mixed", "bf16-true"))
    assert mixed["weights as computed with"] == 3 * config.num_block_matrix_parameters * 2
    assert "weights as computed with" not in whole


@pytest.mark.parametrize(
    ("vocab_size", "precision", "on_cpu", "wanted"),
    [
        (1000, "bf16-mixed", True, BATCH * LENGTH * 1000 * (2 + 6 * 4)),  # logits, and six of them in float32
        (2048, "32-true", True, BATCH * LENGTH * 2048 * 4 + 4 * 2048 * 96),  # logits of a chunk, gradient
        (2048, "bf16-mixed", False, BATCH * LENGTH * 2048 * 2 + (4 + 2) * 2048 * 96),  # and the weight in bfloat16
        (2048, "bf16-mixed", True, BATCH * LENGTH * 2048 * (2 + 4) + (4 + 2 + 2) * 2048 * 96),  # and scratch, product
    ],
)
def test_a_head_holds_logits_and_gradients(vocab_size: int, precision: str, on_cpu: bool, wanted: int) -> None:
    config = ModelConfig(**(SHAPE | {"vocab_size": vocab_size}))
    hidden_and_gradient = 2 * BATCH * LENGTH * 96 * 4
    assert rank_memory(config, layout_of(precision, on_cpu=on_cpu))["loss head"] == hidden_and_gradient + wanted


def test_a_block_that_is_computed_again_comes_on_top_of_a_small_head() -> None:
    config = ModelConfig(**(SHAPE | {"vocab_size": 64}))
    plain, deeper = (rank_memory(replace(config, num_layers=count), layout_of("32-true")) for count in (3, 4))
    block = deeper["activations"] - plain["activations"]
    again = rank_memory(config, layout_of("32-true", activation_checkpointing=True))
    stream, widest = BATCH * LENGTH * 96 * 4, BATCH * LENGTH * 256 * 4
    around = plain["activations"] - 3 * block
    assert again["activations"] == around + 3 * stream + (block + stream + widest - again["loss head"])


def test_holes_of_the_heap_are_two_thirds_of_what_comes_and_goes() -> None:
    assert heap_holes({"weights": 100.0, "activations": 7.0, "loss head": 2.0}) == pytest.approx(6.0)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_each_choice_saves(precision: str) -> None:
    config = ModelConfig(**(SHAPE | {"num_layers": 24}))
    layouts = [
        layout_of(precision),
        layout_of(precision, sharded=True, data_parallel_size=8),
        layout_of(precision, sharded=True, data_parallel_size=4, tensor_parallel_size=2),
        layout_of(precision, sharded=True, data_parallel_size=4, tensor_parallel_size=2, activation_checkpointing=True),
    ]
    sizes = [sum(rank_memory(config, layout).values()) for layout in layouts]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
