"""The numbers of a planned run, as they are written to JSON and shown."""

from dataclasses import asdict, replace
from typing import Any

from mulligan.cli.plan_worth import worth_of
from mulligan.model.config import ModelConfig
from mulligan.planning.communication import Network
from mulligan.planning.memory import (
    LIBRARIES_AT_WORK_BYTES,
    Layout,
    heap_holes,
    rank_memory,
    state_bytes,
)
from mulligan.planning.pace import Pace
from mulligan.planning.scaling import DEVICES, points_of
from mulligan.planning.scaling_laws import Budget
from mulligan.training.arithmetic import (
    accumulation_of,
    check_length,
    check_tensor_parallel,
    sizes_of,
)
from mulligan.training.callbacks.checkpoint import SaveCheckpoints
from mulligan.training.callbacks.stability import Guard
from mulligan.training.hardware import Precision, resident_bytes, resolve_precision
from mulligan.training.reach import check_checkpoints
from mulligan.training.strategies import FullyShardedStrategy

# Of a device's memory; the rest is for its context, the communication's buffers and what lies in pieces.
USABLE_SHARE = 0.9
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")


class RunPlan:
    """A run's sizes by the same arithmetic as training, on ``num_ranks`` devices that need not be there."""

    def __init__(
        self,
        *,
        model: ModelConfig,
        checkpoint: SaveCheckpoints,
        guard: Guard | None,
        strategy: Any,
        num_ranks: int,
        on_cpu: bool,
        sequence_length: int,
        global_batch_samples: int | None,
        global_batch_tokens: int | None,
        micro_batch: int | None,
        max_steps: int | None,
        max_tokens: int | float | None,
        max_tokens_per_parameter: float | None,
        precision: Precision,
        activation_checkpointing: bool,
        **_: Any,
    ) -> None:
        check_length(sequence_length=sequence_length, max_length=model.max_length)
        self.model, self.checkpoint, self.guard = model, checkpoint, guard
        self.global_batch, self.tokens_per_step, self.num_steps = sizes_of(
            sequence_length=sequence_length,
            global_batch_samples=global_batch_samples,
            global_batch_tokens=global_batch_tokens,
            max_steps=max_steps,
            max_tokens=max_tokens,
            max_tokens_per_parameter=max_tokens_per_parameter,
            num_parameters=model.num_parameters,
        )
        sharded = isinstance(strategy, FullyShardedStrategy)
        split = strategy.tensor_parallel_size if sharded else 1
        check_tensor_parallel(split, model=model, num_ranks=num_ranks)
        self.num_ranks = num_ranks
        micro_batch, self.accumulation = accumulation_of(
            global_batch=self.global_batch,
            micro_batch=micro_batch,
            world_size=num_ranks // split,
            tensor_parallel_size=split,
        )
        self.layout = Layout(
            precision=resolve_precision(precision, "cpu") if on_cpu else precision.replace("auto", "bf16-mixed"),
            sharded=sharded,
            data_parallel_size=num_ranks // split,
            tensor_parallel_size=split,
            micro_batch=micro_batch,
            sequence_length=sequence_length,
            activation_checkpointing=activation_checkpointing,
            copies_gradients=not getattr(strategy, "_ddp_kwargs", {}).get("gradient_as_bucket_view", True),
            on_cpu=on_cpu,
        )
        if guard is not None:
            check_checkpoints(guard.way, guard.policy, checkpoint)

    @property
    def budget(self) -> Budget:
        return Budget(self.model.num_parameters, self.num_steps * self.tokens_per_step)

    @property
    def num_snapshots(self) -> int:
        """Held beside a step, the first taken at the start."""
        if self.guard is None or self.guard.way != "in_place":
            return 0
        return min(self.guard.snapshots.keep, (self.num_steps - 1) // self.guard.snapshots.every_n_steps + 1)

    @property
    def num_copies(self) -> int:
        """For checkpoints: none where each before the last is of a step that memory has a snapshot of."""
        if self.guard is None or not self.num_snapshots:
            return 1
        return int(self.checkpoint.every_n_steps % self.guard.snapshots.every_n_steps > 0)

    @property
    def num_checkpoints(self) -> int:
        saves = -(-self.num_steps // self.checkpoint.every_n_steps)
        milestone = self.checkpoint.milestone_every_n_steps
        kept = self.num_steps // milestone if milestone else 0
        return min(saves, self.checkpoint.keep_last + kept)

    def numbers(self, pace: Pace | None, device_bytes: float | None, network: Network | None) -> dict[str, Any]:
        flops_per_token = self.model.flops_per_token(self.layout.sequence_length)
        parts = self.model.parameters_by_part
        flops = flops_per_token * self.budget.tokens
        told: dict[str, Any] = {
            "parameters": {**parts, "all": self.model.num_parameters},
            "run": {
                "num_steps": self.num_steps,
                "tokens": self.budget.tokens,
                "tokens_per_parameter": self.budget.tokens / self.budget.params,
                "flops_per_token": flops_per_token,
                "flops": flops,
                "global_batch_samples": self.global_batch,
                "tokens_per_step": self.tokens_per_step,
                "num_ranks": self.num_ranks,
                "data_parallel_size": self.layout.data_parallel_size,
                "tensor_parallel_size": self.layout.tensor_parallel_size,
                "micro_batch": self.layout.micro_batch,
                "accumulation": self.accumulation,
                "precision": self.layout.precision,
                "activation_checkpointing": self.layout.activation_checkpointing,
            },
            **worth_of(self.budget, flops, without_embeddings=parts["blocks"] + parts["last norm"]),
            "memory": self._memory(device_bytes),
            "storage": self._storage(),
        }
        if pace is not None:
            step = pace.seconds(flops_per_token * self.tokens_per_step)
            told["time"] = {
                **pace.numbers(flops),
                "step_seconds": step,
                "tokens_per_second": self.tokens_per_step / step,
            }
            if network is not None and device_bytes is not None:
                told["scaling"] = self._scaling(network, pace.peak_flops * pace.mfu, USABLE_SHARE * device_bytes)
        return told

    def _scaling(self, network: Network, flops: float, usable_bytes: float) -> dict[str, Any]:
        """Rows by what stays the same, the global batch or each device's share of it."""
        rows: dict[str, list[dict[str, Any]]] = {"global_batch": [], "batch_of_device": []}
        for devices in DEVICES:
            for same, scaled in (("global_batch", self.num_ranks), ("batch_of_device", devices)):
                points = points_of(
                    self.model,
                    self.layout,
                    network,
                    devices=devices,
                    global_batch=self.global_batch * scaled // self.num_ranks,
                    flops=flops,
                    usable_bytes=usable_bytes,
                )
                told = {way: None if point is None else point._asdict() for way, point in points.items()}
                rows[same].append({"devices": devices, **told})
        return {"network": asdict(network), "same": rows}

    def _memory(self, device_bytes: float | None) -> dict[str, Any]:
        parts = rank_memory(self.model, self.layout)
        if self.layout.on_cpu:
            state = state_bytes(self.model, self.layout)
            saves = self.num_steps > self.checkpoint.every_n_steps  # beside a step, not at the end
            parts |= {
                "snapshots": self.num_snapshots * state,
                "copy of a checkpoint": state * (saves and self.num_copies),
                "heap's holes": heap_holes(parts),
            }
            libraries = resident_bytes()  # of this process, which has imported what training imports
            if libraries is not None:
                parts |= {"libraries, measured here": libraries, "libraries at work": LIBRARIES_AT_WORK_BYTES}
        usable = None if device_bytes is None else USABLE_SHARE * device_bytes
        total = sum(parts.values())
        return {
            "parts": parts,
            "rank_bytes": total,
            "device_bytes": device_bytes,
            "usable_bytes": usable,
            "fits": None if usable is None else total <= usable,
            "ways": self._ways(),
        }

    def _ways(self) -> dict[str, dict[str, float]]:
        """Bytes of a rank by precision and strategy, at this micro-batch; libraries and copies apart."""
        ways = {"one device, ddp": replace(self.layout, sharded=False, data_parallel_size=1, tensor_parallel_size=1)}
        for size in sorted({1, self._smallest_group(), self.layout.tensor_parallel_size}):
            if self.num_ranks > size:
                groups = self.num_ranks // size
                ways[f"fsdp {groups}" + (f" x {size}" if size > 1 else "")] = replace(
                    self.layout, sharded=True, data_parallel_size=groups, tensor_parallel_size=size
                )
        told: dict[str, dict[str, float]] = {}
        for precision in PRECISIONS:
            for again in (False, True):
                change: dict[str, Any] = {"precision": precision, "activation_checkpointing": again}
                told[precision + (", again" if again else "")] = {
                    way: sum(rank_memory(self.model, replace(layout, copies_gradients=False, **change)).values())
                    for way, layout in ways.items()
                }
        return told

    def _smallest_group(self) -> int:
        """Of ranks that can split the model's blocks; 1 where none can."""
        model = self.model
        divided = (self.num_ranks, model.num_heads, model.key_value_heads, model.feedforward_width)
        return next((size for size in (2, 3, 4) if not any(number % size for number in divided)), 1)

    def _storage(self) -> dict[str, Any]:
        of_rank = state_bytes(self.model, self.layout)
        whole = 3 * self.model.num_parameters * self.layout.kept_bytes
        return {
            "snapshot_bytes": of_rank,
            "num_snapshots": self.num_snapshots,
            "checkpoint_copy_bytes": of_rank,
            "num_checkpoint_copies": self.num_copies,
            "refused": self._refusal(of_rank),
            "host_bytes": (self.num_snapshots + self.num_copies) * of_rank,
            "checkpoint_bytes": whole,
            "num_checkpoints": self.num_checkpoints,
            "disk_bytes": self.num_checkpoints * whole,
        }

    def _refusal(self, state: float) -> str | None:
        """What training would say to the size of the snapshots; the rest of a plan is as good without them."""
        try:
            if self.guard is not None:
                self.guard.check_memory(state)
        except ValueError as error:
            return str(error)
        return None
