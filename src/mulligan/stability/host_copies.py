"""Copies of tensors in host memory, in buffers that are made once and used again."""

import torch
from torch import Tensor


class HostCopies:
    """From a GPU the copies run on a stream of their own beside the next forward and backward; ``wait`` holds the
    optimizer back until they are done. From the CPU they are done at once.
    """

    def __init__(self) -> None:
        self.copied: torch.cuda.Event | None = None  # when the last copies are done, until someone has waited for them
        self._stream: torch.cuda.Stream | None = None

    def take(self, tensors: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        """Copy ``tensors`` into ``buffers`` of the same name; they may be changed after the next ``wait``."""
        device = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
        if device is None:
            _copy(tensors, buffers)
            return
        self._stream = self._stream or torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            _copy(tensors, buffers)
            self.copied = self._stream.record_event()

    def wait(self) -> None:
        """Order what follows on the device behind the last copies; the host does not wait."""
        if self.copied is not None:
            torch.cuda.current_stream().wait_event(self.copied)
            self.copied = None


def _copy(tensors: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        kept = buffers.get(name)
        if kept is None or (kept.shape, kept.dtype) != (tensor.shape, tensor.dtype):
            buffers[name] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        buffers[name].copy_(tensor.detach(), non_blocking=True)
