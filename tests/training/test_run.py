"""A whole run: what it learns, writes and reports."""

import ast
import csv
import json
import math
import shutil
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, LambdaCallback
from torch.utils.data import DataLoader

from mulligan.data.shards import Shards
from mulligan.data.tokenizer import tokenizer_in
from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.held_out import held_out
from mulligan.model.transformer import Block
from mulligan.model.weights import model_with_weights, weights_sha256
from mulligan.report.curve import read_curve
from mulligan.training import module
from mulligan.training.callbacks.metrics import LogMetrics
from mulligan.training.checkpoints import load_checkpoint
from mulligan.training.datamodule import ShardsDataModule
from mulligan.training.module import PretrainModule
from mulligan.training.run import TrainingRun
from tests.training.conftest import MakeRun, silent
from tests.training.test_resume import interrupted


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model that overrides")
def test_a_callback_may_copy_the_module(make_run: MakeRun) -> None:
    run = make_run("max_steps=3", "checkpoint.every_n_steps=1")
    run.callbacks.append(averaging := EMAWeightAveraging())
    assert run.fit(silent, silent) is not None
    copy = averaging._average_model.module
    assert copy is not run.trainer.lightning_module
    assert copy.begin_id.__self__ is run.trainer.datamodule, "what holds the trainer was copied with it"


@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_are_chosen_by_timing_where_other_bits_are_allowed(
    deterministic: bool, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Block, "compile", lambda _: None)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    with torch._inductor.config.patch(deterministic=False):
        make_run("compile=true", "max_steps=1").train(silent, silent)
        assert torch._inductor.config.deterministic is deterministic


@pytest.mark.parametrize("float8", [(), ("float8=tensorwise", "float8.emulate=true")], ids=["plain", "float8"])
def test_a_rank_without_windows_adds_nothing_to_a_validation(
    float8: tuple[str, ...], make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validated() -> dict[str, float]:
        run = make_run("max_steps=2", "validate_every_n_steps=2", *float8)
        run.train(silent, silent)
        return next(one for one in run.trainer.callbacks if isinstance(one, LogMetrics)).latest_validation

    wanted = validated()
    loader_of = ShardsDataModule.val_dataloader

    def with_an_empty_batch(module: ShardsDataModule) -> DataLoader[torch.Tensor]:
        batches = list(loader_of(module))
        return DataLoader([*batches, batches[0][:0]], batch_size=None)  # type: ignore[arg-type]  # a list will do

    monkeypatch.setattr(ShardsDataModule, "val_dataloader", with_an_empty_batch)
    shutil.rmtree("runs")
    assert validated() == wanted


def test_a_run_learns_and_its_summary_is_that_of_its_checkpoint(make_run: MakeRun) -> None:
    run = make_run("max_steps=60", "optimizer.lr=1e-2", "log_every_n_steps=20", "checkpoint.every_n_steps=60")
    summary = run.fit(silent, silent)
    assert summary is not None
    assert summary == json.loads(Path("runs/default/summary.json").read_text())
    assert summary["step"] == summary["attempt"] == 60
    assert summary["val_bits_per_token"] < 0.9 * math.log2(400)

    state = load_checkpoint(Path("runs/default/checkpoints/step_00000060.ckpt"))["state_dict"]
    weights = {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    model = model_with_weights(run.model, weights, "cpu")
    described = json.loads(Path("runs/default/checkpoints/step_00000060.json").read_text())
    assert weights_sha256(weights) == described["weights_sha256"] == summary["weights_sha256"]
    shards = Shards(run.data.folder, "validation", run.sequence_length)
    scores = held_out(model, shards, batch_size=4, begin_id=tokenizer_in(run.data.folder).begin_id)
    assert scores.bits_per_byte == pytest.approx(summary["val_bits_per_byte"], rel=1e-6)
    assert scores.utf8_bytes == summary["val_utf8_bytes"] == sum(len(text) for text in shards.texts(_tokenizer(run)))


def test_a_cap_holds_for_the_objective_too(make_run: MakeRun) -> None:
    """Logits next to zero are next to those that know nothing, whatever is learned."""
    run = make_run("model.logit_softcap=1e-5", "optimizer.lr=1e-2", "evaluate_every_n_steps=null")
    run.train(silent, silent)
    losses = read_curve(Path("runs/default")).losses
    assert losses == pytest.approx([math.log(400)] * 8, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["rowwise", "rowwise_with_gw_hp", "tensorwise"])
def test_a_run_in_float8_learns_as_much(make_run: MakeRun, recipe: str) -> None:
    options = ("max_steps=200", "checkpoint.every_n_steps=200", "evaluate_every_n_steps=null")
    for name, chosen in (("without", ()), ("within", (f"float8={recipe}", "float8.emulate=true"))):
        make_run(*options, *chosen, f"name={name}").train(silent, silent)
    within, without = (read_curve(Path(f"runs/{name}")).losses for name in ("within", "without"))
    assert within != without, "nothing was rounded"
    assert fmean(within[-20:]) == pytest.approx(fmean(without[-20:]), rel=0.01)


def test_metrics_hold_every_term(make_run: MakeRun) -> None:
    run = make_run("max_steps=4", "validate_every_n_steps=2", "objective.label_smoothing=0.1")
    rates: list[float] = []  # that each step's update is made with

    def look(trainer: Trainer, *_: object) -> None:
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    run.callbacks.append(LambdaCallback(on_before_optimizer_step=look))
    run.train(silent, silent)
    rows = list(csv.DictReader(Path("runs/default/metrics/version_0/metrics.csv").read_text().splitlines()))
    trained = [row for row in rows if row["loss"]]
    assert [float(row["step"]) for row in trained] == [1.0, 2.0, 3.0, 4.0]
    assert [float(row["attempt"]) for row in trained] == [1.0, 2.0, 3.0, 4.0]
    for row in trained:
        terms = sum(float(row[name]) for name in ("cross_entropy", "z_loss", "label_smoothing"))
        assert float(row["loss"]) == pytest.approx(terms, rel=1e-5)
        assert float(row["perplexity"]) == pytest.approx(math.exp(float(row["cross_entropy"])), rel=1e-5)
        assert float(row["gradient_norm"]) > 0.0
        assert float(row["tokens_seen"]) == float(row["step"]) * 4 * 32
        assert float(row["tokens_per_second"]) > 0.0
    assert [float(row["learning_rate"]) for row in trained] == pytest.approx(rates, rel=1e-12)
    assert len(set(rates)) == 4
    validated = [row for row in rows if row["val_bits_per_byte"]]
    assert [float(row["step"]) for row in validated] == [2.0, 4.0]


def test_the_x_axis_is_the_step_while_attempts_grow(make_run: MakeRun) -> None:
    run = make_run("max_steps=3")
    begin = run.metrics.on_train_start

    def begin_after_five_lost_attempts(trainer: Trainer, module: PretrainModule) -> None:
        module.ledger.append("halt", step=5, target=0)
        begin(trainer, module)

    run.metrics.on_train_start = begin_after_five_lost_attempts  # type: ignore[method-assign]  # what a rewind leaves
    run.train(silent, silent)
    rows = list(csv.DictReader(Path("runs/default/metrics/version_0/metrics.csv").read_text().splitlines()))
    assert [(float(row["step"]), float(row["attempt"])) for row in rows] == [(1.0, 6.0), (2.0, 7.0), (3.0, 8.0)]


def test_a_line_of_metrics_is_on_disk_when_it_is_made(make_run: MakeRun) -> None:
    run = make_run("max_steps=4")
    seen: list[int] = []

    def look(*_: object) -> None:
        path = Path("runs/default/metrics/version_0/metrics.csv")
        seen.append(len(path.read_text().splitlines()) if path.is_file() else 0)

    run.metrics.on_train_batch_start = look  # type: ignore[method-assign]  # before each step
    run.train(silent, silent)
    assert seen == [0, 2, 3, 4]  # a header, and a line a step


def test_a_vocabulary_larger_than_the_tokenizers(make_run: MakeRun) -> None:
    summary = make_run("model.vocab_size=3000", "max_steps=1").fit(silent, silent)
    assert summary is not None
    assert len(summary["sample"]) > len(summary["sample_prompt"])


def test_a_run_that_diverged_keeps_its_summary(make_run: MakeRun) -> None:
    diverging = ("optimizer.lr=1e30", "schedule.warmup=0.0", "optimizer.clip_norm=null", "stability=none")
    summary = make_run(*diverging).fit(silent, silent)
    assert summary is not None
    assert summary["val_perplexity"] == math.inf
    assert summary["sample"] == summary["sample_prompt"]
    assert json.loads(Path("runs/default/summary.json").read_text())["val_perplexity"] is None


def test_sources_by_weight(make_run: MakeRun, tmp_path: Path) -> None:
    """A second source of a single document, drawn three times in four, is learnt by heart; the first is not."""
    (tmp_path / "song.txt").write_text("row, row, row your boat\n" * 12)
    second = "{_target_: mulligan.data.documents.TextFiles, paths: [song.txt]}"
    options = ("max_steps=150", "optimizer.lr=1e-2", "log_every_n_steps=50", "sequence_length=16")
    losses = []
    for weights in ("{files: 0.999, song: 0.001}", "{files: 0.25, song: 0.75}"):
        name = f"name={'song' if '0.75' in weights else 'files'}"
        run = make_run(*options, name, f"+data.sources.song={second}", f"data.weights={weights}")
        run.train(silent, silent)
        losses.append(run.metrics.latest["cross_entropy"])
    assert losses[1] < 0.6 * losses[0]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bf16_trains(make_run: MakeRun, precision: str) -> None:
    run = make_run("max_steps=30", "optimizer.lr=1e-2", f"precision={precision}")
    summary = run.fit(silent, silent)
    assert summary is not None
    assert summary["val_bits_per_token"] < math.log2(400) - 0.5
    state = load_checkpoint(Path("runs/default/checkpoints/step_00000030.ckpt"))["state_dict"]
    assert state.pop("carried_2").dtype == torch.float32  # a sum of losses, whatever the weights are
    assert {tensor.dtype for tensor in state.values()} == {
        torch.float32 if precision == "bf16-mixed" else torch.bfloat16
    }


def test_dropout_is_another_one_in_each_micro_batch_of_each_rank(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(module, "generator_of", lambda _: SimpleNamespace(manual_seed=seeds.append))
    for rank in range(2):
        monkeypatch.setattr(PretrainModule, "data_parallel_rank", rank)
        make_run("max_steps=3", "micro_batch=2", f"name=rank{rank}").train(silent, silent)
    assert len(set(seeds)) == len(seeds) == 2 * 3 * 2


def test_the_same_config_gives_the_same_bits(make_run: MakeRun) -> None:
    first, again, other = (
        make_run(f"name={name}", f"seed={seed}", "model.dropout=0.1").fit(silent, silent)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert first["weights_sha256"] == again["weights_sha256"] != other["weights_sha256"]


def _tokenizer(run: TrainingRun) -> Tokenizer:
    return tokenizer_in(run.data.folder)


def test_the_detector_begins_afresh_where_losses_are_others_and_not_on_other_machines(make_run: MakeRun) -> None:
    """What the guard calls a regime: plain values, the same in every process."""

    def regime(*overrides: str) -> str:
        run = make_run(*overrides)
        run.trainer.fit = lambda *_, **__: None  # type: ignore[method-assign]  # bound is enough
        run.train(silent, silent)
        return run.guard.judge.regime

    known = regime()
    ast.literal_eval(known)  # no object's address
    for same in (
        ("micro_batch=1",), ("trainer=cpu_ddp",), ("trainer=cpu_ddp", "micro_batch=1"), ("checkpoint.keep_last=3",),
        ("global_batch_samples=null", "global_batch_tokens=128"),
    ):  # fmt: skip
        assert regime(*same) == known, same
    for other in (
        "max_steps=9", "global_batch_samples=8", "sequence_length=16", "precision=bf16-mixed", "model.dropout=0.1",
        "data.document_mask=true", "data.weights={files: 2.0}", "optimizer.lr=1e-4", "schedule.warmup=0.5",
        "objective.z_loss=0.0",
    ):  # fmt: skip
        assert regime(other) != known, other


@pytest.mark.parametrize(("change", "seen"), [("micro_batch=1", 8), ("data.document_mask=true", 5)])
def test_a_detector_goes_on_with_its_window_only_in_its_own_regime(make_run: MakeRun, change: str, seen: int) -> None:
    interrupted(make_run, 5)  # the newest checkpoint is that of step 4, which is judged in step 5
    make_run(change).train(silent, silent)
    state = load_checkpoint(Path("runs/default/checkpoints/step_00000008.ckpt"))["callbacks"]["Guard"]
    assert state["detector"]["seen"] == seen
