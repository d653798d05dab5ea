"""Parts of sharded tensors come back onto any number of ranks to the bit."""

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from mulligan.files import write_json
from mulligan.model.parts import offsets_of
from mulligan.training import sharded
from mulligan.training.sharded import Part, collect, read_into, write_parts

WHOLE = {
    "matrix": torch.randn(7, 5),
    "short": torch.randn(1, 3),  # most ranks have nothing of it
    "bias": torch.randn(6).to(torch.bfloat16),
}
ZEROS = {name: torch.zeros_like(tensor) for name, tensor in WHOLE.items()}


@contextmanager
def as_rank(rank: int, size: int, whole: dict[str, Tensor]) -> Iterator[dict[str, DTensor]]:
    """``whole`` as this rank of so many holds it; nothing is sent. No operator may run on it: what PyTorch caches of
    them does not know that this process changes its rank.
    """
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (size,))
        yield {
            name: distribute_tensor(tensor.clone(), mesh, [Shard(0)], src_data_rank=None)
            for name, tensor in whole.items()
        }
    finally:
        dist.destroy_process_group()


def written_by(size: int, folder: Path) -> None:
    for rank in range(size):
        with as_rank(rank, size, WHOLE) as tensors:
            parts = {name: Part(tensor.to_local(), offsets_of(tensor)) for name, tensor in tensors.items()}
            files = write_parts(folder, rank, parts)
        assert list(files) == [f"rank_{rank:05d}.safetensors"]
    found = collect(folder, size, until=lambda _: time.monotonic())
    assert sorted(found) == [f"rank_{rank:05d}.safetensors" for rank in range(1, size)]
    assert len(list(folder.iterdir())) == size, "nothing but the parts is left"


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("now", [1, 2, 4])
def test_each_rank_reads_its_own_part_from_any_number_of_others(tmp_path: Path, before: int, now: int) -> None:
    written_by(before, tmp_path)
    for rank in range(now):
        with as_rank(rank, now, ZEROS) as read:
            read_into(tmp_path, dict(read))
            found = {name: tensor.to_local() for name, tensor in read.items()}
        with as_rank(rank, now, WHOLE) as wanted:
            assert all(found[name].equal(tensor.to_local()) for name, tensor in wanted.items())
    whole = {name: tensor.clone() for name, tensor in ZEROS.items()}
    read_into(tmp_path, whole | {"nothing": torch.zeros(0, 4)})  # which no file holds
    assert all(whole[name].equal(tensor) for name, tensor in WHOLE.items())


def test_no_file_holds_more_than_its_ranks_part(tmp_path: Path) -> None:
    written_by(2, tmp_path)
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in load_file(path).items()} for path in sorted(tmp_path.iterdir())
    ]
    assert shapes == [{"matrix": (4, 5), "short": (1, 3), "bias": (3,)}, {"matrix": (3, 5), "bias": (3,)}]


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "rank_00000.safetensors").write_bytes(b"hello" * 100)
    with pytest.raises(ValueError, match=f"{tmp_path} is no checkpoint"):
        read_into(tmp_path, {"bias": torch.zeros(6)})
    written_by(2, tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} is no checkpoint"):
        read_into(tmp_path, {"another": torch.zeros(6)})


def test_a_rank_that_cannot_leave_its_word_leaves_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may fill behind the part, and make room again."""
    write = iter([OSError(errno.ENOSPC, "No space left on device"), None])

    def full_once(path: Path, content: object) -> None:
        if error := next(write):
            raise error
        write_json(path, content)

    monkeypatch.setattr(sharded, "write_json", full_once)
    with pytest.raises(OSError, match="No space left on device"):
        write_parts(tmp_path, 1, {"bias": Part(torch.zeros(6), [0])})
    with pytest.raises(OSError, match="No space left on device"):
        collect(tmp_path, 2, until=lambda _: time.monotonic())


def test_a_rank_that_still_writes_is_waited_for(tmp_path: Path) -> None:
    def write() -> None:
        for number in range(15):
            time.sleep(0.1)
            (tmp_path / f"part_{number}").write_bytes(b"more")
        write_json(tmp_path / ".rank_00001.json", {"files": {}})

    writer = threading.Thread(target=write)
    writer.start()
    assert collect(tmp_path, 2, until=lambda since: since + 1.0) == {}
    writer.join()


def test_what_fails_on_another_rank_is_said_on_the_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rank 1 has not written its part"):
        collect(tmp_path, 2, until=lambda _: 0.0)
    write_json(tmp_path / ".rank_00001.json", {"errno": None, "error": "MemoryError()"})
    with pytest.raises(ValueError, match=r"rank 1 could not write its part: MemoryError\(\)"):
        collect(tmp_path, 2, until=lambda _: 0.0)
    write_json(tmp_path / ".rank_00001.json", {"errno": 28, "error": "No space left on device"})
    with pytest.raises(OSError, match="No space left on device"):
        collect(tmp_path, 2, until=lambda _: 0.0)
