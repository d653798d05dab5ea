"""A run that stops anywhere goes on with the same bits."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from mulligan.cli.record import differences
from mulligan.files import remove, write_json
from mulligan.stability.ledger import Ledger
from mulligan.training.checkpoints import load_checkpoint, newest_whole
from tests.conftest import Cli, environment
from tests.training.conftest import Compose, MakeRun, silent

CHECKPOINTS = Path("runs/default/checkpoints")
FLOAT8 = ("float8=tensorwise", "float8.emulate=true")


class Stop(Exception):
    """Stands for whatever ends a process between two micro-batches."""


def interrupted(make_run: MakeRun, at_batch: int, *overrides: str) -> None:
    run = make_run(*overrides)

    def stop(trainer: object, module: object, batch: object, batch_idx: int) -> None:
        if batch_idx == at_batch:
            raise Stop

    run.metrics.on_train_batch_start = stop  # type: ignore[method-assign]  # stands for a crash there
    with pytest.raises(Stop):
        run.train(silent, silent)


@pytest.mark.parametrize(("at_batch", "workers"), [(5, 0), (8, 2), (11, 0), (13, 2)])
def test_stopped_anywhere_it_ends_with_the_same_bits(make_run: MakeRun, at_batch: int, workers: int) -> None:
    """Accumulation 2: batches 5, 11 and 13 lie in the middle of a window, and checkpoints at every second step."""
    options = ("micro_batch=2", "model.dropout=0.1", f"data.loader_workers={workers}", "validate_every_n_steps=3")
    make_run("name=whole", *options).train(silent, silent)
    interrupted(make_run, at_batch, *options)
    said: list[str] = []
    assert make_run(*options).train(silent, said.append).attempt == 8
    assert "going on from step" in said[-1]
    ended = (folder / "step_00000008.ckpt" for folder in (Path("runs/whole/checkpoints"), CHECKPOINTS))
    assert_same(*map(load_checkpoint, ended))


def test_tokens_per_second_are_those_of_all_starts(make_run: MakeRun) -> None:
    interrupted(make_run, 5)  # the newest checkpoint is that of step 4
    slow = load_checkpoint(CHECKPOINTS / "step_00000004.ckpt")["callbacks"]["LogMetrics"]
    assert slow["tokens_trained"] == 4 * 4 * 32
    resumed = make_run()
    summary = resumed.fit(silent, silent)
    assert summary is not None
    assert resumed.metrics.tokens_trained == 8 * 4 * 32
    assert resumed.metrics.seconds_trained > slow["seconds_trained"]
    assert summary["tokens_per_second"] == resumed.metrics.tokens_trained / resumed.metrics.seconds_trained


def test_a_rewind_takes_no_time_back(make_run: MakeRun) -> None:
    metrics = make_run().metrics
    metrics.load_state_dict({"tokens_trained": 9, "seconds_trained": 3.0})
    metrics.load_state_dict({"tokens_trained": 5, "seconds_trained": 2.0})
    assert metrics.state_dict() == {"tokens_trained": 9, "seconds_trained": 3.0}


def test_it_goes_on_with_another_split_into_micro_batches(make_run: MakeRun) -> None:
    whole = make_run("name=whole", "micro_batch=4").fit(silent, silent)
    interrupted(make_run, 9, "micro_batch=2")
    resumed = make_run("micro_batch=1").fit(silent, silent)
    assert whole is not None
    assert resumed is not None
    assert resumed["step"] == 8
    assert resumed["val_bits_per_byte"] == pytest.approx(whole["val_bits_per_byte"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("first", [(), FLOAT8], ids=["into_float8", "out_of_float8"])
def test_a_checkpoint_goes_on_with_and_without_float8(
    make_run: MakeRun, composed: Compose, first: tuple[str, ...]
) -> None:
    then = () if first else FLOAT8
    assert differences(composed(*first), composed(*then)), "a run may change its products unseen"
    interrupted(make_run, 4, *first)
    said: list[str] = []
    module = make_run(*then).train(silent, said.append)
    assert module.attempt == 8
    assert "going on from step 4" in said[-1]
    assert type(module.model.blocks[0].attention.q).__name__ == ("Linear" if first else "Float8Linear")


def test_a_finished_run_is_evaluated_again_only_for_other_numbers(make_run: MakeRun) -> None:
    first = make_run().fit(silent, silent)
    assert first is not None
    reports: list[str] = []
    said: list[str] = []
    assert make_run().fit(lambda what, *_: reports.append(what), said.append) == first
    assert "evaluating" not in reports
    assert said[-1].startswith("all was trained by step 8")
    other = make_run("sample_prompt=x").fit(silent, silent)
    assert other is not None
    assert other["sample"] != first["sample"]
    assert other["weights_sha256"] == first["weights_sha256"]
    assert other["tokens_per_second"] == first["tokens_per_second"]
    write_json(Path("runs/default/summary.json"), other | {"weights_sha256": "of another"})
    assert make_run("sample_prompt=x").fit(silent, silent) == other


@pytest.mark.parametrize(
    ("more", "number", "end"),
    [
        pytest.param("trainer=cpu", signal.SIGTERM, os.kill, marks=pytest.mark.slow),
        pytest.param("trainer=cpu", signal.SIGINT, os.kill, marks=pytest.mark.slow),
        ("trainer=cpu_ddp", signal.SIGTERM, os.kill),
        pytest.param("data.loader_workers=2", signal.SIGTERM, os.killpg, marks=pytest.mark.slow),
        pytest.param("trainer=cpu_ddp", signal.SIGTERM, os.killpg, marks=pytest.mark.slow),
    ],
    ids=["one process", "Ctrl-C", "rank 0 of two", "loader workers too", "both ranks"],
)
def test_sigterm_and_ctrl_c_save_and_say_so_in_the_exit_code(
    tiny: tuple[str, ...], tmp_path: Path, more: str, number: signal.Signals, end: Callable[[int, int], None]
) -> None:
    options = (*tiny, more, "max_steps=60", "checkpoint.every_n_steps=1000", "micro_batch=1")
    command = [sys.executable, "-m", "mulligan", "train", *options]
    process = start(command, tmp_path)
    wait_for_step(process, 5)
    end(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    found = newest_whole(tmp_path / CHECKPOINTS, Ledger(tmp_path / "runs/default/ledger.jsonl"), silent)
    assert found is not None
    assert 5 <= found.step < 60
    resumed = start(command, tmp_path).communicate(timeout=120)[0]
    assert f"going on from step {found.step}" in resumed
    assert load_checkpoint(tmp_path / CHECKPOINTS / "step_00000060.ckpt")["mulligan"]["attempt"] == 60


def start(command: list[str], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for_step(process: "subprocess.Popen[str]", step: int) -> None:
    assert process.stdout is not None
    assert any(line.startswith(f"step {step}/") for line in process.stdout), "it ended before"


def kill_and_resume(folder: Path, overrides: tuple[str, ...], rng: random.Random, kills: int) -> str:
    """Start, kill -9 after a random time, start again, and so on; then let it end. What all have said is returned."""
    said: list[str] = []
    command = [sys.executable, "-m", "mulligan", "train", *overrides]
    for _ in range(kills):
        process = start(command, folder)
        assert process.stdout is not None
        for line in process.stdout:  # the random moment counts from the first step on that a checkpoint lies behind
            said.append(line)
            if line.startswith("step ") and list((folder / CHECKPOINTS).glob("*.json")):
                break
        time.sleep(rng.uniform(0.0, 0.5))
        os.killpg(process.pid, signal.SIGKILL)
        said.append(process.communicate()[0])
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return "".join([*said, ended.stdout])


def same_bits_after_kills(tiny: tuple[str, ...], tmp_path: Path, kills: int) -> None:
    steps = max(100, 50 * kills)  # long enough for most of them to come before the end
    options = (*tiny, f"max_steps={steps}", "checkpoint.every_n_steps=7", "data.loader_workers=2", "model.dropout=0.1")
    rng = random.Random(kills)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    kill_and_resume(tmp_path / "whole", options, rng, 0)
    said = kill_and_resume(tmp_path / "killed", options, rng, kills)
    assert said.count("going on from step") > kills // 2
    ends = (tmp_path / name / CHECKPOINTS / f"step_{steps:08d}.ckpt" for name in ("whole", "killed"))
    states = [load_checkpoint(end) for end in ends]
    assert_same(states[0], states[1])


def test_a_signal_behind_the_last_step_ends_it_with_all_saved(make_run: MakeRun) -> None:
    run = make_run()
    run.callbacks.insert(0, LambdaCallback(on_train_end=lambda *_: run.stop._notice(signal.SIGTERM, None)))
    with pytest.raises(SystemExit) as ended:
        run.fit(silent, silent)
    assert ended.value.code == 143
    assert make_run().fit(silent, silent) is not None, "the same command evaluates"


def test_killed_it_ends_with_the_same_bits(tiny: tuple[str, ...], tmp_path: Path) -> None:
    same_bits_after_kills(tiny, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("trainer", ["cpu", "cpu_ddp", "cpu_fsdp"])
def test_killed_at_twenty_moments_it_ends_with_the_same_bits(
    tiny: tuple[str, ...], tmp_path: Path, trainer: str
) -> None:
    same_bits_after_kills((*tiny, f"trainer={trainer}"), tmp_path, 20)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["cpu_ddp", "cpu_fsdp"])
def test_four_ranks_go_on_with_the_same_bits(tiny: tuple[str, ...], tmp_path: Path, trainer: str) -> None:
    """How more than two round a sum depends on where it lies in what they send, which must not change with a start."""
    options = (*tiny, f"trainer={trainer}", "trainer.devices=4", "checkpoint.every_n_steps=4")
    (tmp_path / "whole").mkdir()
    kill_and_resume(tmp_path / "whole", options, random.Random(0), kills=0)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for path in (tmp_path / "again" / CHECKPOINTS).glob("step_00000008*"):
        remove(path)
    assert "going on from step 4" in kill_and_resume(tmp_path / "again", options, random.Random(0), kills=0)
    states = [load_checkpoint(tmp_path / name / CHECKPOINTS / "step_00000008.ckpt") for name in ("whole", "again")]
    assert_same(states[0], states[1])


def assert_same(first: Any, second: Any) -> None:
    """Two checkpoints hold the same bits: weights, moments, counters and all."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        # How many held-out batches Lightning has counted depends on whether the kill came before or after them.
        # The ledger's lines hold the time, and LogMetrics how long training took.
        keys = [key for key in first if not str(key).startswith(("epoch_loop.val_loop", "ledger", "LogMetrics"))]
        first, second = [first[key] for key in keys], [second[key] for key in keys]
    if isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert first.equal(second)
    else:
        assert first == second


def test_a_run_without_its_config_or_a_whole_checkpoint_is_not_begun_anew(
    make_run: MakeRun, here: Cli, tiny: tuple[str, ...]
) -> None:
    make_run().train(silent, silent)  # the command line writes config.yaml
    refused = here("train", *tiny, "seed=5")
    assert refused.returncode == 2
    assert "config.yaml of what was trained is missing" in refused.stderr
    Path("runs/early").mkdir()
    Path("runs/early/ledger.jsonl").touch()  # of a run that went back to before its first checkpoint
    assert "config.yaml of what was trained is missing" in here("train", *tiny, "name=early").stderr
    for path in CHECKPOINTS.glob("*.json"):
        path.write_text("[]")
    with pytest.raises(ValueError, match="none of its checkpoints is whole"):
        make_run().train(silent, silent)
