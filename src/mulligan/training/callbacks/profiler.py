"""Where the time of a step goes: a few steps recorded by torch.profiler, as a trace and as a table of operators."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch.profiler import ProfilerActivity, profile, schedule

TABLE_ROWS = 50


class StepProfiler(Callback):
    """Writes attempts_FIRST_to_LAST_rank_R.json.gz, which Perfetto opens, and .txt into the run's profile/, once."""

    def __init__(
        self, *, after_steps: int, num_steps: int, ranks: list[int] | None, shapes: bool, memory: bool, stacks: bool
    ) -> None:
        """Record ``num_steps`` behind the first ``after_steps`` that this process makes, on ``ranks``; None: on all."""
        if after_steps < 1:  # the profiler's own warm-up
            raise ValueError(f"profiler.after_steps={after_steps} must be at least 1")
        if num_steps < 1:
            raise ValueError(f"profiler.num_steps={num_steps} must be at least 1")
        self.after_steps, self.num_steps, self.ranks = after_steps, num_steps, ranks
        self.shapes, self.memory, self.stacks = shapes, memory, stacks
        self._profile: profile | None = None
        self._begin = self._attempt = 0

    def check_length(self, num_steps: int) -> None:
        """Raise ValueError where a whole run of ``num_steps`` ends before all is recorded."""
        if self.after_steps + self.num_steps > num_steps:
            raise ValueError(
                f"profiler.after_steps={self.after_steps} and profiler.num_steps={self.num_steps} behind them "
                f"do not fit into a run of {num_steps} steps"
            )

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self._profile is not None or not (self.ranks is None or trainer.global_rank in self.ranks):
            return  # a rewind fits again
        left = trainer.max_steps - trainer.global_step
        if trainer.is_global_zero and left < self.after_steps + self.num_steps:  # a run that goes on
            print(
                f"profiler.after_steps={self.after_steps} and profiler.num_steps={self.num_steps} behind them are more "
                f"than the {left} steps left: {max(left - self.after_steps, 0) or 'none'} will be recorded",
                flush=True,
            )
        self._begin = self._attempt = pl_module.attempt
        on_gpu = pl_module.device.type == "cuda"
        self._profile = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])],
            schedule=schedule(wait=self.after_steps - 1, warmup=1, active=self.num_steps, repeat=1),
            on_trace_ready=lambda recorded: self._write(recorded, trainer),
            record_shapes=self.shapes,
            profile_memory=self.memory,
            with_stack=self.stacks,
            acc_events=True,  # there is one cycle; torch 2.11 warns that it would keep no other
        )
        self._profile.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        if self._profile is not None and pl_module.attempt != self._attempt:  # else an accumulation window's middle
            self._attempt = pl_module.attempt
            self._profile.step()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._profile is not None:
            self._profile.stop()  # a resumed run's last steps may be fewer than was asked for
            if self._recorded < 1 and trainer.is_global_zero:
                print("profiler: the run has ended before a step was recorded", flush=True)

    @property
    def _recorded(self) -> int:
        return self._attempt - self._begin - self.after_steps

    def _write(self, recorded: profile, trainer: Trainer) -> None:
        if self._recorded < 1:
            return  # it was about to begin
        folder = Path(trainer.default_root_dir) / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        attempts = f"attempts_{self._begin + self.after_steps + 1}_to_{self._attempt}"
        path = folder / f"{attempts}_rank_{trainer.global_rank}.json.gz"
        recorded.export_chrome_trace(str(path))
        device = "cuda" if ProfilerActivity.CUDA in recorded.activities else "cpu"
        table = recorded.key_averages(group_by_input_shape=self.shapes, group_by_stack_n=5 if self.stacks else 0)
        text = table.table(sort_by=f"self_{device}_time_total", row_limit=TABLE_ROWS, max_name_column_width=100)
        path.with_name(path.name.replace(".json.gz", ".txt")).write_text(text)
        if trainer.is_global_zero:
            print(f"{path} is a trace for ui.perfetto.dev; its .txt has the operators that take longest", flush=True)
