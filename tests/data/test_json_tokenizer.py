"""A tokenizer.json gives ids as its library does and text byte for byte; one that cannot is refused in one line."""

import json
import re
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mulligan.data.json_tokenizer import JsonTokenizer, with_frame

HARD = "\t\n\r \x00\x04\u2581\ufffd\u00a0\u200b😀é字ab12<s>"
ANY_TEXT = st.text() | st.text(st.sampled_from(HARD), max_size=60)
MARKS = ["<s>", "</s>"]


@cache
def byte_level(*, lacking: str = "", marks: tuple[str, ...] = ("<s>", "</s>")) -> bytes:
    """Byte-level BPE learned from a few words; without the characters ``lacking`` of its alphabet."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = [char for char in pre_tokenizers.ByteLevel.alphabet() if char not in lacking]
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=MARKS, show_progress=False)
    backend.train_from_iterator(["abc abd  ab12 ab字 12"] * 9, trainer)
    begin, end = (mark if mark in marks else None for mark in MARKS)
    return with_frame(backend.to_str().encode(), begin=begin, end=end)


@cache
def with_fallback() -> bytes:
    """Pieces of text with byte fallback and no prefix, as Gemma's."""
    pieces = [*MARKS, *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b", "\u2581", "1", "ab", "\u2581a"]
    model = models.BPE({piece: n for n, piece in enumerate(pieces)}, [("a", "b"), ("\u2581", "a")], byte_fallback=True)
    backend = Backend(model)
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(MARKS)
    return with_frame(backend.to_str().encode(), begin="<s>", end="</s>")


def changed(content: bytes, **changes: object) -> bytes:
    return json.dumps(json.loads(content) | changes).encode()


@pytest.mark.parametrize("form", [byte_level, with_fallback])
@given(text=ANY_TEXT)
@example(text="a\r\n\tb\r\n\n   \t\t  c ")
@example(text="\u2581\u2581 \u2581")
@example(text="<s></s><unk><0x0A>")
@example(text="e\u0301 ﬁ ① 👩‍👩‍👧 12345")
def test_text_comes_back(form: Callable[[], bytes], text: str) -> None:
    tokenizer = JsonTokenizer(form())
    ids = tokenizer.encode(text)
    framed = tokenizer.framed(ids)
    assert tokenizer.decode(framed) == text
    assert int(tokenizer.token_bytes()[framed].sum()) == len(text.encode())
    assert framed.tolist() == [0, *ids.tolist(), 1]
    assert not {0, 1} & set(ids.tolist()), "a text spelled the mark of a document"


def test_ids_are_those_of_the_library() -> None:
    for form, text in ((byte_level(), " ab12\tabc \u2581字"), (with_fallback(), " ab ab1字  ")):
        ids = JsonTokenizer(form).encode(text).tolist()
        assert ids == Backend.from_buffer(form).encode(text, add_special_tokens=False).ids
    tokenizer = JsonTokenizer(with_fallback())
    assert tokenizer.decode_bytes(tokenizer.encode(" a1")[:1]) == b" a"


def test_a_character_that_the_vocabulary_cannot_spell_becomes_a_replacement_character() -> None:
    control = next(char for char in pre_tokenizers.ByteLevel.alphabet() if char == chr(256 + 4))  # of the byte 4
    tokenizer = JsonTokenizer(byte_level(lacking=control))
    assert tokenizer.spelled("a\x04b") == "a\ufffdb" == tokenizer.decode(tokenizer.encode("a\x04b"))
    assert tokenizer.spelled("a\x05b") == "a\x05b"


@pytest.mark.parametrize("mark", MARKS)
def test_one_mark_stands_once_before_each_document(mark: str) -> None:
    tokenizer = JsonTokenizer(byte_level(marks=(mark,)))
    assert tokenizer.begin_id == tokenizer.end_id == MARKS.index(mark)
    ids = tokenizer.encode("ab")
    assert tokenizer.framed(ids).tolist() == [tokenizer.begin_id, *ids.tolist()]


def added(**options: object) -> list[dict[str, object]]:
    tokens = json.loads(byte_level())["added_tokens"]
    return [*tokens, tokens[0] | {"id": 400, "content": "<think>", "special": False} | options]


REFUSED = {
    "is not a tokenizer.json": b"{}",
    "frames no documents": changed(byte_level(), post_processor=None),
    "'e\u0301 \u2460 \ufb01' comes back as 'é \u2460 \ufb01'": changed(byte_level(), normalizer={"type": "NFC"}),
    "' a  b' comes back as '  a  b'": changed(
        with_fallback(),
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
    ),
    "'a  <think>  b' comes back as": changed(byte_level(), added_tokens=added(lstrip=True)),
    "is neither byte-level nor has it byte fallback": changed(byte_level(), decoder=None),
    "set its dropout=0.1 to null": changed(byte_level(), model=json.loads(byte_level())["model"] | {"dropout": 0.1}),
    "'\ufffd\u2581' comes back as": byte_level(lacking="\u00bf"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_loses_text_is_refused(reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        JsonTokenizer(REFUSED[reason])
    assert "\n" not in str(caught.value)


def test_an_added_token_that_is_not_special_stands_for_its_text() -> None:
    tokenizer = JsonTokenizer(changed(byte_level(), added_tokens=added()))
    last = tokenizer.vocab_size - 1
    assert last in tokenizer.encode("a <think> b")
    assert tokenizer.token_bytes()[last] == len("<think>")


def test_a_mark_must_be_a_special_token() -> None:
    with pytest.raises(ValueError, match="has no special token 'ab'"):
        with_frame(byte_level(), begin="ab", end=None)
