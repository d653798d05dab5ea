"""DDP and FSDP2: ranks wait for each other for a bounded time, and checkpoints are those of one process.

A checkpoint under FSDP2 holds whole tensors, so that a run goes on under any strategy and world size.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, ParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

TIMEOUT_SECONDS = 600.0  # torch waits 1800


class ReplicatedStrategy(DDPStrategy):
    """Each rank keeps all weights (DDP); one that waits for the others for ``timeout_seconds`` fails."""

    def __init__(self, *, timeout_seconds: float = TIMEOUT_SECONDS, **options: Any) -> None:
        super().__init__(timeout=_timeout(timeout_seconds), **options)


class FullyShardedStrategy(ModelParallelStrategy):
    """Each rank keeps its part of every weight and moment (FSDP2, ``fully_shard`` in the module's configure_model).

    A checkpoint is assembled on rank 0, tensor by tensor, and written and read through the CheckpointIO like any other.
    """

    lightning_restore_optimizer = True  # Lightning would read the file past the hooks that check it

    def __init__(self, *, process_group_backend: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=_timeout(timeout_seconds),
        )

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors on rank 0, nothing on the others; every rank must ask."""
        assert self.lightning_module is not None
        return self._on_rank_zero(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As ``lightning_module_state_dict``."""
        return self._on_rank_zero(optimizer.state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        with torch.no_grad():
            for name, whole in checkpoint["state_dict"].items():
                own[name].copy_(_like(own[name], whole))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                number: {
                    key: _like(parameters[number], value) if value.ndim else value for key, value in moments.items()
                }
                for number, moments in saved["state"].items()
            }
            optimizer.load_state_dict(saved | {"state": state})

    save_checkpoint: Callable[..., None] = ParallelStrategy.save_checkpoint
    load_checkpoint: Callable[..., dict[str, Any]] = ParallelStrategy.load_checkpoint

    def _on_rank_zero(self, state: dict[str, Any]) -> dict[str, Any]:
        def gathered(value: Any) -> Any:
            if isinstance(value, DTensor):
                value = value.full_tensor()  # a collective
                return value.cpu() if self.is_global_zero else None
            return value

        whole = tree_map(gathered, state)
        return whole if self.is_global_zero else {}


def _timeout(seconds: float) -> timedelta:
    if not 0 < seconds < float("inf"):
        raise ValueError(f"trainer.strategy.timeout_seconds={seconds} must be a number above 0")
    return timedelta(seconds=seconds)


def _like(own: Tensor, whole: Tensor) -> Tensor:
    """``whole`` spread over the ranks as ``own`` is. Every rank has read it, so nothing is sent."""
    if not isinstance(own, DTensor):
        return whole
    return distribute_tensor(whole.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
