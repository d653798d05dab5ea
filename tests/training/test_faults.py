"""Each fault does what it says where it is told to, alike each time, and nothing anywhere else."""

import math
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from mulligan.data.loader import MicroBatch
from mulligan.training.faults import (
    Fault,
    FlippedBit,
    GarbageData,
    NoisyWeights,
    RateJump,
    RepeatedData,
    ScaledGradient,
)
from mulligan.training.rewind import training_tensors
from mulligan.training.run import TrainingRun
from tests.conftest import environment
from tests.training.conftest import MakeRun, silent
from tests.training.test_rewind import WATCHED, sure_at

AT = 5


def one_of_each(seed: int) -> list[Fault]:
    """One after the other, from the second update to the eighth."""
    return [
        GarbageData(at_step=2, num_steps=2, seed=seed),
        RepeatedData(at_step=4, seed=seed, num_tokens=3),
        RateJump(at_step=5, num_steps=2, seed=seed, factor=10.0),
        ScaledGradient(at_step=6, seed=seed, factor=10.0),
        FlippedBit(at_step=7, seed=seed, where="weight", bit=20),
        FlippedBit(at_step=7, seed=seed, where="exp_avg", bit=20),
        NoisyWeights(at_step=8, seed=seed, size=0.1),
    ]


class Record(Callback):
    """What each update worked with, seen behind the fault."""

    def __init__(self) -> None:
        self.tokens: list[Tensor] = []
        self.rates: list[float] = []  # as multiples of the schedule's
        self.norms: list[float] = []
        self.losses: list[float] = []
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: MicroBatch, batch_idx: int) -> None:
        self.tokens.append(batch.tokens_ST.clone())
        tensors = training_tensors(module, trainer.optimizers[0])
        self.states.append({name: tensor.clone() for name, tensor in tensors.items()})

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"] / module.lr_schedulers().get_last_lr()[0])

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        self.norms.append(float(module.clipping.norm))
        self.losses.append(math.nan if module.sums.step_2 is None else float(module.sums.step_2[0]))


def trained(run: TrainingRun, *faults: Fault) -> Record:
    record = Record()
    run.callbacks[-1:-1] = [*faults, record]
    run.train(silent, silent)
    tensors = training_tensors(run.trainer.lightning_module, run.trainer.optimizers[0])
    record.states.append({name: tensor.clone() for name, tensor in tensors.items()})
    return record


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def changed(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    return [name for name in first if not first[name].equal(second[name])]


@pytest.fixture
def record_of(make_run: MakeRun) -> Callable[..., Record]:
    numbers = count(1)

    def make(*faults: Fault) -> Record:
        name = f"name=run{next(numbers)}"
        return trained(make_run("stability=none", "logger=none", "checkpoint.every_n_steps=100", name), *faults)

    return make


def test_nothing_happens_outside_the_place(record_of: Callable[..., Record]) -> None:
    """After the end, or on a rank that is not there: weights and moments to the bit."""
    later, others = one_of_each(seed=0), one_of_each(seed=0)
    for fault in later:
        fault.at_step = 9
    for fault in others:
        fault.rank = 1
    assert same(record_of(*later, *others).states[-1], record_of().states[-1])
    assert {fault.began for fault in later} == {None}
    assert [fault.began for fault in others] == [2, 4, 5, 6, 7, 7, 8], "every rank knows when it began"


def test_the_same_seed_gives_the_same_faults(record_of: Callable[..., Record]) -> None:
    first, again, other = (record_of(*one_of_each(seed)) for seed in (3, 3, 4))
    assert all(same(one, two) for one, two in zip(first.states, again.states, strict=True))
    assert first.losses[0] == other.losses[0]
    for step in (2, 3, 4):
        assert not first.tokens[step - 1].equal(other.tokens[step - 1])


def test_data_and_rate_are_spoilt_for_as_long_as_told(record_of: Callable[..., Record]) -> None:
    clean, spoilt = record_of(), record_of(*one_of_each(seed=0))
    garbage = [not one.equal(other) for one, other in zip(clean.tokens, spoilt.tokens, strict=True)]
    assert garbage == [step in (2, 3, 4) for step in range(1, 9)]
    assert not spoilt.tokens[1].equal(spoilt.tokens[2])
    assert spoilt.rates == pytest.approx([1, 1, 1, 1, 10, 10, 1, 1])
    inside = clean.tokens[3] != 1  # the marks of documents stay
    assert spoilt.tokens[3][~inside].eq(1).all()
    pattern = spoilt.tokens[3].masked_fill(~inside, -1).amax(0)  # one row for all
    assert spoilt.tokens[3][inside].equal(pattern.expand_as(inside)[inside])
    assert pattern[3:].equal(pattern[:-3])


def test_a_scaled_gradient_leaves_the_loss_alone(record_of: Callable[..., Record]) -> None:
    clean, scaled = record_of(), record_of(ScaledGradient(at_step=AT, factor=1e3))
    nothing = record_of(ScaledGradient(at_step=AT, factor=math.nan))
    assert scaled.losses[:AT] == clean.losses[:AT] == nothing.losses[:AT]
    assert scaled.norms[AT - 1] == pytest.approx(1e3 * clean.norms[AT - 1], rel=1e-4)
    assert math.isnan(nothing.norms[AT - 1])


@pytest.mark.parametrize("begin_id", [0, 1, 6, 7])
def test_garbage_holds_no_mark_wherever_that_stands(begin_id: int) -> None:
    module: Any = SimpleNamespace(begin_id=lambda: begin_id, model_config=SimpleNamespace(vocab_size=8))
    spoilt = GarbageData(at_step=1)._spoilt(torch.zeros(9, 9), module, torch.Generator().manual_seed(0))
    assert begin_id not in spoilt
    assert len(spoilt.unique()) > 3


@pytest.mark.parametrize(("where", "bit"), [("weight", 31), ("exp_avg_sq", 30)])
def test_one_bit_flips(where: str, bit: int, record_of: Callable[..., Record]) -> None:
    clean = record_of().states[AT - 1]
    flipped = record_of(FlippedBit(at_step=AT, where=where, bit=bit)).states[AT - 1]  # type: ignore[arg-type]  # a word of the table
    (name,) = changed(clean, flipped)
    assert name.endswith(where) or where == "weight"
    bits = clean[name].view(torch.int32) ^ flipped[name].view(torch.int32)
    (difference,) = bits[bits != 0].tolist()
    assert difference % 2**32 == 1 << bit


def test_noise_is_as_large_as_told_and_on_matrices_alone(record_of: Callable[..., Record]) -> None:
    clean = record_of().states[AT - 1]
    noisy = record_of(NoisyWeights(at_step=AT, size=0.5)).states[AT - 1]
    names = changed(clean, noisy)
    assert names == [name for name in clean if clean[name].ndim > 1 and "exp_avg" not in name]
    sizes = [float((noisy[name] - clean[name]).std() / clean[name].std()) for name in names]
    assert sizes == pytest.approx([0.5] * len(sizes), rel=0.15)


def test_a_rewind_ends_a_fault_of_the_state_and_leaves_one_of_the_data_behind(make_run: MakeRun) -> None:
    """From attempt 11 back to step 6, without the samples of updates 7 to 12: attempt 12 meets those of update 13."""
    rate = RateJump(at_step=10, num_steps=9, factor=2.0)
    data, later = GarbageData(at_step=10), GarbageData(at_step=13)
    run = make_run(*WATCHED)
    sure_at(run, onset=9, step=10)
    record = trained(run, rate, data, later)
    assert record.rates == pytest.approx([2.0 if attempt in (10, 11) else 1.0 for attempt in range(1, 20)])
    run = make_run(*WATCHED, "name=clean")
    sure_at(run, onset=9, step=10)
    clean = trained(run)
    spoilt = [not one.equal(other) for one, other in zip(clean.tokens, record.tokens, strict=True)]
    assert spoilt == [attempt in (10, 12) for attempt in range(1, 20)]
    assert (rate.began, data.began, later.began) == (10, 10, 12)


def test_on_one_rank_alone() -> None:
    fault = RateJump(at_step=1, factor=2.0, rank=1)
    module: Any = SimpleNamespace(attempt_of=lambda step: step, ledger=SimpleNamespace(rewinds=[]))
    for rank, rate in ((0, 1.0), (1, 2.0)):
        trainer: Any = SimpleNamespace(global_rank=rank, global_step=0)
        optimizer: Any = SimpleNamespace(param_groups=[{"lr": 1.0}])
        fault.on_before_optimizer_step(trainer, module, optimizer)
        assert optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GarbageData(at_step=0), "GarbageData: at_step=0 must be at least 1"),
        (lambda: GarbageData(at_step=1, num_steps=-1), "GarbageData: num_steps=-1 must be at least 1"),
        (lambda: GarbageData(at_step=1, rank=-1), "GarbageData: rank=-1 must be at least 0"),
        (lambda: RepeatedData(at_step=1, num_tokens=0), "num_tokens=0 must be at least 1"),
        (lambda: RateJump(at_step=1, factor=0.0), r"factor=0\.0 must be a number above 0"),
        (lambda: NoisyWeights(at_step=1, size=math.nan), "size=nan must be a number above 0"),
        (lambda: FlippedBit(at_step=1, where="weight", bit=32), r"bit=32 must be in \[0, 31\]"),
        (lambda: FlippedBit(at_step=1, where="exp_avg", bit=3), "at_step=1 comes before there is a moment"),
    ],
)
def test_mistakes(make: Callable[[], Fault], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_no_normal_run_loads_faults() -> None:
    program = (
        "import sys; from hydra import compose, initialize_config_dir; import mulligan.cli.train\n"
        "from mulligan.cli.compose import CONF, build, plain\n"
        "with initialize_config_dir(str(CONF), version_base='1.3'): run = build(plain(compose('train')))\n"
        "assert run.guard is not None\n"
        "print(sorted(name for name in sys.modules if name.startswith('mulligan') and 'fault' in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
