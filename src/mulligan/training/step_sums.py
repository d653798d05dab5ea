"""What a step's loss terms add up to on the device, and their way to the host."""

import torch
from torch import Tensor

from mulligan.distributed import all_reduce_sum
from mulligan.objective.linear_cross_entropy import Terms


class StepSums:
    """Sums of this rank, over the micro-batches of a step and over the steps since the last log. Of samples that it
    shares with others, ``shared_by`` in all, each counts its part.
    """

    def __init__(self, shared_by: int = 1) -> None:
        self.shared_by = shared_by
        self.step_2: Tensor | None = None  # cross-entropy in nats and counted targets
        self.window_4: Tensor | None = None  # the three terms and the count

    def add(self, terms: Terms, *, begins_step: bool) -> Tensor:
        """Add a micro-batch, and return its cross-entropy and count, (2,)."""
        sums_4 = torch.stack((*terms[1:4], terms.num_counted.to(terms.z_sum.dtype))).detach() / self.shared_by
        self.window_4 = sums_4 if self.window_4 is None else self.window_4 + sums_4
        judged_2 = sums_4[::3]
        self.step_2 = judged_2 if begins_step or self.step_2 is None else self.step_2 + judged_2
        return judged_2

    def take_window(self) -> list[float]:
        """Sums of the three terms and the count since the last call, over all ranks. Waits for the device."""
        assert self.window_4 is not None
        sums = all_reduce_sum(self.window_4.double()).tolist()
        self.window_4 = None
        return sums

    def forget(self) -> None:
        """After a rewind: what was summed belongs to steps given up."""
        self.step_2 = self.window_4 = None


class StepValues:
    """The global loss and gradient norm of one step on their way to the host, so that nobody waits for them yet."""

    def __init__(self, step: int, values_4: Tensor) -> None:
        """``values``: cross-entropy sum in nats, count, gradient norm before clipping, ``Clipping.left_out``."""
        self.step = step
        self._host_4, self._copied = values_4, None
        if values_4.is_cuda:
            self._host_4 = torch.empty(4, dtype=values_4.dtype, pin_memory=True)
            self._host_4.copy_(values_4, non_blocking=True)
            self._copied = torch.cuda.current_stream().record_event()

    def read(self) -> tuple[float, float, float]:
        """Mean loss, norm and ``Clipping.left_out``; waits for this step's end if the device has not reached it."""
        cross_entropy, count, norm, left_out = self.raw()
        return cross_entropy / count, norm, left_out

    def raw(self) -> list[float]:
        if self._copied is not None:
            self._copied.synchronize()
        return self._host_4.tolist()
