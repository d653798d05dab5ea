"""The tokenizer of a GGUF file parts words as its name says, and frames documents by its bos and eos."""

from typing import Any

import pytest
from tokenizers import pre_tokenizers

from mulligan.data.json_tokenizer import JsonTokenizer
from mulligan.export.gguf_tokenizer import tokenizer_json

TOKENS = ["<s>", "</s>", "<tool>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "Ġ1", "ĠĠ", "Ġa", "Ġab"]


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3, 3, 4, *[1] * (len(TOKENS) - 3)],
        "tokenizer.ggml.merges": ["1 2", "Ġ 1", "Ġ Ġ", "Ġ a"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    } | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}


def tokenizer(**changes: Any) -> JsonTokenizer:
    content = tokenizer_json(fields(**changes))
    assert content is not None
    return JsonTokenizer(content)


@pytest.mark.parametrize(
    ("pre", "wanted"),
    [
        ("smollm", ["ĠĠ", "1", "2", "Ġa", "<tool>"]),  # each digit alone
        ("gpt-2", ["Ġ", "Ġ", "12", "Ġa", "<tool>"]),
        ("llama-bpe", ["Ġ", "Ġ", "12", "Ġa", "<tool>"]),
    ],
)
def test_words_are_parted_as_the_file_says(pre: str, wanted: list[str]) -> None:
    ids = tokenizer(pre=pre).encode("  12 a<tool>")
    assert [TOKENS[number] for number in ids] == wanted


def test_of_llama_3_a_word_that_is_a_token_is_not_parted() -> None:
    """Whatever the merges make of it."""
    for pre, wanted in {"llama-bpe": ["Ġab"], "gpt-2": ["Ġa", "b"]}.items():
        assert [TOKENS[number] for number in tokenizer(pre=pre).encode(" ab")] == wanted


def test_its_marks_frame_a_document() -> None:
    assert (tokenizer().begin_id, tokenizer().end_id) == (0, 1)
    for changes in ({"bos_token_id": 1}, {"bos_token_id": None}):  # one for both, and one alone
        assert (tokenizer(**changes).begin_id, tokenizer(**changes).end_id) == (1, 1)
    unmarked = tokenizer(token_type=[1] * len(TOKENS))  # some files do not say that these are special
    assert unmarked.decode_bytes([0, 1]) == b""


def test_what_is_not_known_is_refused() -> None:
    assert tokenizer_json({}) is None
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.pre=tekken; gpt-2, llama-bpe and smollm can be read"):
        tokenizer_json(fields(pre="tekken"))
    with pytest.raises(ValueError, match=r"tokenizer\.ggml\.model=bert; only gpt2"):
        tokenizer_json(fields(model="bert"))
    with pytest.raises(ValueError, match="frames no documents"):
        tokenizer(bos_token_id=None, eos_token_id=None)
