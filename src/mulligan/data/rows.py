"""Rows of numbers on disk, an .npy file each: found whole at once, mapped into memory while they are read."""

import mmap
import os
import re
import resource
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_MAPPED = 4096  # a process may have 65,530 maps, on most machines
_HEADER_BYTES = 128  # as NumPy pads that of a row
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|][iu]\d)', 'fortran_order': False, 'shape': \((\d+),\), \} *\n", re.DOTALL
)


class _Head(NamedTuple):
    dtype: np.dtype[Any]
    length: int
    start: int  # bytes before the first number


class Rows:
    """The arrays of the files ``names`` in ``folder``, whole numbers in one dimension, as ``numpy.save`` writes them.

    Opening reads their headers and not their numbers. Of those read last some stay mapped. Raises ValueError at the
    first file that is not whole.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._paths = [f"{folder}/{name}" for name in names]  # a Path takes as long to make as a header to read
        self._heads = [_head(path) for path in self._paths]
        self._maps: OrderedDict[int, NDArray[Any]] = OrderedDict()  # the one read last is last
        self._most_mapped = _most_mapped()

    @property
    def lengths(self) -> list[int]:
        return [head.length for head in self._heads]

    def __len__(self) -> int:
        return len(self._paths)

    def __getstate__(self) -> dict[str, Any]:
        """Another process maps for itself what it reads."""
        return vars(self) | {"_maps": OrderedDict()}

    def __getitem__(self, number: int) -> NDArray[Any]:
        mapped = self._maps.pop(number, None)
        if mapped is None:
            if len(self._maps) == self._most_mapped:
                self._maps.popitem(last=False)
            mapped = self._map(number)
        self._maps[number] = mapped
        return mapped

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return map(self.__getitem__, range(len(self)))

    def _map(self, number: int) -> NDArray[Any]:
        dtype, length, start = self._heads[number]
        with Path(self._paths[number]).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Windows are read in a random order. Without this each of them brings in what lies around it as well, as much
        # as the disk reads ahead: 128 KB or megabytes, of which nothing is used before it has to make room.
        mapped.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapped, dtype, count=length, offset=start)


def _most_mapped() -> int:
    """A map holds a descriptor, of which a process often has 1,024 in all; and there are several ``Rows`` at once."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_MAPPED if descriptors == resource.RLIM_INFINITY else min(MOST_MAPPED, descriptors // 8)


def _head(path: str) -> _Head:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        first, size = os.pread(descriptor, _HEADER_BYTES, 0), os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    found = _HEADER.match(first)
    if found is None:
        raise ValueError(f"{path} is not a whole .npy file of one row of whole numbers")
    head = _Head(np.dtype(found[1].decode()), int(found[2]), found.end())
    if size < head.start + head.length * head.dtype.itemsize:
        raise ValueError(f"{path} is not a whole .npy file: it ends before its {head.length:,} numbers do")
    return head
