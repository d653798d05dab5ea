"""A rewind equals a restart: in place, by fitting again, and by a new process that begins with the ledger's skip."""

import shutil
from collections.abc import Iterator
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LambdaCallback

from mulligan.data.loader import Loader, MicroBatch
from mulligan.files import remove, sha256_file
from mulligan.stability.detector import Detector, Judgement
from mulligan.stability.ledger import Ledger
from mulligan.stability.snapshots import Snapshots
from mulligan.training.callbacks.checkpoint import SaveCheckpoints
from mulligan.training.checkpoints import load_checkpoint
from mulligan.training.replay import StopAfter
from mulligan.training.rewind import keeps_state
from mulligan.training.run import TrainingRun
from mulligan.training.step_sums import StepSums
from tests.training.conftest import MakeRun, run_program, silent
from tests.training.own_parts import NO_ADAMW, OWN
from tests.training.test_resume import assert_same, interrupted

SPOIL = Path(__file__).with_name("train_and_spoil.py")
LAST = "checkpoints/step_00000014.ckpt"
WATCHED = (
    "max_steps=14", "checkpoint.every_n_steps=2", "checkpoint.keep_last=9", "model.dropout=0.1",
    "stability.snapshots.every_n_steps=2", "stability.snapshots.keep=4",
    "stability.policy.depth_steps=2", "stability.policy.skip_steps=5",
)  # fmt: skip
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def sure_at(run: TrainingRun, onset: int, step: int) -> None:
    """Let the detector be sure of a spike when it judges ``step`` for the first time."""
    detector: Detector = run.guard.detector
    observe, done = detector.observe, []

    def judge(judged: int, loss: float, norm: float) -> Judgement:
        judgement = observe(judged, loss, norm)
        if judged == step and not done:
            done.append(judged)
            return judgement._replace(onset=onset, triggered="loss")
        return judgement

    detector.observe = judge  # type: ignore[method-assign]  # stands for a spike there


@pytest.mark.parametrize(
    "options",
    [
        ("micro_batch=2",),
        ("data.loader_workers=2", "validate_every_n_steps=3"),
        ("precision=16-mixed", "model.vocab_size=1200"),
        # Attention's backward pass through products, where the processor has matrix units; the head in chunks.
        ("precision=bf16-mixed", "model.dropout=0.0", "sequence_length=64", "model.vocab_size=1200"),
        (f"optimizer._target_={OWN}SlowRecipe", *NO_ADAMW),
        pytest.param(("float8=rowwise", "float8.emulate=true"), marks=pytest.mark.slow),
        pytest.param(
            ("precision=bf16-mixed", "compile=true"),
            marks=[
                pytest.mark.slow,
                pytest.mark.filterwarnings("ignore"),  # PyTorch's own while it compiles
            ],
        ),
        pytest.param(("precision=bf16-true", "data.document_mask=true"), marks=pytest.mark.slow),
        pytest.param(("trainer=single_gpu", "precision=bf16-mixed"), marks=NEEDS_GPU),
        pytest.param(
            ("trainer=single_gpu", "data.document_mask=true", "compile=true"),
            marks=[NEEDS_GPU, pytest.mark.filterwarnings("ignore")],  # PyTorch's own while it compiles
        ),
    ],
)
def test_in_place_refit_and_a_new_process_give_the_same_bits(make_run: MakeRun, options: tuple[str, ...]) -> None:
    for name, way in (("place", "in_place"), ("refit", "refit")):
        run = make_run(*WATCHED, *options, f"name={name}", f"stability.way={way}")
        sure_at(run, onset=9, step=10)
        begun: list[str] = []
        module = run.train(silent, silent, partial(begun.append, name))
        assert begun == [name], "what fits again has not been started again"
        assert (run.trainer.global_step, module.attempt) == (14, 14 + 11 - 6)
        (entry,) = Ledger(Path(f"runs/{name}/ledger.jsonl")).entries
        assert (entry["onset"], entry["step"], entry["target"], entry["skip"]) == (9, 11, 6, [24, 48])
    interrupted(make_run, 6 * (2 if "micro_batch=2" in options else 1), *WATCHED, *options, "name=new")
    shutil.copy("runs/place/ledger.jsonl", "runs/new/ledger.jsonl")
    make_run(*WATCHED, *options, "name=new").train(silent, silent)
    for other in ("refit", "new"):
        first, second = (load_checkpoint(Path(f"runs/{name}/{LAST}")) for name in ("place", other))
        assert_same(first, second)


@pytest.mark.parametrize("optimizer", [(), (f"optimizer._target_={OWN}SlowRecipe", *NO_ADAMW)], ids=["adamw", "own"])
@pytest.mark.parametrize("way", ["in_place", "refit"])
def test_a_spike_before_the_first_snapshot_begins_the_run_anew(
    make_run: MakeRun, way: str, optimizer: tuple[str, ...]
) -> None:
    run = make_run(*WATCHED, *optimizer, "name=place", f"stability.way={way}", "checkpoint.every_n_steps=7")
    sure_at(run, onset=1, step=3)
    assert run.train(silent, silent).attempt == 14 + 4
    (entry,) = Ledger(Path("runs/place/ledger.jsonl")).entries
    assert (entry["target"], entry["skip"]) == (0, [0, 20])
    Path("runs/new").mkdir()
    shutil.copy("runs/place/ledger.jsonl", "runs/new/ledger.jsonl")
    make_run(*WATCHED, *optimizer, "name=new").train(silent, silent)
    assert_same(*(load_checkpoint(Path(f"runs/{name}/{LAST}")) for name in ("place", "new")))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("ListingRecipe", "optimizer keeps rates of model.embedding.weight as a list, neither a tensor nor a number"),
        ("RestlessRecipe", "optimizer: its update has changed seen of parameter group 0 from 0 to 1"),
    ],
)
def test_an_optimizer_that_no_snapshot_can_hold_is_told_at_its_first_update(
    make_run: MakeRun, recipe: str, said: str
) -> None:
    run = make_run(*WATCHED, f"optimizer._target_={OWN}{recipe}", *NO_ADAMW, "checkpoint.every_n_steps=7")
    with pytest.raises(ValueError, match=said):
        run.train(silent, silent)
    assert run.trainer.global_step < 2


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model that overrides")
@pytest.mark.parametrize("way", ["in_place", "refit"])
def test_the_start_is_gone_back_to_as_a_new_process_would_where_nothing_holds_it(make_run: MakeRun, way: str) -> None:
    """Going on from the first checkpoint, which lies too late, with a callback of its own state where one may be."""
    averaging = "{_target_: lightning.pytorch.callbacks.EMAWeightAveraging, decay: 0.5}"
    own = [f"+callbacks.ema={averaging}"] if way == "refit" else []
    options = (*WATCHED, *own, f"stability.way={way}", "checkpoint.every_n_steps=7")
    stopped, run = (make_run(*options, "name=again") for _ in range(2))
    stopped.callbacks.append(StopAfter(2))
    stopped.train(silent, silent)
    for path in Path("runs/again/checkpoints").glob("step_00000000*"):
        remove(path)
    sure_at(run, onset=3, step=4)
    assert run.train(silent, silent).attempt == 14 + 5
    (entry,) = Ledger(Path("runs/again/ledger.jsonl")).entries
    assert (entry["step"], entry["target"], entry["skip"]) == (5, 0, [0, 24])
    Path("runs/new").mkdir()
    shutil.copy("runs/again/ledger.jsonl", "runs/new/ledger.jsonl")
    make_run(*options, "name=new").train(silent, silent)
    assert_same(*(load_checkpoint(Path(f"runs/{name}/{LAST}")) for name in ("again", "new")))


def test_a_step_that_was_gone_back_to_is_not_validated_again(make_run: MakeRun) -> None:
    run = make_run(*WATCHED, "validate_every_n_steps=2")
    sure_at(run, onset=9, step=10)
    validated: list[int] = []
    run.callbacks.append(LambdaCallback(on_validation_start=lambda trainer, _: validated.append(trainer.global_step)))
    run.train(silent, silent)
    assert validated == [2, 4, 6, 8, 10, 8, 10, 12, 14]


def test_what_is_on_disk_alone_is_gone_back_to_as_fitting_again_would(make_run: MakeRun) -> None:
    """The state of step 7: memory has those of even steps."""
    for way in ("in_place", "refit"):
        on_disk = ("checkpoint.every_n_steps=1", "checkpoint.keep_last=20")
        run = make_run(*WATCHED, *on_disk, f"name={way}", f"stability.way={way}")
        sure_at(run, onset=9, step=10)
        run.train(silent, silent)
        (entry,) = Ledger(Path(f"runs/{way}/ledger.jsonl")).entries
        assert entry["target"] == 7
    assert_same(*(load_checkpoint(Path(f"runs/{way}/{LAST}")) for way in ("in_place", "refit")))


@pytest.mark.parametrize("hook", ["state_dict", "on_save_checkpoint"])
def test_a_callback_with_either_hook_has_a_state(hook: str) -> None:
    assert keeps_state(type("Own", (Callback,), {hook: lambda *_: {}})())
    assert not keeps_state(Callback())


def begin_anew_at(folder: Path, step: int) -> None:
    """Copy the run ``spoilt`` as it was at ``step`` to ``new``, with the ledger of its end."""
    shutil.copytree(folder / "runs/spoilt", folder / "runs/new")
    for path in (folder / "runs/new/checkpoints").glob("step_*"):
        if int(path.stem.removeprefix("step_")) > step:
            remove(path)


@pytest.mark.parametrize(
    "trainer",
    [
        # Of two, sums are the same in any order.
        pytest.param(("trainer=cpu_ddp", "trainer.devices=4"), marks=pytest.mark.slow),
        ("trainer=cpu_fsdp", "micro_batch=1"),
        pytest.param(
            ("trainer=cpu_fsdp", "micro_batch=1", "optimizer._target_=own_parts.SlowRecipe", *NO_ADAMW),
            marks=pytest.mark.slow,
        ),
        pytest.param(("trainer=cpu_ddp", "micro_batch=1"), marks=pytest.mark.slow),
        pytest.param(
            ("trainer=cpu_fsdp", "trainer.strategy.tensor_parallel_size=2", "micro_batch=2"), marks=pytest.mark.slow
        ),
    ],
    ids=["four_ranks", "cpu_fsdp", "own_optimizer", "cpu_ddp", "cpu_tp"],
)
def test_one_rank_sees_no_number_and_all_rewind_as_a_new_process_would(
    tiny: tuple[str, ...], tmp_path: Path, trainer: tuple[str, ...]
) -> None:
    """In place, by fitting again, and in new processes: the same bits, two ranks with accumulation 2."""
    few = ("validation_samples=1", "validate_every_n_steps=7")  # not one for each rank
    overrides = (*tiny, *WATCHED, *trainer, *few, "stability.policy.max_withheld=0")
    refit = (*overrides, "name=refit", "stability.way=refit")
    said = run_program(tmp_path, str(SPOIL), "1", "10", *overrides, "name=spoilt", "+", *refit)
    ranks = 4 if "trainer.devices=4" in trainer else 2
    assert said.count("spike (not finite, from step 10 on") == 2 * ranks  # in two runs
    for name in ("spoilt", "refit"):
        (entry,) = Ledger(tmp_path / f"runs/{name}/ledger.jsonl").entries
        assert (entry["onset"], entry["step"], entry["target"], entry["skip"]) == (10, 11, 8, [32, 52])
        assert entry["tokens_lost"] == 3 * 4 * 32
        assert entry["fingerprints"]["config"] == sha256_file(tmp_path / f"runs/{name}/config.yaml")
        checkpoint = load_checkpoint(tmp_path / f"runs/{name}/{LAST}")
        assert entry["fingerprints"]["data"] == checkpoint["mulligan"]["data_fingerprint"]
    begin_anew_at(tmp_path, 8)
    run_program(tmp_path, str(SPOIL), "0", "0", *overrides, "name=new")
    for other in ("refit", "new"):
        assert_same(*(load_checkpoint(tmp_path / f"runs/{name}/{LAST}") for name in ("spoilt", other)))


def test_workers_end_before_those_of_a_rewind_start(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, begin = make_run(*WATCHED, "data.loader_workers=1"), Loader.__iter__
    alive: list[int] = []

    def look(self: Loader) -> Iterator[MicroBatch]:
        alive.append(len(active_children()))
        return begin(self)

    monkeypatch.setattr(Loader, "__iter__", look)
    sure_at(run, onset=9, step=10)
    run.train(silent, silent)
    assert len(alive) > 1
    assert not any(alive)


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, and nothing is saved on its way."""


@pytest.mark.parametrize("at", [(SaveCheckpoints, "abandon_after"), (Snapshots, "restore"), (StepSums, "forget")])
def test_killed_while_it_rewinds_it_ends_with_the_same_bits(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, at: tuple[type, str]
) -> None:
    """Right after the ledger's line, with the later checkpoints put away, and with the state restored."""
    runs = [make_run(*WATCHED, f"name={name}") for name in ("whole", "killed")]
    for run in runs:
        sure_at(run, onset=9, step=10)
    runs[0].train(silent, silent)

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*at, kill)
        with pytest.raises(Killed):
            runs[1].train(silent, silent)
    make_run(*WATCHED, "name=killed").train(silent, silent)
    assert_same(*(load_checkpoint(Path(f"runs/{name}/{LAST}")) for name in ("whole", "killed")))
