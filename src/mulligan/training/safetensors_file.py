"""Write tensors as a safetensors file: a JSON header behind its length, then the bytes. No code can hide in one.

The format: https://github.com/huggingface/safetensors#format. Their own writer takes a path (read in 0.8): its bytes
would have to be read again to be hashed, none but the owner may read the file, a full disk is an error without a
number, and tied weights it refuses.
"""

import json
import struct

import torch
from torch import Tensor

from mulligan.files import HashingWriter

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_safetensors(file: HashingWriter, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write ``tensors``, which lie on the CPU. Those of wide types come first, so that each lies at a multiple of its
    own width.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"} | metadata}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for _, tensor in ordered:
        file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
