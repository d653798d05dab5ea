"""Checkpoints are written beside training: it does not wait, nothing is half, and no error is lost."""

import errno
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mulligan.files import HashingWriter
from mulligan.stability.ledger import Ledger
from mulligan.training import checkpoint_io
from mulligan.training.checkpoint_io import AtomicCheckpointIO
from mulligan.training.checkpoints import checkpoint_path, load_checkpoint, load_unsharded, newest_whole
from mulligan.training.state_tree import leaves
from tests.conftest import SHARDED, Cli
from tests.training.conftest import MakeRun, run_program, silent
from tests.training.test_resume import assert_same, start
from tests.training.test_sharded import WHOLE, as_rank

STALL = Path(__file__).with_name("train_and_stall.py")
SHARED_COPY = (
    "stability.snapshots.every_n_steps=1", "stability.snapshots.keep=2", "stability.policy.depth_steps=1"
)  # fmt: skip
CHECKPOINTS = Path("runs/default/checkpoints")


def newest(folder: Path, said: list[str]) -> int:
    found = newest_whole(folder / "checkpoints", Ledger(folder / "ledger.jsonl", writes=False), said.append)
    return 0 if found is None else found.step


@pytest.mark.parametrize("snapshots", [(), SHARED_COPY], ids=["own copy", "of a snapshot"])
def test_steps_go_on_while_a_checkpoint_is_written(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, snapshots: tuple[str, ...]
) -> None:
    """The state of step 4 is that of step 4, though it comes to disk after step 7, when the ring has gone round."""
    make_run("name=whole", "checkpoint.every_n_steps=4").train(silent, silent)
    run, go, waited = make_run("checkpoint.every_n_steps=4", *snapshots), threading.Event(), []
    write = HashingWriter.write

    def slow(self: HashingWriter, chunk: Any) -> int:
        waited.append(go.wait(20))
        return write(self, chunk)

    monkeypatch.setattr(HashingWriter, "write", slow)
    monkeypatch.setattr(run.metrics, "on_train_batch_start", lambda trainer, *_: trainer.global_step == 7 and go.set())
    run.train(silent, silent)
    assert all(waited), "training waited for the disk"
    for step in (4, 8):
        paths = (checkpoint_path(Path(f"runs/{name}/checkpoints"), step) for name in ("whole", "default"))
        assert_same(*map(load_checkpoint, paths))
    io = run.trainer.strategy.checkpoint_io
    assert isinstance(io, AtomicCheckpointIO)
    assert any("state_dict" in name for name in io._buffers) == (not snapshots), "the state was copied twice"
    ring = run.guard.snapshots
    assert not any(snapshot.is_lent for snapshot in (*ring._ring, *ring._spare))
    assert len(ring._spare) <= 1, "a copy that was lent is not used again"


@pytest.mark.parametrize("full_at", [4, 8])
def test_a_full_disk_is_one_line_at_the_next_save_or_the_end(
    here: Cli, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, full_at: int
) -> None:
    write = HashingWriter.write

    def full(self: HashingWriter, chunk: Any) -> int:
        if f"step_{full_at:08d}" in self._file.name and self.num_bytes > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, chunk)

    monkeypatch.setattr(HashingWriter, "write", full)
    done = here("train", *tiny)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    told = "No space left on device; make room there, and the same command goes on"
    assert line == f"mulligan train: {checkpoint_path(CHECKPOINTS, full_at)}: {told}"
    assert newest(CHECKPOINTS.parent, []) == full_at - 2


def damage_a_copy(path: Path, folder: Path) -> None:
    shutil.copy(path.with_suffix(".json"), folder)
    part = shutil.copytree(path, folder / path.name) / "rank_00001.safetensors"
    part.write_bytes(part.read_bytes()[:-4] + b"!!!!")


@pytest.mark.parametrize(
    ("options", "stalled_rank"),
    [(("max_steps=6", "model.dropout=0.1"), 0), pytest.param(SHARDED, 1, marks=pytest.mark.slow)],
    ids=["one process", "two ranks"],
)
def test_killed_in_the_middle_of_a_write_it_ends_with_the_same_bits(
    make_run: MakeRun, mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest,
    options: tuple[str, ...], stalled_rank: int,
) -> None:  # fmt: skip
    program = [sys.executable, str(STALL), str(stalled_rank), "4", "600", *tiny, *options]
    process = start(program, tmp_path)
    assert process.stdout is not None
    unseen = {"stalled", "step 6/6"}  # the save at step 6 waits for that of step 4
    while unseen:
        line = process.stdout.readline()
        assert line, "it ended before"
        unseen = {text for text in unseen if not line.startswith(text)}
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    folder = tmp_path / CHECKPOINTS
    assert list(folder.glob(".*step_00000004*"))
    assert newest(folder.parent, []) == 2
    if options is SHARDED:
        whole: Path = request.getfixturevalue("sharded_run")
        shutil.copy(whole / "config.yaml", folder.parent)
        damage_a_copy(checkpoint_path(whole / "checkpoints", 4), folder)  # whose bytes rank 0 alone looks at
        said = mulligan("train", *tiny, *options).stdout
        assert "step_00000004.ckpt is passed over: its bytes differ" in said
        assert "going on from step 2" in said
    else:
        whole = Path("runs/whole")
        make_run("name=whole", *options).train(silent, silent)
        make_run(*options).train(silent, silent)
    assert not list(folder.glob(".*"))
    for step in (4, 6):
        paths = (checkpoint_path(one, step) for one in (whole / "checkpoints", folder))
        assert_same(*map(load_checkpoint, paths))


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "slow_rank"), [("cpu_ddp", 0), ("cpu_fsdp", 1)])
def test_the_last_checkpoint_may_take_longer_than_ranks_wait_for_each_other_else(
    tiny: tuple[str, ...], tmp_path: Path, trainer: str, slow_rank: int
) -> None:
    options = (f"trainer={trainer}", "max_steps=3", "trainer.strategy.timeout_seconds=30.0", "micro_batch=2")
    said = run_program(tmp_path, str(STALL), str(slow_rank), "3", "45", *tiny, *options)
    assert "stalled" in said
    assert newest(tmp_path / "runs/default", []) == 3


def save_as(rank: int, path: Path) -> AtomicCheckpointIO:
    """Begin to save as one of two ranks."""
    io = AtomicCheckpointIO()
    with as_rank(rank, 2, WHOLE) as tensors:
        io.save_checkpoint({"global_step": 3, "state_dict": dict(tensors), "more": torch.ones(2)}, path)
    return io


def test_a_folder_is_there_when_every_rank_has_written(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, 3)
    first = save_as(0, path)
    assert not path.exists()
    save_as(1, path).background.wait()
    first.background.wait()
    assert sorted(file.name for file in tmp_path.rglob("*")) == [
        "rank_00000.safetensors", "rank_00001.safetensors", path.name, "step_00000003.json", "unsharded.pt"
    ]  # fmt: skip
    found = load_checkpoint(path)
    assert_same(found, {"global_step": 3, "state_dict": WHOLE, "more": torch.ones(2)})


def test_views_of_one_memory_are_told_apart_and_later_changes_of_a_value_not_seen(tmp_path: Path) -> None:
    weight, seen, jobs = torch.arange(6.0), {1, 2}, list[Callable[[], None]]()
    state = {"whole": weight, "part": weight[:2], "bits": weight.view(torch.int32), "rows": weight.view(2, 3)}
    io, path = AtomicCheckpointIO(), checkpoint_path(tmp_path, 3)
    io.background = SimpleNamespace(then=jobs.append, wait=lambda: None)  # type: ignore[assignment]  # later
    io.save_checkpoint({"global_step": 3, "state_dict": {}, "state": state, "seen": seen}, path)
    seen.add(3)
    jobs.pop()()
    assert_same(load_checkpoint(path), {"global_step": 3, "state_dict": {}, "state": state, "seen": {1, 2}})


def test_after_an_error_a_rank_that_is_gone_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_io, "MOMENT_SECONDS", 0.1)
    save_as(0, checkpoint_path(tmp_path, 3)).end()
    assert [path.name for path in tmp_path.iterdir()] == [".step_00000003.ckpt.tmp"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, "its rank_00001.safetensors is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "its rank_00001.safetensors has "),
        (lambda path: path.write_bytes(path.read_bytes()[:-8] + b"damaged!"), "sha256 (rank_00001.safetensors)"),
    ],
    ids=["missing", "short", "damaged"],
)
def test_a_broken_part_is_named_and_the_checkpoint_passed_over(
    sharded_run: Path, tmp_path: Path, change: Any, said: str
) -> None:
    run = shutil.copytree(sharded_run, tmp_path / "run")
    change(run / "checkpoints/step_00000006.ckpt/rank_00001.safetensors")
    heard: list[str] = []
    assert newest(run, heard) == 4
    assert said in heard[0]


def test_no_rank_has_written_a_whole_tensor(sharded_run: Path) -> None:
    path = checkpoint_path(sharded_run / "checkpoints", 6)
    whole = dict(leaves(load_checkpoint(path)))
    sharded = {name for name, leaf in leaves(load_unsharded(path)) if getattr(leaf, "is_meta", False)}
    assert len(sharded) > 20
    assert not {name for name in whole if name.startswith("state_dict.model.")} - sharded
    for file in path.glob("rank_*"):
        parts = load_file(file)
        assert parts.keys() == sharded
        assert all(2 * part.numel() == whole[name].numel() for name, part in parts.items())
    assert len(list(path.iterdir())) == 3


def test_one_process_goes_on_with_what_two_ranks_saved(
    sharded_run: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sharded_run, "runs/default")
    before = load_checkpoint(checkpoint_path(CHECKPOINTS, 6))
    said: list[str] = []
    run = make_run("max_steps=8", "schedule=constant")
    loaded: list[dict[str, Any]] = []
    monkeypatch.setattr(run.metrics, "on_load_checkpoint", lambda *given: loaded.append(given[-1]))
    run.train(silent, said.append)
    assert "going on from step 6" in said[-2]
    assert said[-1].startswith("the learning rate at step 6 was"), "another schedule's"
    assert_same(loaded[0]["state_dict"], before["state_dict"])
    assert checkpoint_path(CHECKPOINTS, 8).is_file()


@pytest.mark.slow
def test_two_ranks_one_four_and_ddp_follow_the_curve_of_one(
    mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    options = (*tiny, "optimizer.lr=1e-3", "schedule=constant", "accept_changes=true")
    changes = (("cpu_fsdp", 2), ("cpu", 1), ("cpu_fsdp", 4), ("cpu_ddp", 2), ("cpu_fsdp", 2))
    assert mulligan("train", *options, "max_steps=10", "name=whole").returncode == 0
    for step, (trainer, ranks) in zip((2, 4, 6, 8, 10), changes, strict=True):
        done = mulligan("train", *options, f"max_steps={step}", f"trainer={trainer}", f"trainer.devices={ranks}")
        assert done.returncode == 0, done.stderr
        assert step == 2 or f"going on from step {step - 2}" in done.stdout
    whole, split = (
        load_checkpoint(tmp_path / f"runs/{name}/checkpoints/step_00000010.ckpt") for name in ("whole", "default")
    )
    for name, wanted in whole["state_dict"].items():
        assert (split["state_dict"][name] - wanted).abs().max() <= 1e-5 + 1e-3 * wanted.abs().max(), name
