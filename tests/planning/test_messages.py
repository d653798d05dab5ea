"""What is planned to be sent is what two ranks send, to the byte."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mulligan.model.transformer import Transformer
from mulligan.planning.messages import Message, block_shapes, messages_of, outside_shapes
from tests.model.test_config import NAMES, config_of
from tests.planning.sent_messages import LAYOUT, MODEL, SHAPES, planned, sent
from tests.training.test_ranks import record


@pytest.mark.slow  # one shape of each: tests/training/test_ranks.py
@pytest.mark.parametrize(
    ("trainer", "precision", "accumulation", "again"),
    [
        ("cpu_ddp", "32-true", 2, False),
        ("cpu_ddp", "bf16-true", 1, False),
        ("cpu_fsdp", "bf16-mixed", 2, True),
        ("cpu_fsdp", "bf16-true", 1, False),
        ("cpu_tp", "bf16-mixed", 1, True),
        ("cpu_tp", "32-true", 2, False),
        ("cpu_tp", "bf16-true", 1, False),
    ],
)
def test_two_ranks_send_what_is_planned(
    trainer: str, precision: str, accumulation: int, again: bool, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    quiet = ("log_every_n_steps=100", "validate_every_n_steps=100", "max_steps=5")
    memory = (f"precision={precision}", f"activation_checkpointing={str(again).lower()}")
    wanted = planned(trainer, precision=precision, accumulation=accumulation, activation_checkpointing=again)
    ranks = record(tmp_path / "run", trainer, 2, accumulation, tiny, *quiet, *memory)
    assert [sent(one) for one in ranks] == [wanted, wanted]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_those_of_the_built_model(name: str) -> None:
    model = config_of(name)
    with torch.device("meta"):
        built = Transformer(model)
    block = sorted(tuple(one.shape) if one.ndim > 1 else (len(one), 1) for one in built.blocks[0].parameters())
    assert sorted(block_shapes(model)) == block
    counted = model.num_layers * sum(rows * columns for rows, columns in block_shapes(model))
    counted += sum(rows * columns for rows, columns in outside_shapes(model))
    assert counted == model.num_parameters


def test_one_device_sends_nothing() -> None:
    assert messages_of(MODEL, LAYOUT).of_step(MODEL.num_layers, 4) == []


BLOCK, OUTSIDE = 4 * 16**2 + 3 * 16 * 32 + 2 * 16 + 2 * 8, 400 * 16 + 16  # parameters
STREAM = 4 * 32 * 16  # entries between the blocks of four samples


@pytest.mark.parametrize(
    ("trainer", "changes", "wanted"),
    [
        ("cpu_ddp", {}, [Message("all-reduce", (2 * BLOCK + OUTSIDE) * 4 + 8)]),
        (
            "cpu_ddp",
            {"precision": "bf16-true"},
            [Message("all-reduce", (2 * BLOCK + OUTSIDE) * 2), Message("all-reduce", 8)],
        ),
        (
            "cpu_fsdp",
            {},
            [
                Message("all-gather", BLOCK * 2, 6),
                Message("all-gather", BLOCK * 2, 6),
                Message("reduce-scatter", BLOCK * 4, 6),
                Message("all-gather", OUTSIDE * 4, 3),
                Message("reduce-scatter", OUTSIDE * 4, 3),
                Message("all-reduce", 12),
            ],
        ),
        (
            "cpu_tp",
            {"activation_checkpointing": True},
            [
                Message("all-reduce", STREAM * 2, 2 * 6),
                Message("all-reduce", STREAM * 4, 2 * 6),
                Message("all-reduce", STREAM * 2, 6),  # once more, of attention
                Message("all-reduce", 8 * 2, 2 * 6),  # the gradients of the query's and the key's norm
                Message("all-reduce", 12),
            ],
        ),
    ],
)
def test_a_step_sends_what_two_blocks_and_three_micro_batches_do(
    trainer: str, changes: dict[str, Any], wanted: list[Message]
) -> None:
    assert messages_of(MODEL, replace(SHAPES[trainer], **changes)).of_step(2, 3) == wanted


def test_more_ranks_than_rows_send_rows_that_no_one_needs() -> None:
    def gathered(ranks: int) -> int:
        message = messages_of(MODEL, replace(SHAPES["cpu_fsdp"], data_parallel_size=ranks)).block_gather
        assert message is not None
        return message.num_bytes

    entries = MODEL.parameters_by_part["blocks"] // MODEL.num_layers
    assert gathered(8) == 2 * entries
    assert gathered(64) == 2 * 64 * sum(columns for _, columns in block_shapes(MODEL)), "a row of each parameter a rank"
