"""What is left out of Lightning's loop is left out, and what a run has is called."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import LambdaCallback

from mulligan.data.loader import MicroBatch
from mulligan.training.lean_loop import HOOKS, LeanModule
from mulligan.training.run import TrainingRun
from tests.training.conftest import MakeRun, silent


class OneHook(Callback):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_before_zero_grad(self, trainer: Any, *args: Any) -> None:
        self.seen.append(trainer.global_step)


def test_a_callback_is_called_where_it_has_a_hook(make_run: MakeRun) -> None:
    run, one, ended = make_run("max_steps=3"), OneHook(), []
    run.callbacks.extend(
        [one, LambdaCallback(on_train_batch_end=lambda trainer, *_: ended.append(trainer.global_step))]
    )
    module = run.train(silent, silent)
    assert one.seen == [0, 1, 2]
    assert ended == [1, 2, 3]
    assert [hook for hook in HOOKS if getattr(one, hook) is not None] == ["on_before_zero_grad"]
    assert not any(getattr(module, hook) for hook in HOOKS)  # it has none of these


def called(run: TrainingRun, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Lightning calls of its own module and callbacks while the run trains."""
    names: list[str] = []
    for owner in (LightningModule, Callback):
        for hook in (*HOOKS, "on_before_batch_transfer", "on_after_batch_transfer"):
            if hasattr(owner, hook):
                monkeypatch.setattr(owner, hook, lambda *_, hook=hook, **__: names.append(hook))
    run.train(silent, silent)
    return names


def test_lightning_calls_no_hook_that_does_nothing(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(make_run("max_steps=2"), monkeypatch) == []


def test_a_batch_comes_to_the_device_whole() -> None:
    module, batch = LeanModule(), MicroBatch(torch.arange(6).view(2, 3), 4)
    moved = module._apply_batch_transfer_handler(batch, torch.device("meta"))
    assert isinstance(moved, MicroBatch)
    assert (moved.tokens_ST.device.type, moved.global_count) == ("meta", 4)
    assert module._apply_batch_transfer_handler(batch.tokens_ST, torch.device("meta")).device.type == "meta"
    assert module.to("meta")._apply_batch_transfer_handler(batch).tokens_ST.device.type == "meta"


def test_attributes_are_set_as_in_any_module() -> None:
    module = LeanModule()
    module.part = torch.nn.Linear(1, 1)
    module.part = None  # type: ignore[assignment]
    assert "part" not in module.__dict__
    assert module.part is None
    module.note = "a"  # type: ignore[assignment]
    module.note = torch.nn.Linear(1, 1)
    assert "note" not in module.__dict__
    assert len(list(module.parameters())) == 2
