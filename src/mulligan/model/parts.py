"""Tensors that ranks hold in parts (DTensor), on meshes of any shape: each rank has one block of the whole."""

import math

from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of ``tensor``, in the same memory."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def offsets_of(tensor: DTensor) -> list[int]:
    """Where this rank's part begins in the whole."""
    (chunk,) = tensor.__create_chunk_list__()  # what torch.distributed.checkpoint asks a DTensor for
    return list(chunk.offsets)


def fill(own: Tensor, whole: Tensor) -> None:
    """Copy ``whole``, which every rank has, into ``own``: this rank's part of it, if ``own`` is in parts."""
    part = local(own)
    if isinstance(own, DTensor):
        for dim, (start, length) in enumerate(zip(offsets_of(own), part.shape, strict=True)):
            whole = whole.narrow(dim, start, length)
    part.copy_(whole)


def num_copies(tensor: DTensor, num_ranks: int) -> int:
    """How many of the ranks hold each part of ``tensor``: 1 if all hold different ones."""
    split = zip(tensor.device_mesh.shape, tensor.placements, strict=True)
    return num_ranks // math.prod(size for size, placement in split if not placement.is_replicate())


def is_first_copy(tensor: DTensor) -> bool:
    """Whether this rank is the first of those that hold the same part, of a tensor on a mesh or on one row of it."""
    mesh = tensor.device_mesh
    coordinate = mesh.get_coordinate()
    assert coordinate is not None
    places = zip(coordinate, tensor.placements, strict=True)
    # A tensor on one row of ranks is told apart from its copies on other rows by the row that has rank 0.
    return 0 in mesh.mesh and not any(place for place, placement in places if placement.is_replicate())
