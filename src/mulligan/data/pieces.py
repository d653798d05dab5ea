"""What is in a SentencePiece model file and its library does not tell: the kind of each piece, and of the model.

The file is one protobuf message (sentencepiece_model.proto): fields of a number, a wire type and a value.

Unigram takes the cut of a word whose scores have the largest sum, and cuts of equal sum, such as "==" "=" and "=" "==",
are common. SentencePiece adds in 32 bits, so how it rounds decides between them, and no other program finds the same
cuts. Scores that are whole 64ths add up without rounding, to 262,144 in 32 bits: some ten thousand pieces a word.
"""

import struct
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

_TYPES: dict[int, Literal["unigram", "bpe", "word", "char"]] = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_KINDS: dict[int, Literal["normal", "unknown", "control", "user", "unused", "byte"]] = {
    1: "normal", 2: "unknown", 3: "control", 4: "user", 5: "unused", 6: "byte",
}  # fmt: skip


SCORES_PER_NAT = 64


class Piece(NamedTuple):
    text: str  # with U+2581 for a blank
    score: float  # of unigram the log-probability, of BPE less the later it was merged
    kind: Literal["normal", "unknown", "control", "user", "unused", "byte"]


class Pieces(NamedTuple):
    model_type: Literal["unigram", "bpe", "word", "char"]
    pieces: list[Piece]  # by id


def has_exact_scores(pieces: list[Piece]) -> bool:
    """Whether the scores of normal pieces add up without rounding."""
    return all((piece.score * SCORES_PER_NAT).is_integer() for piece in pieces if piece.kind == "normal")


def with_exact_scores(model: bytes) -> bytes:
    """``model`` with every score rounded to a whole 64th, at most 0.8% of a piece's probability."""
    rounded = bytearray(model)
    for number, piece in _fields(memoryview(rounded)):
        for field, score in _fields(piece) if number == 1 else ():
            if field == 2:
                (exact,) = struct.unpack("<f", score)
                struct.pack_into("<f", score, 0, round(exact * SCORES_PER_NAT) / SCORES_PER_NAT)
    return bytes(rounded)


def read_pieces(model: bytes) -> Pieces:
    """The pieces of ``model``, which SentencePiece has loaded before: its bytes are taken to be whole."""
    model_type, pieces = 1, []
    for number, value in _fields(memoryview(model)):
        if number == 1:
            piece = dict(_fields(value))
            (score,) = struct.unpack("<f", piece.get(2, bytes(4)))
            pieces.append(Piece(bytes(piece[1]).decode(), score, _KINDS[int(piece.get(3, 1))]))
        elif number == 2:
            model_type = int(dict(_fields(value)).get(3, 1))
    return Pieces(_TYPES[model_type], pieces)


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The number of each field, and its value: a whole number, or the bytes in ``message`` where it has a width."""
    at = 0
    while at < len(message):
        key, at = _whole_number(message, at)
        wire_type = key & 7
        if wire_type == 0:
            value, at = _whole_number(message, at)
            yield key >> 3, value
            continue
        if wire_type == 2:
            length, at = _whole_number(message, at)
        else:
            length = {1: 8, 5: 4}[wire_type]
        yield key >> 3, message[at : at + length]
        at += length


def _whole_number(message: memoryview, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first, and where the next field begins."""
    value = shift = 0
    while True:
        byte = message[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
