"""One objective and one order, however many ranks: real gloo processes against one process with accumulation."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Cli, environment

PROGRAM = Path(__file__).with_name("train_and_record.py")
# The same rate for every step: the second gradient is compared before rounding has grown through Adam.
OPTIONS = ("max_steps=2", "schedule=constant", "optimizer.lr=1e-6", "model.dropout=0.0", "checkpoint.every_n_steps=100")


def record(folder: Path, ranks: int, accumulation: int, overrides: tuple[str, ...], *more: str) -> list[dict[str, Any]]:
    """What each rank saw: tokens and gradients of each step, and operators of some."""
    folder.mkdir()
    trainer = ("trainer=cpu",) if ranks == 1 else ("trainer=cpu_ddp", f"trainer.devices={ranks}")
    micro_batch = f"micro_batch={4 // (ranks * accumulation)}"
    command = [sys.executable, str(PROGRAM), str(folder), *overrides, *OPTIONS, *trainer, micro_batch, *more]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # no rank outlives the test
        process.wait()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]


def global_batches(seen: list[dict[str, Any]]) -> list[list[list[int]]]:
    """The samples of each step over all ranks, in an order of their own."""
    return [sorted(torch.cat(step).tolist()) for step in zip(*(one["tokens"] for one in seen), strict=True)]


@pytest.mark.parametrize("document_mask", [pytest.param("false", marks=pytest.mark.slow), "true"])
def test_ranks_and_accumulation_leave_order_and_gradient_alone(
    document_mask: str, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    overrides = (*tiny, f"data.document_mask={document_mask}", "optimizer.clip_norm=null")
    alone = record(tmp_path / "1x4", 1, 4, overrides)
    for ranks, accumulation in ((2, 2), (4, 1)):
        together = record(tmp_path / f"{ranks}x{accumulation}", ranks, accumulation, overrides)
        assert global_batches(together) == global_batches(alone)
        for step, wanted in enumerate(alone[0]["gradients"]):
            for one in together:
                assert one["gradients"][step].keys() == wanted.keys()
                for name, gradient in one["gradients"][step].items():
                    scale = wanted[name].abs().max()
                    assert (gradient - wanted[name]).abs().max() <= 1e-6 * max(1.0, float(scale)), name


@pytest.mark.parametrize(("ranks", "precision"), [(1, "32-true"), (1, "16-mixed"), (2, "32-true")])
def test_between_log_steps_nothing_waits_and_only_gradients_are_reduced(
    ranks: int, precision: str, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    overrides = (*tiny, "log_every_n_steps=100", "validate_every_n_steps=100", f"precision={precision}")
    for one in record(tmp_path / "run", ranks, 1, overrides, "max_steps=5"):
        operators = one["operators"]
        assert operators["aten::mm"] > 0
        assert "aten::_local_scalar_dense" not in operators  # what .item() and bool() come to
        collectives = {name: count for name, count in operators.items() if name.startswith("c10d")}
        assert collectives == ({} if ranks == 1 else {"c10d::allreduce_": 2})  # a bucket, two steps


def test_a_run_goes_on_with_other_ranks(mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    options = (*tiny, "optimizer.lr=1e-3", "schedule=constant")
    whole = mulligan("train", *options, "max_steps=8", "name=whole")
    first = mulligan("train", *options, "max_steps=4", "trainer=cpu_ddp")
    second = mulligan("train", *options, "max_steps=8", "accept_changes=true")
    assert [done.returncode for done in (whole, first, second)] == [0, 0, 0], first.stderr + second.stderr
    assert "going on from step 4" in second.stdout
    states = [
        torch.load(tmp_path / f"runs/{name}/checkpoints/step_00000008.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "default")
    ]
    for name, wanted in states[0].items():
        torch.testing.assert_close(states[1][name], wanted, rtol=1e-3, atol=1e-5)


def test_a_launcher_that_disagrees_with_the_trainer_is_named(tiny: tuple[str, ...], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "mulligan"]
    done = subprocess.run(
        [*torchrun, "train", *tiny, "trainer=cpu"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("give the launcher and the trainer the same number") == 1


def test_of_two_ranks_one_names_the_mistake(mulligan: Cli, tiny: tuple[str, ...]) -> None:
    done = mulligan("train", *tiny, "trainer=cpu_ddp", "validation_samples=1")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "validation_samples=1 of the windows held out are 1, too few for 2 ranks" in line


def test_a_rank_that_never_comes_is_one_line(mulligan: Cli, tiny: tuple[str, ...]) -> None:
    keys = ("trainer=cpu_ddp", "trainer.devices=1", "trainer.num_nodes=2", "trainer.strategy.timeout_seconds=2.0")
    done = mulligan("train", *tiny, *keys)
    assert done.returncode == 75
    assert "mulligan train: the 2 ranks have lost each other; one has died, is out of reach" in done.stderr
    assert "Traceback" not in done.stderr
