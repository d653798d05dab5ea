"""Copies of tensors in host memory, in buffers that are made once and used again."""

import ctypes
from threading import Thread

import torch
from torch import Tensor

MAX_THREADS = 8  # few of a processor's cores take all of its memory's bandwidth
SMALL_BYTES = 65536  # of scalars and norms, which PyTorch copies in one thread

Span = tuple[int, int, int]  # addresses to copy to and from, bytes


class HostCopies:
    """From a GPU the copies run on a stream of their own beside the next forward and backward; ``wait`` holds the
    optimizer back until they are done. From the CPU they are done at once.
    """

    def __init__(self) -> None:
        self.copied: torch.cuda.Event | None = None  # when the last copies are done, until someone has waited for them
        self._stream: torch.cuda.Stream | None = None

    def take(self, tensors: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        """Copy ``tensors`` into ``buffers`` of the same name; they may be changed after the next ``wait``."""
        for name, tensor in tensors.items():
            kept = buffers.get(name)
            if kept is None or (kept.shape, kept.dtype) != (tensor.shape, tensor.dtype):
                buffers[name] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        device = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
        if device is None:
            _copy_in_threads(tensors, buffers, min(torch.get_num_threads(), MAX_THREADS))
            return
        self._stream = self._stream or torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for name, tensor in tensors.items():
                buffers[name].copy_(tensor.detach(), non_blocking=True)
            self.copied = self._stream.record_event()

    def wait(self) -> None:
        """Order what follows on the device behind the last copies; the host does not wait."""
        if self.copied is not None:
            torch.cuda.current_stream().wait_event(self.copied)
            self.copied = None


def _copy_in_threads(tensors: dict[str, Tensor], buffers: dict[str, Tensor], num_threads: int) -> None:
    """Each thread copies a like share of all bytes: PyTorch would begin and end a parallel loop for every tensor."""
    spans: list[Span] = []
    for name, tensor in tensors.items():
        kept, live = buffers[name], tensor.detach()
        if live.nbytes < SMALL_BYTES or not (kept.is_contiguous() and live.is_contiguous()):
            kept.copy_(live)
        else:
            spans.append((kept.data_ptr(), live.data_ptr(), live.nbytes))
    first, *others = _shares(spans, num_threads)
    threads = [Thread(target=_copy, args=(share,)) for share in others if share]
    for thread in threads:
        thread.start()
    _copy(first)
    for thread in threads:
        thread.join()


def _shares(spans: list[Span], number: int) -> list[list[Span]]:
    """``spans``, cut so that each share has as many bytes."""
    shares: list[list[Span]] = [[] for _ in range(number)]
    size = -(-sum(num_bytes for *_, num_bytes in spans) // number)
    done = 0
    for kept, live, num_bytes in spans:
        start = 0
        while start < num_bytes:
            length = min(num_bytes - start, size - done % size)
            shares[done // size].append((kept + start, live + start, length))
            done += length
            start += length
    return shares


def _copy(share: list[Span]) -> None:
    for kept, live, num_bytes in share:
        ctypes.memmove(kept, live, num_bytes)  # lets go of the interpreter
