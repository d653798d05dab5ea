"""What the loggers see: one call every N steps, the only wait for the device beside validation and checkpoints."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from mulligan.evaluation.held_out import perplexity
from mulligan.training.hardware import peak_flops, peak_memory_bytes, wait_for
from mulligan.training.module import PretrainModule

NATS_PER_BIT = math.log(2.0)


class LogMetrics(Callback):
    """Loss terms are means in nats over the counted tokens since the last call; a count is taken once, here."""

    def __init__(
        self,
        *,
        every_n_steps: int,
        tokens_per_step: int,
        flops_per_token: int,
        more: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """``more`` are numbers of somebody else's, asked for when the others are logged."""
        if every_n_steps < 1:
            raise ValueError(f"log_every_n_steps={every_n_steps} must be at least 1")
        self.every_n_steps, self.tokens_per_step, self.flops_per_token = every_n_steps, tokens_per_step, flops_per_token
        self.more = more
        self.latest: dict[str, float] = {}
        self.latest_validation: dict[str, float] = {}
        self.tokens_trained = 0  # and what rewinds gave up, over all starts
        self.seconds_trained = 0.0
        self._since: tuple[float, int] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._restart_clock(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        assert self._since is not None
        step = trainer.global_step
        if step < self._since[1] or pl_module.sums.window_4 is None:  # a rewind
            self._restart_clock(trainer)
            self.latest_validation = {}  # of a lineage that was given up
            return
        if step == self._since[1] or (step % self.every_n_steps and step != trainer.max_steps):
            return
        self.latest = self._loss_metrics(pl_module) | self._speed_metrics(trainer, pl_module, step) | self.more()
        self.log_numbers(trainer, pl_module, self.latest)
        self._restart_clock(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        wait_for(pl_module.device)  # what is queued is training
        self._pause = time.perf_counter()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:  # before any callback's end of it
        if pl_module.validation_sums is None or trainer.sanity_checking:
            return
        cross_entropy, count, num_bytes = pl_module.take_validation_sums()
        self.latest_validation = {
            "val_cross_entropy": cross_entropy / count,
            "val_perplexity": perplexity(cross_entropy / count),
            "val_bits_per_token": cross_entropy / count / NATS_PER_BIT,
            "val_bits_per_byte": cross_entropy / num_bytes / NATS_PER_BIT,
        }
        # Where callbacks look that watch a metric.
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.latest_validation.items()})
        self.log_numbers(trainer, pl_module, self.latest_validation)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.leave_out(time.perf_counter() - self._pause)

    def state_dict(self) -> dict[str, Any]:
        return {"tokens_trained": self.tokens_trained, "seconds_trained": self.seconds_trained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["seconds_trained"] > self.seconds_trained:  # not so where a rewind fits anew: time goes on
            self.tokens_trained = state_dict["tokens_trained"]
            self.seconds_trained = state_dict["seconds_trained"]

    def log_numbers(self, trainer: Trainer, module: PretrainModule, metrics: dict[str, float]) -> None:
        counters = {"step": float(trainer.global_step), "attempt": float(module.attempt)}
        for logger in trainer.loggers:
            logger.log_metrics(metrics | counters, step=trainer.global_step)

    def leave_out(self, seconds: float) -> None:
        """Have the clock of ``tokens_per_second`` not count time in which nothing was trained."""
        if self._since is not None:
            self._since = (self._since[0] + seconds, self._since[1])

    def _loss_metrics(self, module: PretrainModule) -> dict[str, float]:
        cross_entropy, z, smoothing, count = module.sums.take_window()
        assert module.clipping.norm is not None
        loss_scale = {} if module.loss_scale is None else {"loss_scale": float(module.loss_scale.scale)}
        return loss_scale | {
            "loss": (cross_entropy + z + smoothing) / count,
            "cross_entropy": cross_entropy / count,
            "z_loss": z / count,
            "label_smoothing": smoothing / count,
            "perplexity": perplexity(cross_entropy / count),
            "bits_per_token": cross_entropy / count / NATS_PER_BIT,
            "gradient_norm": float(module.clipping.norm),
        }

    def _speed_metrics(self, trainer: Trainer, module: PretrainModule, step: int) -> dict[str, float]:
        assert self._since is not None
        seconds, tokens = time.perf_counter() - self._since[0], (step - self._since[1]) * self.tokens_per_step
        self.tokens_trained += tokens
        self.seconds_trained += seconds
        metrics = {
            "learning_rate": trainer.optimizers[0].param_groups[0]["initial_lr"] * module.rate_factor(step - 1),
            "tokens_per_second": tokens / seconds,
            "tokens_seen": float(step * self.tokens_per_step),
            "tokens_lost": float(module.ledger.lost_before(step) * self.tokens_per_step),
            "goodput": step / module.attempt,
            "peak_memory_gigabytes": peak_memory_bytes(module.device) / 1e9,
        }
        peak = peak_flops(module.device)
        if peak is not None:
            metrics["mfu"] = metrics["tokens_per_second"] * self.flops_per_token / (peak * trainer.world_size)
        return metrics

    def _restart_clock(self, trainer: Trainer) -> None:
        self._since = (time.perf_counter(), trainer.global_step)
