"""One objective and one order, however many ranks: real gloo processes against one process with accumulation."""

import csv
import socket
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from tests.conftest import Cli, environment, lines_of
from tests.planning.sent_messages import planned, sent
from tests.training import train_and_record
from tests.training.conftest import MakeRun, run_program, silent

# The same rate for every step: the second gradient is compared before rounding has grown through Adam.
OPTIONS = ("max_steps=2", "schedule=constant", "optimizer.lr=1e-6", "model.dropout=0.0", "checkpoint.every_n_steps=100")
TRAINERS = {"cpu_tp": ("trainer=cpu_fsdp", "trainer.strategy.tensor_parallel_size=2")}


def record(
    folder: Path, trainer: str, ranks: int, accumulation: int, overrides: tuple[str, ...], *more: str
) -> list[dict[str, Any]]:
    """What each rank saw: tokens and gradients of each step, and operators of some. ``folder`` holds runs/ beside.

    ``cpu_tp`` is cpu_fsdp with pairs of tensor-parallel ranks.
    """
    folder.mkdir()
    micro_batch = 4 * sharing(trainer) // (ranks * accumulation)
    shape = (*TRAINERS.get(trainer, (f"trainer={trainer}",)), f"trainer.devices={ranks}", f"micro_batch={micro_batch}")
    arguments = (str(folder), *overrides, *OPTIONS, *shape, *more)
    if trainer == "cpu":
        with chdir(folder.parent):
            train_and_record.main(*arguments)
    else:
        run_program(folder.parent, train_and_record.__file__, *arguments)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]


def sharing(trainer: str) -> int:
    """How many ranks in a row read the same samples."""
    return 2 if trainer == "cpu_tp" else 1


def global_batches(seen: list[dict[str, Any]]) -> list[list[list[int]]]:
    """The samples of each step over all ranks, in an order of their own."""
    return [sorted(torch.cat(step).tolist()) for step in zip(*(one["tokens"] for one in seen), strict=True)]


FAST = (("cpu_ddp", 4, 1), ("cpu_fsdp", 2, 2))
SLOW = (
    *FAST, ("cpu_ddp", 1, 4), ("cpu_ddp", 2, 2), ("cpu_fsdp", 1, 2), ("cpu_fsdp", 4, 1), ("cpu_tp", 2, 2),
    ("cpu_tp", 4, 2),
)  # fmt: skip


def losses(run: Path) -> list[float]:
    """Of each step, over all starts of the run."""
    files = sorted(run.glob("metrics/version_*/metrics.csv"))
    rows = [row for file in files for row in csv.DictReader(file.read_text().splitlines())]
    return [float(row["cross_entropy"]) for row in rows if row["cross_entropy"]]


@pytest.mark.parametrize(
    ("form", "shapes"),
    [
        (("data.document_mask=true", "model.num_heads=4", "model.num_key_value_heads=2", "model.bias=true"), FAST),
        pytest.param(
            ("model=gpt2_124m", "model.num_heads=4", "model.vocab_size=400"),
            SLOW,
            marks=(pytest.mark.slow, pytest.mark.timeout(900)),
        ),
    ],
)
def test_ranks_and_accumulation_leave_order_and_gradient_alone(
    form: tuple[str, ...], shapes: tuple[tuple[str, int, int], ...], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    overrides = (*tiny, *form, "optimizer.clip_norm=null")
    alone = record(tmp_path / "alone", "cpu", 1, 4, overrides, "name=alone")
    for trainer, ranks, accumulation in shapes:
        name = f"{trainer}_{ranks}x{accumulation}"
        memory = f"activation_checkpointing={str(trainer == 'cpu_fsdp').lower()}"
        together = record(tmp_path / name, trainer, ranks, accumulation, overrides, f"name={name}", memory)
        for first in range(sharing(trainer)):
            assert global_batches(together[first :: sharing(trainer)]) == global_batches(alone)
        for step, wanted in enumerate(alone[0]["gradients"]):
            for one in together:
                assert one["gradients"][step].keys() == wanted.keys()
                for name, gradient in one["gradients"][step].items():
                    scale = wanted[name].abs().max()
                    assert (gradient - wanted[name]).abs().max() <= 1e-6 * max(1.0, float(scale)), name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_and_sharding_leave_a_gradient_in_float8_alone(tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Of the same micro-batches: float8's scales are theirs. Later a last bit may decide how an entry is rounded."""
    plain = (*tiny, "optimizer.clip_norm=null")
    overrides = (*plain, "float8=rowwise", "float8.emulate=true")
    alone = record(tmp_path / "alone", "cpu", 1, 4, overrides, "name=alone")
    exact = record(tmp_path / "exact", "cpu", 1, 4, plain, "name=exact")
    wanted = alone[0]["gradients"][0]
    assert not torch.equal(
        wanted["blocks.0.attention.q.weight"], exact[0]["gradients"][0]["blocks.0.attention.q.weight"]
    )
    for trainer in ("cpu_ddp", "cpu_fsdp"):
        for one in record(tmp_path / trainer, trainer, 2, 2, overrides, f"name={trainer}"):
            for name, gradient in one["gradients"][0].items():
                assert (gradient - wanted[name]).abs().max() <= 1e-6 * max(1.0, float(wanted[name].abs().max())), name


# What .item(), a mask as an index, and comparisons in Python come to.
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::masked_select", "aten::equal"}
LOCAL = ("_c10d_functional::wait_tensor", "_c10d_functional::_wrap_tensor_autograd")  # go with a collective
# Of two steps. FSDP2 sends what a block multiplies with, forward and backward, and what is outside the blocks once;
# it sums their gradients in float32, and so the norm.
SENT = {
    "cpu": {},
    "cpu_ddp": {"c10d::allreduce_ torch.float32": 2},  # a bucket
    "cpu_fsdp": {
        "c10d::_allgather_base_ torch.bfloat16": 2 * 2 * 2,
        "c10d::_allgather_base_ torch.float32": 2,
        "c10d::_reduce_scatter_base_ torch.float32": 2 * 3,
        "c10d::allreduce_ torch.float32": 2,
    },
    "cpu_tp": {  # two sums a block and pass, in float32 backward, and the gradients of what norms queries and keys
        "_c10d_functional::all_reduce torch.bfloat16": 2 * 2 * 4,
        "_c10d_functional::all_reduce torch.float32": 2 * 2 * 2,
        "c10d::allreduce_ torch.float32": 2,
    },
}


@pytest.mark.parametrize(
    ("trainer", "precision"),
    [
        ("cpu", "32-true"),
        ("cpu", "16-mixed"),
        ("cpu_ddp", "32-true"),
        ("cpu_fsdp", "bf16-mixed"),
        pytest.param("cpu_tp", "bf16-mixed", marks=pytest.mark.slow),
    ],
)
def test_between_log_steps_nothing_waits_and_only_gradients_are_reduced(
    trainer: str, precision: str, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """With guard, logger and loader. The guard reads of each step once what it judges it by, a step late."""
    overrides = (*tiny, "log_every_n_steps=100", "validate_every_n_steps=100", "checkpoint.every_n_steps=100")
    ranks = 1 if trainer == "cpu" else 2
    for one in record(tmp_path / "run", trainer, ranks, 1, (*overrides, f"precision={precision}"), "max_steps=5"):
        operators = one["operators"]
        assert operators["aten::mm"] > 0
        assert not operators.keys() & WAITS
        assert one["reads"] == {"tolist": 2}
        assert one["judged"] == [(2, 1), (3, 2), (4, 3), (5, 4), (5, 5)]
        collectives = {name: n for name, n in operators.items() if "c10d" in name and not name.startswith(LOCAL)}
        assert collectives == SENT[trainer]
        assert one["collectives"] == sum(collectives.values())
        assert sent(one) == ({} if trainer == "cpu" else planned(trainer, precision=precision))
        assert {gradient.dtype for gradient in one["gradients"][-1].values()} == {torch.float32}


class ForbidWaits(Callback):
    """Of the third to the fifth step: then torch raises where the host would wait for the device."""

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step in (2, 5):
            torch.cuda.set_sync_debug_mode("error" if trainer.global_step == 2 else "default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_between_log_steps_a_gpu_is_not_waited_for(precision: str, make_run: MakeRun) -> None:
    steps = ("log_every_n_steps=100", "validate_every_n_steps=100", "checkpoint.every_n_steps=100", "max_steps=6")
    run = make_run("trainer=single_gpu", f"precision={precision}", *steps)
    run.callbacks.append(ForbidWaits())
    try:
        run.train(silent, silent)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "shapes",
    [
        (("cpu_ddp", 2), ("cpu", 1)),
        pytest.param((("cpu_ddp", 2), ("cpu", 1), ("cpu_ddp", 4)), marks=pytest.mark.slow),
        pytest.param((("cpu_ddp", 2), ("cpu_fsdp", 2), ("cpu_ddp", 2)), marks=pytest.mark.slow),
        pytest.param((("cpu_fsdp", 2), ("cpu_fsdp", 4), ("cpu", 1)), marks=pytest.mark.slow),
        pytest.param((("cpu_tp", 4), ("cpu", 1), ("cpu_ddp", 2), ("cpu_tp", 2)), marks=pytest.mark.slow),
    ],
    ids=lambda shapes: "-".join(f"{trainer}x{ranks}" for trainer, ranks in shapes),
)
def test_a_run_goes_on_with_other_ranks(
    shapes: tuple[tuple[str, int], ...], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """Three steps each, against one process that trains them all."""
    options = (*tiny, "optimizer.lr=1e-2", "checkpoint.every_n_steps=3")
    num_steps = 3 * len(shapes)
    alone = record(tmp_path / "alone", "cpu", 1, 1, (), *options, f"max_steps={num_steps}", "name=alone")
    batches = []
    for number, (trainer, ranks) in enumerate(shapes, start=1):
        seen = record(tmp_path / str(number), trainer, ranks, 1, (), *options, f"max_steps={3 * number}")
        batches += global_batches(seen[:: sharing(trainer)])
    assert batches == global_batches(alone)
    wanted = losses(tmp_path / "runs/alone")
    assert len(wanted) == num_steps
    assert losses(tmp_path / "runs/default") == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_a_launcher_that_disagrees_with_the_trainer_is_named(tiny: tuple[str, ...], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "mulligan"]
    done = subprocess.run(
        [*torchrun, "train", *tiny, "trainer=cpu"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("give the launcher and the trainer the same number") == 1


def test_of_two_ranks_one_names_the_mistake(mulligan: Cli, tiny: tuple[str, ...]) -> None:
    done = mulligan("train", *tiny, "trainer=cpu_ddp", "sequence_length=20000", "model.max_length=20000")
    assert done.returncode == 2
    (line,) = lines_of(done.stderr)
    assert "sequence_length=20000 is longer than every validation shard" in line


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def test_a_rank_that_never_comes_is_one_line(
    mulligan: Cli, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port)), ("NODE_RANK", "0")):
        monkeypatch.setenv(name, value)
    keys = ("trainer=cpu_ddp", "trainer.devices=1", "trainer.num_nodes=2", "trainer.strategy.timeout_seconds=2.0")
    done = mulligan("train", *tiny, *keys)
    assert done.returncode == 75
    assert "mulligan train: the ranks have lost each other; one has died, is out of reach" in done.stderr
    assert "Traceback" not in done.stderr
