"""A model as a folder of the form that transformers loads, and the model in such a folder."""

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from mulligan.data.json_tokenizer import with_frame
from mulligan.data.tokens import Tokenizer
from mulligan.export.forms import model_config, published_config
from mulligan.export.imported import Imported
from mulligan.export.places import packed, unpacked
from mulligan.export.tokenizer_json import tokenizer_config, tokenizer_json
from mulligan.files import atomic_write, write_hashed, write_json
from mulligan.model.config import ModelConfig
from mulligan.safetensors_file import DTYPES, LazyTensors, write_safetensors

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9  # what huggingface_hub cuts at
TOKENIZERS = ("tokenizer.json", "tokenizer.model")  # there the second is often one that puts a blank before a text
_DTYPES = {text: dtype for dtype, text in DTYPES.items()}


def write_folder(
    folder: Path,
    *,
    config: ModelConfig,
    weights: LazyTensors,
    tokenizer: Tokenizer,
    card: str,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Fill ``folder``; weights are read, written and let go one after another. ValueError for what has no such form."""
    architecture, content = published_config(config)
    tokenizer_content = tokenizer_json(tokenizer)
    theirs = packed(weights, config, architecture)
    dtype = str(next(iter(theirs.layout.values())).dtype).removeprefix("torch.")
    special = {"bos_token_id": tokenizer.begin_id, "eos_token_id": tokenizer.end_id}
    write_json(folder / "config.json", content | special | {"dtype": dtype})
    write_json(folder / "generation_config.json", special | {"pad_token_id": tokenizer.end_id})
    write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer, config.max_length))
    for name, text in (("tokenizer.json", json.dumps(tokenizer_content, ensure_ascii=False)), ("README.md", card)):
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    _write_weights(folder, theirs, shard_bytes)


def _write_weights(folder: Path, weights: LazyTensors, shard_bytes: int) -> None:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in weights.layout.items():
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += tensor.nbytes
    files = [WEIGHTS] if len(shards) == 1 else [_shard(number, len(shards)) for number in range(1, len(shards) + 1)]
    for file, names in zip(files, shards, strict=True):
        write_hashed(folder / file, partial(write_safetensors, tensors=weights.part(names), metadata={}))
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in weights.layout.values())
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _shard(number: int, count: int) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def read_folder(folder: Path) -> Imported:
    """The model in ``folder``. Its weights are read when they are asked for. ValueError names what does not fit."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} has no config.json: give the folder of a model as transformers saves it")
    content = _json(folder / "config.json")
    stored = _stored(folder)
    try:
        architecture, config = model_config(content)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from None
    try:
        weights = unpacked(stored, config, architecture)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return Imported(config, weights, _tokenizer(folder), architecture)


def _tokenizer(folder: Path) -> tuple[str, bytes] | None:
    """The file as it is; a tokenizer.json frames documents by the marks that the file beside it names, if it can."""
    path = _tokenizer_file(folder)
    if path is None:
        return None
    content, named = path.read_bytes(), folder / "tokenizer_config.json"
    if path.suffix == ".json" and named.is_file():
        marks = [_json(named).get(key) for key in ("bos_token", "eos_token")]
        begin, end = (mark.get("content") if isinstance(mark, dict) else mark for mark in marks)
        if begin or end:
            with suppress(ValueError):  # else as it is, for what its own post-processor is worth
                content = with_frame(content, begin=begin, end=end)
    return path.name, content


def _tokenizer_file(folder: Path) -> Path | None:
    return next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)


def source_files(folder: Path) -> list[Path]:
    """Those that ``read_folder`` reads."""
    tokenizer = [folder / name for name in ("tokenizer_config.json",) if (folder / name).is_file()]
    if (path := _tokenizer_file(folder)) is not None:
        tokenizer.append(path)
    return [folder / "config.json", *tokenizer, *_weight_files(folder)]


def _weight_files(folder: Path) -> list[Path]:
    """Those that hold the weights. No other form is read: PyTorch's own, .bin, is a pickle, which can run code."""
    if (folder / INDEX).is_file():
        places = _json(folder / INDEX).get("weight_map")
        names = sorted(set(places.values())) if isinstance(places, dict) else []
        paths = [folder / Path(str(name)).name for name in names]
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None or not paths:
            raise ValueError(f"{folder / INDEX} names {missing or 'no file'}, which is not there: fetch it again")
        return paths
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    pickled = next(iter(sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])), None)
    if pickled is not None:
        raise ValueError(f"{pickled} can run code when it is loaded: only safetensors are read; save the model as such")
    raise ValueError(f"{folder} has neither {WEIGHTS} nor {INDEX}")


def _stored(folder: Path) -> LazyTensors:
    layout, file_of = {}, {}
    for path in _weight_files(folder):
        try:
            file = safe_open(path, "pt")
        except SafetensorError as error:
            raise ValueError(f"{path} is no whole safetensors file: {error}") from None
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            if part.get_dtype() not in _DTYPES:
                raise ValueError(
                    f"{path}: {name} is of type {part.get_dtype()}, which must be one of {', '.join(_DTYPES)}"
                )
            layout[name] = torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")
            file_of[name] = file
    return LazyTensors(layout, lambda name: file_of[name].get_tensor(name))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not whole JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content
