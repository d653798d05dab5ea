"""SentencePiece without normalization: ``decode(encode(text)) == text`` for any text that UTF-8 can hold.

SentencePiece writes a blank as U+2581, so that character itself cannot pass through it: it is spelled in byte pieces.
"""

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import sentencepiece

from mulligan.data.pieces import model_type_of, with_exact_scores
from mulligan.data.tokens import BLANK, Ids, Tokenizer

_SEPARATOR = "\t"  # the trainer's own reserved character: it skips every sentence that holds one
NO_TEXT = "there is none outside the held-out part, in which a document is as a whole: give several"
_SENTENCE_CHARACTERS = 800  # SentencePiece learns a text by sentences
_MOST_CHARACTERS = 2**16  # and leaves those out that are longer than it is told
# Letters, a digit, a tab, or other characters, each with the blanks before it: pieces seldom hold two of these.
_WORD = re.compile(r" *[^\W\d_]+|\d|\t| *(?:[^\w \t]|_)+| +")
_ASCII_WORD = re.compile(r" *[A-Za-z]+|[0-9]|\t| *[^A-Za-z0-9 \t]+| +")  # the same words, in two thirds of the time
_CACHED_WORDS = 2**19  # 100 to 200 MB, and those of one text more
_PROBE = " a  b\n\n\u2460 c"  # what SentencePiece's own defaults would change
CHARACTER_COVERAGE = 0.9999  # the rest of the sample's characters are not to take the place of words
_TRAINER_THREADS = 8  # the model file records the number, so it must not follow the machine
_BEGIN, _END = 1, 2


class SentencePieceTokenizer(Tokenizer):
    """A trained SentencePiece model."""

    file_name, library = "tokenizer.model", "sentencepiece"

    def __init__(self, model: bytes) -> None:
        if not model:
            raise ValueError("is not a SentencePiece model: it is empty")
        try:
            pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"is not a SentencePiece model: {error}") from None
        bytes_of = [_piece_bytes(pieces, number) for number in range(pieces.vocab_size())]
        super().__init__(model, begin_id=_BEGIN, end_id=_END, bytes_of=bytes_of)
        byte_ids = {piece: n for n, piece in enumerate(bytes_of) if pieces.is_byte(n)}
        if len(byte_ids) != 256 or (pieces.bos_id(), pieces.eos_id()) != (_BEGIN, _END):
            raise ValueError(
                "must have byte fallback, and bos and eos as pieces 1 and 2; "
                "train it with tokenizer=bpe, or with SentencePiece's --byte_fallback --bos_id=1 --eos_id=2"
            )
        if self.decode(pieces.encode(_PROBE)) != _PROBE:
            raise ValueError("normalizes text and so loses bytes; train it with the rule 'identity'")
        self._processor = pieces
        self._blank_ids = np.array([byte_ids[bytes([byte])] for byte in BLANK.encode()], dtype=np.uint32)
        texts = (piece.decode() for n, piece in enumerate(bytes_of) if piece and not pieces.is_byte(n))
        self.words_apart = all(len(_WORD.findall(text)) == 1 for text in texts)
        self._caches_words = self.words_apart and model_type_of(model) == "bpe"
        self._ids_of_word = _IdsOfWord(pieces)

    def _encode(self, text: str) -> Ids:
        """Where no piece spans two words, merges never meet across them: each word is encoded once, and kept.

        On source code this takes two fifths of the time of SentencePiece's BPE. Its unigram is as fast by itself.
        """
        if not self._caches_words:
            return np.array(self._processor.encode(text), dtype=np.uint32)
        if len(self._ids_of_word) > _CACHED_WORDS:
            self._ids_of_word.clear()
        return np.frombuffer(b"".join(map(self._ids_of_word.__getitem__, _words(text))), dtype=np.uint32)


class _IdsOfWord(dict[str, bytes]):
    """The ids of each word that was asked for, as bytes."""

    def __init__(self, pieces: sentencepiece.SentencePieceProcessor) -> None:
        super().__init__()
        self._pieces = pieces

    def __missing__(self, word: str) -> bytes:
        ids = self[word] = np.array(self._pieces.encode(word), dtype=np.uint32).tobytes()
        return ids


def _words(text: str) -> list[str]:
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


def train_sentencepiece(
    texts: Iterable[str],
    *,
    vocab_size: int,
    model_type: Literal["bpe", "unigram"],
    character_coverage: float | None = None,
) -> bytes:
    """The model that SentencePiece learns from ``texts``; the same texts give the same bytes."""
    model = io.BytesIO()
    options: dict[str, Any] = {
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "split_digits": True,
        "user_defined_symbols": [_SEPARATOR],
        "character_coverage": character_coverage or CHARACTER_COVERAGE,
        "max_sentence_length": 2**20,
        "minloglevel": 2,
    }
    sentences = _Sentences(texts)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            num_threads=_TRAINER_THREADS,
            **options,
        )
    except RuntimeError as error:
        if sentences.failure is not None:
            raise sentences.failure from None
        reason = _reason(str(error)) if sentences.any else NO_TEXT
        raise ValueError(
            f"tokenizer.vocab_size={vocab_size} cannot be trained on this sample of text: {reason}"
        ) from None
    trained = model.getvalue()
    return with_exact_scores(trained) if model_type == "unigram" else trained


def _reason(told: str) -> str:
    """What the trainer says, by our keys where it is of the size."""
    if found := re.search(r"a value <= (\d+)", told):
        return f"it has pieces for {found[1]} at most"
    if found := re.search(r"(\d+) vs (\d+)\. Increase vocab_size", told):
        return f"its characters take {found[2]}, or fewer with a smaller tokenizer.character_coverage"
    return told.strip().splitlines()[-1]


def _piece_bytes(pieces: sentencepiece.SentencePieceProcessor, number: int) -> bytes:
    if pieces.is_control(number) or pieces.is_unknown(number):
        return b""
    piece = pieces.id_to_piece(number)
    if pieces.is_byte(number):
        return bytes([int(piece[1:-1], 16)])  # <0x0A>
    return piece.replace(BLANK, " ").encode()


def _chunks(text: str) -> Iterator[str]:
    """Cut after line ends into stretches of some hundred characters, a line of very many before a blank of it."""
    start = 0
    while start < len(text):
        most = start + _MOST_CHARACTERS
        stop = text.find("\n", start + _SENTENCE_CHARACTERS, most) + 1
        if stop == 0:
            stop = len(text) if len(text) <= most else max(text.rfind(" ", start + 1, most), 0) or most
        yield text[start:stop]
        start = stop


class _Sentences:
    """The sentences of texts; it keeps what reading them raises, which SentencePiece would say in its own way."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.failure: Exception | None = None
        self._sentences = _sentences(texts)
        self.any = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            sentence = next(self._sentences)
        except Exception as error:
            self.failure = None if isinstance(error, StopIteration) else error
            raise
        self.any = True
        return sentence


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for chunk in _chunks(text.replace(BLANK, " ")):
            yield from (piece for piece in chunk.split(_SEPARATOR) if piece)
