"""DDP and FSDP2: ranks wait for each other for a bounded time, and a run goes on under either and any world size.

Under FSDP2 every rank saves and reads its own part.
"""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, ParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mulligan.distributed import rank
from mulligan.launcher import STARTER
from mulligan.model.parts import fill
from mulligan.training.checkpoint_io import AtomicCheckpointIO
from mulligan.training.checkpoints import load_unsharded
from mulligan.training.sharded import read_into
from mulligan.training.started_ranks import StartedRanks
from mulligan.training.state_tree import mapped

TIMEOUT_SECONDS = 600.0  # torch waits 1800
YEAR_SECONDS = 31_536_000


class _WatchedStrategy(ParallelStrategy):
    """Of ranks that Lightning may start: those end with the first of their host, and that with them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._started: StartedRanks | None = None
        os.environ[STARTER] = str(os.getpid())

    def setup_environment(self) -> None:
        os.environ.pop(STARTER, None)  # they are started by now, and nothing else is to end with this process
        if self.launcher is not None:
            self._started = StartedRanks(self.launcher)
        super().setup_environment()

    def teardown(self) -> None:
        if self._started is not None:
            self._started.forget()
        super().teardown()


class ReplicatedStrategy(_WatchedStrategy, DDPStrategy):
    """Each rank keeps all weights (DDP); one that waits for the others for ``timeout_seconds`` fails."""

    def __init__(
        self,
        *,
        process_group_backend: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        broadcast_buffers: bool = False,
        gradient_as_bucket_view: bool = True,
        bucket_cap_mb: int | None = None,
    ) -> None:
        super().__init__(
            process_group_backend=process_group_backend,
            timeout=_timeout(timeout_seconds),
            broadcast_buffers=broadcast_buffers,
            gradient_as_bucket_view=gradient_as_bucket_view,
            bucket_cap_mb=bucket_cap_mb,
        )

    def configure_ddp(self) -> None:
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        _settle_buckets(self.model)


class FullyShardedStrategy(_WatchedStrategy, ModelParallelStrategy):
    """Each rank keeps its part of every weight and moment (FSDP2, ``fully_shard`` in the module's configure_model).

    With ``tensor_parallel_size`` so many ranks in a row share each sample as well, and split the blocks between them.
    Of a checkpoint in parts each rank reads its own. Of one in a single file it reads all, and keeps its own.
    """

    lightning_restore_optimizer = True  # Lightning would read the file past the hooks that check it

    def __init__(
        self,
        *,
        tensor_parallel_size: int = 1,
        process_group_backend: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        if tensor_parallel_size < 1:
            raise ValueError(f"trainer.strategy.tensor_parallel_size={tensor_parallel_size} must be at least 1")
        super().__init__(
            tensor_parallel_size=tensor_parallel_size,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=_timeout(timeout_seconds),
        )
        self.tensor_parallel_size = tensor_parallel_size
        self._loaded_from = Path()

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes // self.tensor_parallel_size
        super().setup_environment()

    lightning_module_state_dict: Callable[..., dict[str, Any]] = ParallelStrategy.lightning_module_state_dict

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        check_shapes_of_state(optimizer)
        return ParallelStrategy.optimizer_state(self, optimizer)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """What is in parts is left empty, for ``load_model_state_dict`` and ``load_optimizer_state_dict`` to fill."""
        assert isinstance(self.checkpoint_io, AtomicCheckpointIO)
        self._loaded_from = self.checkpoint_io.chosen_for_all(checkpoint_path)
        return load_unsharded(self._loaded_from)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        with torch.no_grad():
            for name, whole in checkpoint["state_dict"].items():
                if not whole.is_meta:
                    fill(own[name], whole)
            empty_ones = {name for name, whole in checkpoint["state_dict"].items() if whole.is_meta}
            read_into(self._loaded_from, {f"state_dict.{name}": own[name] for name in empty_ones})

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for number, (optimizer, saved) in enumerate(zip(self.optimizers, checkpoint["optimizer_states"], strict=True)):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state, in_parts = {}, {}
            for index, moments in saved["state"].items():
                own = parameters[index]
                state[index] = {key: _like(own, value) for key, value in moments.items()}
                for key, value in moments.items():
                    if isinstance(value, Tensor) and value.is_meta:
                        in_parts[f"optimizer_states.{number}.state.{index}.{key}"] = state[index][key]
            read_into(self._loaded_from, in_parts)
            optimizer.load_state_dict(saved | {"state": state})


def check_shapes_of_state(optimizer: Optimizer) -> None:
    """Raise ValueError for a state of which no rank's part of a checkpoint would hold the whole."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(
                    f"optimizer keeps {key} of the shape {list(value.shape)} for one of {list(parameter.shape)}: under "
                    "FSDP2 it must have the parameter's, or be a number; trainer=ddp takes any"
                )


def _settle_buckets(model: DistributedDataParallel) -> None:
    """Give the buckets of gradients the layout that they keep.

    DDP orders them anew behind its first backward pass, as that came to the gradients. How three ranks and more round a
    sum depends on where in its bucket it lies, so a process that goes on with a run would add up its first step in
    another way. Here zeros are the first pass: from the last parameter to the first, about as all others come to them.
    """
    parameters = [parameter for parameter in reversed(list(model.parameters())) if parameter.requires_grad]
    model.reducer.prepare_for_backward([])
    for parameter in parameters:
        parameter.backward(parameter.new_zeros(()).expand_as(parameter))
    for parameter in parameters:
        parameter.grad = None


def whole_on_rank_zero(state: Any) -> Any:
    """``state`` with whole tensors for sharded ones on rank 0, on the CPU, and None on the others; every rank must
    ask.
    """

    def gathered(_: str, value: Any) -> Any:
        if isinstance(value, DTensor):
            value = value.full_tensor()  # a collective
            return None if rank() else value.cpu()
        return value

    return mapped(state, gathered)


def _timeout(seconds: float) -> timedelta:
    if not 1.0 <= seconds <= YEAR_SECONDS:
        raise ValueError(f"trainer.strategy.timeout_seconds={seconds} must be from 1 to {YEAR_SECONDS}, a year")
    return timedelta(seconds=seconds)


def _like(own: Tensor, whole: Any) -> Any:
    """``whole`` spread over the ranks as ``own`` is, or an empty tensor for it; a number as it is. Every rank has read
    it, so nothing is sent.
    """
    if not isinstance(own, DTensor) or not isinstance(whole, Tensor) or not whole.ndim:
        return whole
    spread = torch.empty_like(own, dtype=whole.dtype)
    if not whole.is_meta:
        fill(spread, whole)
    return spread
