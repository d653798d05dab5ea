"""A tokenizer as the ``tokenizer.json`` of the tokenizers library: the same ids for any text.

One that came as such a file goes as it is, but for what is put around a text. What is made of a SentencePiece model has
no normalizer, and its pieces hold plain blanks: U+2581 is then spelled in bytes there as it is here.
"""

import json
from typing import Any

from mulligan.data.json_tokenizer import JsonTokenizer, with_frame
from mulligan.data.pieces import SCORES_PER_NAT, Piece, has_exact_scores, read_pieces
from mulligan.data.sentencepiece_tokenizer import SentencePieceTokenizer
from mulligan.data.tokens import Tokenizer

Json = dict[str, Any]
_BLANK = "\u2581"
# The library's unigram finds all entries in a text, also those that stand for no text of their own ("<s>", "<0x0A>").
# Between "<" and what follows, no piece lies across where words are apart.
_SPELLED_OUT = r"</?(?=(0x[0-9A-F]{2}|s|unk)>)"


def tokenizer_json(tokenizer: Tokenizer) -> Json:
    """The content of tokenizer.json, whose texts begin with begin_id and have no end: they are to be gone on with.

    Raises ValueError where ids would differ.
    """
    is_json = isinstance(tokenizer, JsonTokenizer)
    content = json.loads(tokenizer.model) if is_json else _of_sentencepiece(tokenizer)
    begin = next(token["content"] for token in content["added_tokens"] if token["id"] == tokenizer.begin_id)
    framed: Json = json.loads(with_frame(json.dumps(content).encode(), begin=begin, end=None))
    return framed


def _of_sentencepiece(tokenizer: Tokenizer) -> Json:
    assert isinstance(tokenizer, SentencePieceTokenizer)
    model_type, stored = read_pieces(tokenizer.model)
    pieces = [piece._replace(text=piece.text.replace(_BLANK, " ")) for piece in stored]
    if model_type not in ("bpe", "unigram") or any(piece.kind == "unused" for piece in pieces):
        raise ValueError(f"a tokenizer of type {model_type}, or with unused pieces, has no form in tokenizer.json")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(number, piece) for number, piece in enumerate(pieces) if piece.kind in _ADDED],
        "normalizer": None,
        "pre_tokenizer": None if model_type == "bpe" else _splitting(_SPELLED_OUT),
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": _bpe(pieces) if model_type == "bpe" else _unigram(pieces, words_apart=tokenizer.words_apart),
    }


def tokenizer_config(tokenizer: Tokenizer, max_length: int) -> Json:
    """The content of tokenizer_config.json. "<s>" in a text is text: only the library's own call adds the token."""
    added = {token["id"]: token["content"] for token in tokenizer_json(tokenizer)["added_tokens"]}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": added[tokenizer.begin_id],
        "eos_token": added[tokenizer.end_id],
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_length,
    }


_ADDED = ("unknown", "control", "user_defined")


def _added(number: int, piece: Piece) -> Json:
    """SentencePiece cuts a text at a user's symbols before all else, as the library does at added tokens."""
    flags = dict.fromkeys(("normalized", "single_word", "lstrip", "rstrip"), False)
    return {"id": number, "content": piece.text, "special": piece.kind != "user_defined", **flags}


def _splitting(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "MergedWithPrevious", "invert": False}


def _bpe(pieces: list[Piece]) -> Json:
    """SentencePiece merges any two neighbours whose text is a piece, that of the highest score first.

    Two cuts of one piece need no order: a text alone passes through one state of two symbols only, and neighbours of
    other symbols do not change what happens between two ends of symbols.
    """
    normal = {piece.text: piece.score for piece in pieces if piece.kind == "normal"}
    merged = sorted((text for text in normal if len(text) > 1), key=lambda text: -normal[text])
    alone = next((text for text in merged if not set(text) <= normal.keys()), None)
    if alone is not None:
        raise ValueError(
            f"the tokenizer's piece {alone!r} has a character that is no piece: tokenizer.json has no such"
        )
    if len({normal[text] for text in merged}) < len(merged):
        raise ValueError("two of the tokenizer's merges have the same score: tokenizer.json knows only an order")
    merges = [
        [text[:cut], text[cut:]]
        for text in merged
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]
    return bpe_model([piece.text for piece in pieces], merges, byte_fallback=True)


def bpe_model(
    pieces: list[str], merges: list[list[str]], *, byte_fallback: bool = False, ignore_merges: bool = False
) -> Json:
    """The library's BPE of ``pieces``, by id. With ``ignore_merges`` a word that is a piece is not merged."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": {piece: number for number, piece in enumerate(pieces)},
        "merges": merges,
    }


def _unigram(pieces: list[Piece], *, words_apart: bool) -> Json:
    if not (has_exact_scores(pieces) and words_apart):
        raise ValueError(
            f"the tokenizer is of type unigram, and its scores are not whole 1/{SCORES_PER_NAT} nats, or a piece spans "
            "two words: tokenizer.json would cut some words otherwise; train it with tokenizer=unigram of this version"
        )
    # What the library takes for characters without a piece follows from the lowest score.
    lowest = min(piece.score for piece in pieces if piece.kind == "normal")
    return {
        "type": "Unigram",
        "unk_id": next(number for number, piece in enumerate(pieces) if piece.kind == "unknown"),
        "byte_fallback": True,
        "vocab": [[piece.text, piece.score if piece.kind == "normal" else lowest] for piece in pieces],
    }
