"""A signal ends a run behind the step at hand, whose state is saved."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback

from mulligan.training.checkpoints import listed
from tests.training.conftest import MakeRun, silent
from tests.training.test_resume import CHECKPOINTS
from tests.training.test_rewind import WATCHED, sure_at


@pytest.fixture(autouse=True)
def pythons_own_ctrl_c() -> Iterator[None]:
    """No run's before, which one that ends with an exception leaves behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("send", "code"),
    [
        (lambda _: signal.raise_signal(signal.SIGTERM), 143),
        (lambda _: signal.raise_signal(signal.SIGINT), 130),
        (lambda trainer: trainer._signal_connector._slurm_sigusr_handler_fn(signal.SIGUSR1, None), 143),
    ],
    ids=["SIGTERM", "Ctrl-C", "SLURM's USR1"],
)
def test_a_signal_ends_it_behind_the_step_at_hand(
    make_run: MakeRun, send: Callable[[Trainer], None], code: int
) -> None:
    """Sent in the first half of the first step. A second Ctrl-C is Python's own again, and ends at once."""
    run = make_run("micro_batch=2", "checkpoint.every_n_steps=100", "log_every_n_steps=50")
    met: list[Any] = []

    def at_batch(trainer: Trainer, module: object, batch: object, batch_idx: int) -> None:
        if batch_idx == 0:
            send(trainer)
            met.append(signal.getsignal(signal.SIGINT))

    run.callbacks.append(LambdaCallback(on_train_batch_start=at_batch))
    with pytest.raises(SystemExit) as ended:
        run.fit(silent, silent)
    assert ended.value.code == code
    assert listed(CHECKPOINTS)[-1].step == 1
    assert [handler is signal.default_int_handler for handler in met] == [code == 130]


def test_a_run_that_has_ended_leaves_ctrl_c_as_it_was(make_run: MakeRun) -> None:
    """Also where it has begun to fit twice."""
    run = make_run(*WATCHED, "stability.way=refit")
    sure_at(run, onset=9, step=10)
    run.train(silent, silent)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
