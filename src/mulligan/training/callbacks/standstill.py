"""Says so where a run has learnt nothing: a detector of spikes takes the first losses that it sees for normal."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer
from numpy.typing import NDArray

from mulligan.training.callbacks.metrics import LogMetrics
from mulligan.training.interventions import tell

SAMPLED_TOKENS = 2**20
PATIENCE_STEPS = 300  # behind the warm-up


class Standstill(Callback):
    """Looks once, ``PATIENCE_STEPS`` behind the warm-up: was any loss that was logged below what a model has that knows
    how often each token comes, and nothing else? Most are within a hundred steps. A later rise is the guard's to see.
    """

    def __init__(self, *, metrics: LogMetrics, warmup_steps: int, say: Callable[[str], None]) -> None:
        self.metrics, self.from_step, self.say = metrics, warmup_steps + PATIENCE_STEPS, say
        self._seen = metrics.latest
        self._lowest = math.inf
        self._has_looked = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step >= self.from_step:
            self._has_looked = True  # an earlier start

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if self._has_looked or self.metrics.latest is self._seen:
            return
        self._seen = self.metrics.latest
        self._lowest = min(self._lowest, self._seen["cross_entropy"])
        if trainer.global_step < self.from_step:
            return
        self._has_looked = True
        if not trainer.is_global_zero:
            return
        entropy = unigram_entropy(_sampled(trainer))
        if self._lowest < entropy:
            return
        rate = f"optimizer.lr={pl_module.optimizer_recipe.lr:g}"
        text = (
            f"step {trainer.global_step}: no loss was below {self._lowest:.2f} yet, and a model which knows only how "
            f"often each token comes has {entropy:.2f}: is {rate} too high, or too low?"
        )
        tell(trainer, self.say, text, attempt=pl_module.attempt, entries=pl_module.ledger.entries, numbers={})


def unigram_entropy(tokens: NDArray[np.int64]) -> float:
    """Nats a token of a model that knows frequencies alone: -sum p ln p over the tokens that occur."""
    counts = np.bincount(tokens.ravel())
    shares = counts[counts > 0] / tokens.size
    return float(-(shares * np.log(shares)).sum())


def _sampled(trainer: Trainer) -> NDArray[np.int64]:
    """The run's first samples, which every source has its share of."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set where mypy does not look
    num_samples = min(SAMPLED_TOKENS // data.sequence_length + 1, sum(data.shards.windows_by_source().values()))
    windows_S = data.sequencer.windows(np.arange(num_samples))
    tokens_ST = np.empty((num_samples, data.sequence_length + 1), dtype=np.int64)
    data.shards.read(windows_S, tokens_ST)
    return tokens_ST
