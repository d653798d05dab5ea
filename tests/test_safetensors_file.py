"""Files that the safetensors library reads to the bit."""

from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mulligan.files import sha256_file, write_hashed
from mulligan.safetensors_file import DTYPES, LazyTensors, write_safetensors


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.arange(15).reshape(3, 5).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 4), "turned": torch.randn(3, 2).T}
    path = tmp_path / "file.safetensors"
    digest = write_hashed(path, lambda file: write_safetensors(file, tensors, {"step": "7"}))
    assert digest == sha256_file(path)
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].equal(tensor), name
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "step": "7"}


def test_lazy_tensors_are_read_one_after_another(tmp_path: Path) -> None:
    tensors = {"wide": torch.randn(4, dtype=torch.float64), "a": torch.randn(3, 2), "b": torch.arange(4.0)}
    read: list[str] = []

    def one(name: str) -> torch.Tensor:
        read.append(name)
        return tensors[name]

    lazy = LazyTensors({name: tensor.to("meta") for name, tensor in tensors.items()}, one)
    for written, names in ((lazy, ["wide", "a", "b"]), (lazy.part(["b"]).under_more_names({"c": "b"}), ["b", "b"])):
        read.clear()
        write_hashed(tmp_path / "file", partial(write_safetensors, tensors=written, metadata={}))
        assert read == names
    found = load_file(tmp_path / "file")
    assert found.keys() == {"b", "c"}
    assert found["c"].equal(tensors["b"])
