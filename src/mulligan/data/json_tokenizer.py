"""A ``tokenizer.json`` of Hugging Face's tokenizers: byte-level, or pieces of text with byte fallback.

Its ids are taken as they are, but for the special tokens that a text spells: they are text like any other, so that no
document can hold the mark of another's end.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tokenizers

from mulligan.data.tokens import BLANK, Ids, Tokenizer

# What normalizers, prefixes and clean-ups would change.
_PROBES = (
    " a  b",
    "a \r\n\n\tb ",
    "e\u0301 \u2460 \ufb01",
    "字😀 1 23",
    "\ufffd\u2581",
    "<s></s><unk><0x0A>",
    "do n't .",
)
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")
_PRINTED = (*range(33, 127), *range(161, 173), *range(174, 256))  # bytes that GPT-2's alphabet writes as themselves
_OTHERS = (byte for byte in range(256) if byte not in _PRINTED)
_BYTE_OF = {chr(byte): byte for byte in _PRINTED} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}


class JsonTokenizer(Tokenizer):
    """The marks of a document are those that the file's own post-processor puts around an empty text."""

    file_name, library = "tokenizer.json", "tokenizers"

    def __init__(self, model: bytes) -> None:
        try:
            backend = tokenizers.Tokenizer.from_buffer(model)
        except Exception as error:  # it raises nothing narrower
            raise ValueError(f"is not a tokenizer.json: {error}") from None
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        marks, added = backend.encode("").ids, backend.get_added_tokens_decoder()
        if len(marks) not in (1, 2) or not all(mark in added and added[mark].special for mark in marks):
            raise ValueError(
                "frames no documents: its post_processor must put a special token before a text, behind it, or both"
            )
        content = json.loads(model)
        byte_level = "ByteLevel" in _types(content.get("decoder"))
        vocabulary = backend.get_vocab(with_added_tokens=True)
        bytes_of = [b""] * (max(vocabulary.values()) + 1)
        for piece, number in vocabulary.items():
            if number in added:
                bytes_of[number] = b"" if added[number].special else piece.encode()
            else:
                bytes_of[number] = _byte_level(piece) if byte_level else _with_fallback(piece)
        super().__init__(model, begin_id=marks[0], end_id=marks[-1], bytes_of=bytes_of)
        self._backend = backend
        if byte_level:
            self._spelled_bytes = b"".join(
                piece for n, piece in enumerate(bytes_of) if len(piece) == 1 and n not in added
            )
        else:
            self._spelled_bytes = bytes(range(256))
            byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
            if not vocabulary.keys() >= set(byte_pieces):
                raise ValueError("is neither byte-level nor has it byte fallback: some text it cannot spell")
            self._blank_ids = np.array([vocabulary[byte_pieces[byte]] for byte in BLANK.encode()], dtype=np.uint32)
        if content["model"].get("dropout"):
            raise ValueError(f"gives other ids each time: set its dropout={content['model']['dropout']} to null")
        for probe in (*_PROBES, *(f"a  {token.content}  b" for token in added.values())):
            back = self.decode_bytes(self.encode(probe)).decode(errors="backslashreplace")
            if back != probe:
                raise ValueError(f"changes text and so loses bytes: {probe!r} comes back as {back!r}")

    def spelled(self, text: str) -> str:
        """Some byte-level vocabularies lack a few control characters, which the library would drop without a word."""
        if not text.encode().translate(None, self._spelled_bytes):
            return text
        return "".join("\ufffd" if char.encode().translate(None, self._spelled_bytes) else char for char in text)

    def _encode(self, text: str) -> Ids:
        return np.array(self._backend.encode(self.spelled(text), add_special_tokens=False).ids, dtype=np.uint32)


def with_frame(model: bytes, *, begin: str | None, end: str | None) -> bytes:
    """The tokenizer.json ``model`` with a post-processor that puts these special tokens around a text."""
    try:
        content = json.loads(model)
        ids = {token["content"]: token["id"] for token in content["added_tokens"] if token["special"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"is not a whole tokenizer.json: {error}") from None
    marks = [mark for mark in (begin, end) if mark is not None]
    for mark in marks:
        if not isinstance(mark, str) or mark not in ids:
            raise ValueError(f"has no special token {mark!r} to frame documents with")
    before, after = ([{"SpecialToken": {"id": mark, "type_id": 0}}] if mark else [] for mark in (begin, end))
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*before, first, *after],
        "pair": [*before, first, second, *after],
        "special_tokens": {mark: {"id": mark, "ids": [ids[mark]], "tokens": [mark]} for mark in marks},
    }
    return json.dumps(content, ensure_ascii=False).encode()


def _types(node: Any) -> Iterator[str]:
    """The types of a decoder, and of those that it is a sequence of."""
    if isinstance(node, dict):
        yield node["type"]
        for part in node.get("decoders", []):
            yield from _types(part)


def _byte_level(piece: str) -> bytes:
    """Of a piece in GPT-2's alphabet; one that is not in it never comes of a text."""
    return bytes(_BYTE_OF[char] for char in piece) if _BYTE_OF.keys() >= set(piece) else b""


def _with_fallback(piece: str) -> bytes:
    found = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(found[1], 16)]) if found else piece.replace(BLANK, " ").encode()
