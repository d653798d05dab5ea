"""Host copies: what was copied stays as it was, in buffers that are used again."""

import pytest
import torch

from mulligan.stability.host_copies import HostCopies

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_a_copy_does_not_follow_and_its_buffer_is_used_again(device: str) -> None:
    copies, buffers = HostCopies(), dict[str, torch.Tensor]()
    addresses = set()
    for step in range(3):
        live = torch.full((64, 32), float(step), device=device)
        copies.take({"weight": live}, buffers)
        copied = copies.copied
        copies.wait()
        live.add_(100.0)
        if copied is not None:
            copied.synchronize()
        assert buffers["weight"].eq(step).all()
        addresses.add(buffers["weight"].data_ptr())
    assert len(addresses) == 1
    assert copies.copied is None


def test_a_tensor_of_another_shape_or_type_gets_another_buffer() -> None:
    copies, buffers = HostCopies(), dict[str, torch.Tensor]()
    for tensor in (torch.ones(3), torch.ones(5), torch.ones(5, dtype=torch.int64)):
        copies.take({"weight": tensor}, buffers)
        assert buffers["weight"].dtype == tensor.dtype
        assert buffers["weight"].equal(tensor)
