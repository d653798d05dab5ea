"""Faults: callbacks that spoil a run on purpose. Of all runs only a drill's and heal_demo's load this file.

Each is a function of its seed and its place in the run, and does nothing outside it.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.optim import Optimizer

from mulligan.data.loader import MicroBatch
from mulligan.objective.linear_cross_entropy import Terms
from mulligan.training.hardware import wait_for
from mulligan.training.module import PretrainModule
from mulligan.training.rewind import training_tensors


@dataclass(kw_only=True, eq=False)
class Fault(Callback):
    """Acts in ``num_steps`` updates from the ``at_step``-th on, on ``rank`` alone or on all (None).

    Updates are counted as they are tried, and a rewind ends the fault: what it did to the state is undone. ``began`` is
    the attempt in which it first acted, on whichever rank.
    """

    undone_by_rewind: ClassVar[bool] = True

    at_step: int
    num_steps: int = 1
    rank: int | None = None
    seed: int = 0
    began: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        places = (("at_step", self.at_step, 1), ("num_steps", self.num_steps, 1), ("rank", self.rank or 0, 0))
        for key, number, least in places:
            if number < least:
                raise ValueError(f"{type(self).__name__}: {key}={number} must be at least {least}")

    def _update(self, trainer: Trainer, module: PretrainModule) -> int:
        """The number of the update being made, by which the fault finds its place."""
        return module.attempt_of(trainer.global_step + 1)

    def _acts(self, trainer: Trainer, module: PretrainModule) -> bool:
        if not self.at_step <= self._update(trainer, module) < self.at_step + self.num_steps:
            return False
        if self.began is None:
            self.began = module.attempt_of(trainer.global_step + 1)
        return not self._is_over(trainer, module) and self.rank in (None, trainer.global_rank)

    def _is_over(self, trainer: Trainer, module: PretrainModule) -> bool:
        """Whether the run went back, since it began, to before the update being made."""
        return self.undone_by_rewind and any(
            entry["attempt"] >= self.at_step and entry["target"] <= trainer.global_step
            for entry in module.ledger.rewinds
        )

    def _draws(self, *place: int) -> torch.Generator:
        return torch.Generator().manual_seed(hash((self.seed, *place)) % 2**63)


@dataclass(kw_only=True, eq=False)
class DataFault(Fault, ABC):
    """Lies in the samples that a run without skips meets at ``at_step``: leaving them out avoids it, and going back
    without that meets it again.
    """

    undone_by_rewind: ClassVar[bool] = False

    def _update(self, trainer: Trainer, module: PretrainModule) -> int:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by fit
        return data.sequencer.first_sample(trainer.global_step, data.global_batch) // data.global_batch + 1

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: MicroBatch, batch_idx: int) -> None:
        if not self._acts(trainer, pl_module):
            return
        place = (self._update(trainer, pl_module), batch_idx % pl_module.accumulation, pl_module.data_parallel_rank)
        tokens_ST, begin_id = batch.tokens_ST, pl_module.begin_id()
        spoilt_ST = self._spoilt(tokens_ST, pl_module, self._draws(*place)).to(tokens_ST.device)
        # The marks of documents stay where they are: targets were counted by them.
        tokens_ST.copy_(torch.where(tokens_ST == begin_id, begin_id, spoilt_ST))

    @abstractmethod
    def _spoilt(self, tokens_ST: Tensor, module: PretrainModule, draws: torch.Generator) -> Tensor:
        """What stands in place of a micro-batch's tokens."""


@dataclass(kw_only=True, eq=False)
class GarbageData(DataFault):
    """Random tokens in place of the batch's."""

    def _spoilt(self, tokens_ST: Tensor, module: PretrainModule, draws: torch.Generator) -> Tensor:
        begin_id, vocab_size = module.begin_id(), module.model_config.vocab_size
        # From the larger side of the mark, which stands near the end of some vocabularies.
        side = (begin_id + 1, vocab_size) if 2 * begin_id < vocab_size else (0, begin_id)
        return torch.randint(*side, tokens_ST.shape, generator=draws)


@dataclass(kw_only=True, eq=False)
class RepeatedData(DataFault):
    """A few tokens in a row of one sample, over and over through the batch."""

    num_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_tokens < 1:
            raise ValueError(f"RepeatedData: num_tokens={self.num_tokens} must be at least 1")

    def _spoilt(self, tokens_ST: Tensor, module: PretrainModule, draws: torch.Generator) -> Tensor:
        text = tokens_ST[0][tokens_ST[0] != module.begin_id()]
        start = int(torch.randint(max(1, len(text) - self.num_tokens + 1), (), generator=draws))
        phrase = text[start : start + self.num_tokens]
        return phrase[torch.arange(tokens_ST.shape[1]) % len(phrase)].expand_as(tokens_ST)


@dataclass(kw_only=True, eq=False)
class ScaledGradient(Fault):
    """``factor`` times the gradient, before any rank or micro-batch is added to it; the loss reads as it was."""

    factor: float

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: MicroBatch, batch_idx: int) -> None:
        if not self._acts(trainer, pl_module):
            return
        objective = pl_module.objective

        def scaled(*args: Any, **kwargs: Any) -> Terms:
            pl_module.objective = objective
            terms = objective(*args, **kwargs)
            terms.loss_sum.register_hook(lambda gradient: gradient * self.factor)
            return terms

        pl_module.objective = scaled


@dataclass(kw_only=True, eq=False)
class RateJump(Fault):
    """``factor`` times the learning rate, which the schedule sets anew for each update."""

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.factor < math.inf:
            raise ValueError(f"RateJump: factor={self.factor} must be a number above 0")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        if self._acts(trainer, pl_module):
            for group in optimizer.param_groups:
                group["lr"] *= self.factor


@dataclass(kw_only=True, eq=False)
class FlippedBit(Fault):
    """One bit of one weight, or of one of its moments, drawn from the seed: 30 is float32's highest exponent bit."""

    where: Literal["weight", "exp_avg", "exp_avg_sq"]
    bit: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.bit < 32:
            raise ValueError(f"FlippedBit: bit={self.bit} must be in [0, 31], the bits of float32")
        if self.where != "weight" and self.at_step == 1:
            raise ValueError(
                f"FlippedBit: at_step=1 comes before there is a moment; where={self.where} needs at least 2"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: MicroBatch, batch_idx: int) -> None:
        if batch_idx % pl_module.accumulation or not self._acts(trainer, pl_module):
            return
        draws = self._draws(self._update(trainer, pl_module))
        tensors = _of_weights(trainer, pl_module, "" if self.where == "weight" else f".{self.where}")
        tensor = tensors[int(torch.randint(len(tensors), (), generator=draws))]
        if tensor.dtype != torch.float32:
            raise ValueError(f"FlippedBit flips bits of float32, and the weights are {tensor.dtype}: change precision")
        place = torch.randint(tensor.numel(), (), generator=draws)
        tensor.view(-1).view(torch.int32)[place] ^= 1 << self.bit if self.bit < 31 else -(2**31)


@dataclass(kw_only=True, eq=False)
class NoisyWeights(Fault):
    """Noise on every matrix, its deviation ``size`` times the matrix's own: once, or a little in each update."""

    size: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.size < math.inf:
            raise ValueError(f"NoisyWeights: size={self.size} must be a number above 0")

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: MicroBatch, batch_idx: int) -> None:
        if batch_idx % pl_module.accumulation or not self._acts(trainer, pl_module):
            return
        draws = self._draws(self._update(trainer, pl_module))  # alike on every rank, so that copies stay copies
        for tensor in _of_weights(trainer, pl_module):
            if tensor.ndim > 1:
                noise = torch.randn(tensor.shape, generator=draws).to(tensor)
                tensor += noise * self.size * tensor.square().mean().sqrt()


def _of_weights(trainer: Trainer, module: PretrainModule, suffix: str = "") -> list[Tensor]:
    """The model's weights, or the moments of that suffix: this rank's part, where it has any."""
    wait_for(module.device)  # a snapshot or a checkpoint may still be copied from them
    tensors = training_tensors(module, trainer.optimizers[0])
    names = (f"{name}{suffix}" for name, _ in module.named_parameters() if name.startswith("model."))
    return [tensors[name] for name in names if tensors[name].numel()]
