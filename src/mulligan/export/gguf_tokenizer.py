"""The tokenizer in a GGUF file, as a ``tokenizer.json``: byte-level BPE, its splits by the name the file gives them."""

import json
from typing import Any

from mulligan.data.json_tokenizer import with_frame
from mulligan.export.tokenizer_json import bpe_model

_CONTROL, _USER_DEFINED = 3, 4
# That of Llama 3 (Grattafiori et al. 2024), from its tokenizer.json.
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def tokenizer_json(fields: dict[str, Any]) -> bytes | None:
    """The content of a tokenizer.json for the keys ``tokenizer.*`` of a GGUF file; None where it has no tokenizer.

    Documents are framed by its bos and eos.
    """
    kind = fields.get("tokenizer.ggml.model", "no_vocab")
    if kind == "no_vocab":
        return None
    if kind != "gpt2":
        raise ValueError(f"has a tokenizer.ggml.model={kind}; only gpt2, byte-level BPE, can be read")
    tokens, merges = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.merges"]
    kinds = fields.get("tokenizer.ggml.token_type", [1] * len(tokens))
    bos, eos = (fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
    marks = {number for number in (bos, eos) if number is not None}
    added = [
        {"id": number, "content": token, "special": kind == _CONTROL or number in marks}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER_DEFINED) or number in marks
    ]
    split = fields.get("tokenizer.ggml.pre", "default")
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(split),
        "post_processor": None,
        "decoder": _byte_level(use_regex=True),
        "model": bpe_model(tokens, [merge.split(" ") for merge in merges], ignore_merges=split == "llama-bpe"),
    }
    begin, end = (None if number is None else tokens[number] for number in (bos, eos))
    return with_frame(json.dumps(content).encode(), begin=begin, end=end)


def _pre_tokenizer(split: str) -> dict[str, Any]:
    """What cuts a text before BPE, by the name in ``tokenizer.ggml.pre``: as llama.cpp's llama-vocab.cpp reads it."""
    if split == "gpt-2":
        return _byte_level(use_regex=True)
    if split == "smollm":
        digits = {"type": "Digits", "individual_digits": True}
        return {"type": "Sequence", "pretokenizers": [digits, _byte_level(use_regex=True)]}
    if split == "llama-bpe":
        words = {"type": "Split", "pattern": {"Regex": _LLAMA_3}, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [words, _byte_level(use_regex=False)]}
    raise ValueError(f"has a tokenizer.ggml.pre={split}; gpt-2, llama-bpe and smollm can be read")


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
