"""Write tensors as a safetensors file: a JSON header behind its length, then the bytes. No code can hide in one.

The format: https://github.com/huggingface/safetensors#format. Their own writer takes a path (read in 0.8): its bytes
would have to be read again to be hashed, none but the owner may read the file, a full disk is an error without a
number, tied weights it refuses, and it wants all tensors in memory.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Writer(Protocol):
    def write(self, chunk: bytes | memoryview, /) -> int: ...


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name, each read when it is asked for. ``layout`` has their types and shapes: empty ones, on meta."""

    def __init__(self, layout: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> None:
        self.layout, self._read = layout, read

    def __getitem__(self, name: str) -> Tensor:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def part(self, names: list[str]) -> "LazyTensors":
        return LazyTensors({name: self.layout[name] for name in names}, self._read)

    def under_more_names(self, others: Mapping[str, str]) -> "LazyTensors":
        """With ``others`` too: new names, and whose tensors they name."""
        layout = {**self.layout, **{new: self.layout[old] for new, old in others.items()}}
        return LazyTensors(layout, lambda name: self._read(others.get(name, name)))


def write_safetensors(file: Writer, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write ``tensors``, which lie on the CPU; of lazy ones no more than one is in memory. Those of wide types come
    first, so that each lies at a multiple of its own width.
    """
    layout = tensors.layout if isinstance(tensors, LazyTensors) else tensors
    ordered = sorted(layout, key=lambda name: -layout[name].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"} | metadata}
    end = 0
    for name in ordered:
        tensor = layout[name]
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in ordered:
        file.write(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
