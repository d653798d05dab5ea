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


def test_large_and_scattered_tensors_are_copied_whole_by_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {f"large {size}": torch.randn(size) for size in (16_384, 50_001, 17_000)}
    tensors |= {
        "half": torch.randn(40_000).bfloat16(),
        "turned": torch.randn(300, 200).t(),
        "scalar": torch.tensor(3.0),
    }
    tensors |= {"every other": torch.randn(80_000)[::2], "none": torch.empty(0)}
    for num_threads in (1, 2, 3, 7):
        monkeypatch.setattr(torch, "get_num_threads", lambda number=num_threads: number)
        buffers = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        HostCopies().take(tensors, buffers)
        assert all(buffers[name].equal(tensor) for name, tensor in tensors.items())


def test_a_tensor_of_another_shape_or_type_gets_another_buffer() -> None:
    copies, buffers = HostCopies(), dict[str, torch.Tensor]()
    for tensor in (torch.ones(3), torch.ones(5), torch.ones(5, dtype=torch.int64)):
        copies.take({"weight": tensor}, buffers)
        assert buffers["weight"].dtype == tensor.dtype
        assert buffers["weight"].equal(tensor)
