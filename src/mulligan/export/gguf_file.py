"""A GGUF file of llama.cpp: a model of the Llama form, with numbers of few bits made float32.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What the file asks for and our models cannot
compute is an error, and so is any key or tensor that is not known here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from mulligan.data.json_tokenizer import JsonTokenizer
from mulligan.export.gguf_tokenizer import tokenizer_json
from mulligan.export.imported import Imported
from mulligan.model.config import ModelConfig

_FROM_START = {"token_embd": "embedding", "output_norm": "norm", "output": "head"}
_OF_BLOCK = {
    "attn_norm": "attention_norm", "attn_q": "attention.q", "attn_k": "attention.k", "attn_v": "attention.v",
    "attn_output": "attention.out", "ffn_norm": "feedforward_norm", "ffn_gate": "feedforward.gate",
    "ffn_up": "feedforward.up", "ffn_down": "feedforward.down",
}  # fmt: skip
_TAKEN = (
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "rope.freq_base", "vocab_size",
)  # fmt: skip


def read_gguf(path: Path) -> Imported:
    """The model in the file ``path``. Raises ValueError, naming the file, where it cannot be had exactly."""
    try:
        fields, tensors = _read(path)
        config = _shape(fields, tensors)
        weights = dict(_weights(config, tensors))
        content = tokenizer_json({key: value for key, value in fields.items() if key.startswith("tokenizer.")})
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    except KeyError as error:
        raise ValueError(f"{path} does not say {error.args[0]}") from None
    tokenizer = None if content is None else (JsonTokenizer.file_name, content)
    return Imported(config, weights, tokenizer, fields["general.architecture"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, gguf.ReaderTensor]]:
    if not path.is_file():
        raise ValueError("is not a file")
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # whatever reading other bytes, or too few, raises
        raise ValueError(f"is not a whole GGUF file ({type(error).__name__}); fetch it again") from None
    return fields, {tensor.name: tensor for tensor in reader.tensors}


def _shape(fields: dict[str, Any], tensors: dict[str, gguf.ReaderTensor]) -> ModelConfig:
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"holds a model of general.architecture={architecture}; only llama can be read")
    if fields.get("split.count", 1) > 1:
        raise ValueError("is one of several files of a model: join them by llama.cpp's gguf-split --merge")
    given = {key.removeprefix("llama."): value for key, value in fields.items() if key.startswith("llama.")}
    for key in _TAKEN:
        if key not in given and key not in ("attention.head_count_kv", "rope.freq_base", "vocab_size"):
            raise ValueError(f"does not say llama.{key}")
    for name in ("token_embd.weight", "output_norm.weight"):
        if name not in tensors:
            raise ValueError(f"has no {name}")
    config = ModelConfig(
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        max_length=given["context_length"],
        width=given["embedding_length"],
        num_layers=given["block_count"],
        num_heads=given["attention.head_count"],
        num_key_value_heads=given.get("attention.head_count_kv"),
        feedforward_width=given["feed_forward_length"],
        norm_eps=_written(given["attention.layer_norm_rms_epsilon"]),
        rope_theta=_written(given.get("rope.freq_base", 10_000.0)),
        tied_embeddings="output.weight" not in tensors,
    )
    # Values under which these keys ask for nothing else; of all other keys it is not known.
    head_width = config.head_width
    harmless = {"rope.dimension_count": head_width, "attention.key_length": head_width, "rope.scaling.type": "none"}
    harmless |= {"attention.value_length": head_width, "expert_count": 0, "expert_used_count": 0}
    for key, value in given.items():
        if key not in _TAKEN and (key not in harmless or harmless[key] != value):
            raise ValueError(f"asks for llama.{key}={value}, which models here do not compute")
    return config


def _weights(config: ModelConfig, tensors: dict[str, gguf.ReaderTensor]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by our name, in float32."""
    names = {f"{theirs}.weight": f"{ours}.weight" for theirs, ours in _FROM_START.items()}
    for number in range(config.num_layers):
        names |= {f"blk.{number}.{old}.weight": f"blocks.{number}.{new}.weight" for old, new in _OF_BLOCK.items()}
    if config.tied_embeddings:
        del names["output.weight"]
    for name in sorted(names.keys() ^ tensors.keys()):
        raise ValueError(f"has a tensor {name}, which models here do not have" if name in tensors else f"has no {name}")
    heads = {"attn_q": config.num_heads, "attn_k": config.key_value_heads}
    for theirs, ours in names.items():
        tensor = tensors[theirs]
        try:
            values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        except NotImplementedError:
            raise ValueError(f"has {theirs} in {tensor.tensor_type.name}, which the gguf library cannot read") from None
        part = theirs.split(".")[-2]
        yield ours, torch.from_numpy(_halves_apart(values, heads[part]) if part in heads else values)


def _halves_apart(values: np.ndarray, num_heads: int) -> np.ndarray:
    """llama.cpp turns neighbours (2i, 2i + 1) of a head together, we turn (i, i + K/2): its rows in our order."""
    pairs = values.reshape(num_heads, -1, 2, values.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


def _written(value: float) -> float:
    """The number whose nearest float32 the file holds, as someone wrote it: 1e-05 and not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
