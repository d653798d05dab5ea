"""Evaluations beside training: they leave its bits and its clock alone, and write each sample once."""

import csv
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mulligan.evaluation.generation import generate_text
from mulligan.evaluation.suites import Score, Subject
from mulligan.training.callbacks.evaluations import SAMPLER, Evaluations
from mulligan.training.checkpoints import load_checkpoint
from tests.conftest import SHARDED, Cli
from tests.training.conftest import MakeRun, silent
from tests.training.test_resume import assert_same, interrupted
from tests.training.test_rewind import WATCHED, sure_at

SAMPLES = Path("runs/default/samples.jsonl")
OPTIONS = ("evaluate_every_n_steps=2", "sample_tokens=5", "suite=[held_out,exposure_bias]")
SUITE = tuple(
    f"suite.exposure_bias.{one}"
    for one in ("num_prefixes=4", "prefix_tokens=4", "rollout_tokens=4", "continuation_tokens=4")
)


def samples(path: Path = SAMPLES) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def places(path: Path = SAMPLES) -> list[tuple[int, int]]:
    """Step and attempt of each first prompt."""
    return [(one["step"], one["attempt"]) for one in samples(path) if one["prompt"] == "def "]


def metrics(folder: str = "default") -> list[dict[str, str]]:
    text = Path(f"runs/{folder}/metrics/version_0/metrics.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def test_the_run_has_the_same_bits_with_and_without(make_run: MakeRun) -> None:
    common = ("model.dropout=0.1", "micro_batch=2")
    make_run("name=without", *common, "evaluate_every_n_steps=null").train(silent, silent)
    make_run(*common, *OPTIONS, *SUITE).train(silent, silent)
    assert not Path("runs/without/samples.jsonl").exists()
    assert places() == [(2, 2), (4, 4), (6, 6), (8, 8)]
    assert_same(
        *(load_checkpoint(Path(f"runs/{name}/checkpoints/step_00000008.ckpt")) for name in ("without", "default"))
    )


def test_samples_are_completions_of_the_weights_of_their_step(make_run: MakeRun) -> None:
    run = make_run("evaluate_every_n_steps=8", "sample_prompts=['def ','']", "sample_tokens=5")
    module = run.train(silent, silent)
    tokenizer = run.trainer.datamodule.tokenizer  # type: ignore[attr-defined]  # set where mypy does not look
    for line, prompt in zip(samples(), ("def ", ""), strict=True):
        assert module.model is not None
        wanted = "".join(generate_text(module.model, tokenizer, prompt, SAMPLER, max_new_tokens=5))
        assert line == {"step": 8, "attempt": 8, "prompt": prompt, "text": wanted}


def test_a_start_from_an_earlier_step_writes_no_line_twice(make_run: MakeRun) -> None:
    interrupted(make_run, 5, *OPTIONS[:2], "checkpoint.every_n_steps=3")
    assert places() == [(2, 2), (4, 4)]  # and the checkpoint is of step 3
    with SAMPLES.open("a") as file:
        file.write('{"step": 4, "att')  # what a kill leaves
    make_run(*OPTIONS[:2], "checkpoint.every_n_steps=3").train(silent, silent)
    assert places() == [(2, 2), (4, 4), (6, 6), (8, 8)]
    assert len(samples()) == 4 * 3


def test_after_a_rewind_the_attempts_are_new(make_run: MakeRun) -> None:
    run = make_run(*WATCHED, *OPTIONS[:2])
    sure_at(run, onset=9, step=10)
    run.train(silent, silent)  # found in step 11, back to step 6
    assert places() == [*((step, step) for step in (2, 4, 6, 8, 10)), *((step, step + 5) for step in (8, 10, 12, 14))]


def test_numbers_reach_the_loggers_with_step_and_attempt(make_run: MakeRun) -> None:
    make_run(*OPTIONS, *SUITE).train(silent, silent)
    rows = [row for row in metrics() if row["exposure_bias_gap"]]
    assert [(float(row["step"]), float(row["attempt"])) for row in rows] == [(2, 2), (4, 4), (6, 6), (8, 8)]
    assert all(float(row["held_out_bits_per_byte"]) > 0.0 for row in rows)


class Seeding:
    """A suite that takes its time, and seeds all there is, as lm-eval does."""

    def __call__(self, subject: Subject) -> dict[str, Score]:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        time.sleep(0.5)
        return {"number": Score(1.0)}


def test_time_and_random_state_are_left_alone(make_run: MakeRun) -> None:
    run = make_run("evaluate_every_n_steps=4", "sample_prompts=[]", "log_every_n_steps=8")
    (callback,) = (one for one in run.callbacks if isinstance(one, Evaluations))
    callback.suites = {"seeding": Seeding()}
    evaluate, differ = callback.on_train_batch_end, []

    def compared(*args: Any) -> None:
        before = state()
        evaluate(*args)
        differ.append(state() != before)

    callback.on_train_batch_end = compared  # type: ignore[method-assign]  # to look before and after
    start = time.perf_counter()
    run.train(silent, silent)
    assert differ == [False] * 8
    assert time.perf_counter() - start > 1.0
    assert run.metrics.seconds_trained < 1.0, "the clock of tokens_per_second has counted it"


def state() -> str:
    return repr((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))


def test_a_model_that_has_diverged_gives_no_sample_and_no_numbers(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = (f"suite.exposure_bias.{name}_tokens=4" for name in ("prefix", "rollout", "continuation"))
    suite = ("suite=exposure_bias", *tokens)
    run = make_run("evaluate_every_n_steps=8", "stability=none", "optimizer.lr=1e30", "schedule=constant", *suite)
    run.train(silent, silent)
    assert not SAMPLES.exists()
    assert "step 8: no numbers of exposure_bias: the model gives logits that are not finite" in capsys.readouterr().out


def test_sharded_ranks_write_what_one_process_writes(make_run: MakeRun, sharded_run: Path) -> None:
    make_run("max_steps=6", *SHARDED[-2:]).train(silent, silent)
    assert places(sharded_run / "samples.jsonl") == [(3, 3), (6, 6)]
    assert samples(sharded_run / "samples.jsonl") == samples()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "trainer",
    [
        ("trainer=cpu_ddp", "trainer.devices=2"),
        ("trainer=cpu_fsdp", "precision=bf16-mixed"),
        ("trainer=cpu_fsdp", "trainer.devices=4", "trainer.strategy.tensor_parallel_size=2", "micro_batch=2"),
    ],
    ids=["ddp", "fsdp in bf16", "tensor parallel"],
)
def test_every_way_to_share_the_work(
    trainer: tuple[str, ...], mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    done = mulligan("train", *tiny, *trainer, *OPTIONS, *SUITE, timeout=300.0)
    assert done.returncode == 0, done.stderr
    path = tmp_path / SAMPLES
    assert places(path) == [(2, 2), (4, 4), (6, 6), (8, 8)]
    assert len(samples(path)) == 4 * 3
