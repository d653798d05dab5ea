"""What is in a SentencePiece model file and its processor does not tell: the kind of each piece, and of the model.

Unigram takes the cut of a word whose scores have the largest sum, and cuts of equal sum, such as "==" "=" and "=" "==",
are common. SentencePiece adds in 32 bits, so how it rounds decides between them, and no other program finds the same
cuts. Scores that are whole 64ths add up without rounding, to 262,144 in 32 bits: some ten thousand pieces a word.
"""

from typing import Literal, NamedTuple, cast

from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # made at its import

ModelType = Literal["unigram", "bpe", "word", "char"]
Kind = Literal["normal", "unknown", "control", "user_defined", "unused", "byte"]
SCORES_PER_NAT = 64


class Piece(NamedTuple):
    text: str  # with U+2581 for a blank
    score: float  # of unigram the log-probability, of BPE less the later it was merged
    kind: Kind


class Pieces(NamedTuple):
    model_type: ModelType
    pieces: list[Piece]  # by id


def has_exact_scores(pieces: list[Piece]) -> bool:
    """Whether the scores of normal pieces add up without rounding."""
    return all((piece.score * SCORES_PER_NAT).is_integer() for piece in pieces if piece.kind == "normal")


def with_exact_scores(model: bytes) -> bytes:
    """``model`` with every score rounded to a whole 64th, at most 0.8% of a piece's probability."""
    content = ModelProto.FromString(model)
    for piece in content.pieces:
        piece.score = round(piece.score * SCORES_PER_NAT) / SCORES_PER_NAT
    return content.SerializeToString(deterministic=True)


def model_type_of(model: bytes) -> ModelType:
    """Which algorithm ``model`` cuts text by."""
    spec = ModelProto.FromString(model).trainer_spec
    return cast(ModelType, spec.ModelType.Name(spec.model_type).lower())


def read_pieces(model: bytes) -> Pieces:
    """The pieces of ``model``, which SentencePiece has loaded before: its bytes are taken to be whole."""
    content = ModelProto.FromString(model)
    kinds = ModelProto.SentencePiece.Type
    return Pieces(
        model_type_of(model),
        [Piece(one.piece, one.score, cast(Kind, kinds.Name(one.type).lower())) for one in content.pieces],
    )
