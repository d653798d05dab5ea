"""Text survives the tokenizer byte for byte, training repeats, and a model that loses bytes is refused."""

import io
from functools import cache
from typing import Literal

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from mulligan.data.sentencepiece_tokenizer import _ASCII_WORD, _WORD, SentencePieceTokenizer
from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.data.tokens import Tokenizer

HARD = "\t\n\r \x00\u2581\u2585\ufffd\u2047\u00a0\u200b😀é字ab1<>"
ANY_TEXT = st.text() | st.text(st.sampled_from(HARD), max_size=60)


@given(text=ANY_TEXT)
@example(text="")
@example(text="a\r\n\tb\r\n\n   \t\t  c ")
@example(text="\u2581\u2581 \u2581")
@example(text="<s></s><unk><0x0A>")
@example(text="e\u0301 ﬁ ① 👩‍👩‍👧")
@example(text="line\n" * 500 + "x" * 3000)
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.begin_id, *ids.tolist(), tokenizer.end_id]) == text
    assert int(tokenizer.token_bytes()[ids].sum()) == len(text.encode())


@given(
    text=ANY_TEXT.filter(lambda text: "\u2581" not in text) | st.sampled_from(["", "ab  cd\n\n\n   ef__12", "x" * 99])
)
@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_words_encoded_apart_are_the_whole_encoded_at_once(
    texts: list[str], model_type: Literal["bpe", "unigram"], text: str
) -> None:
    tokenizer = SentencePieceTokenizer(model_of(model_type, tuple(texts)))
    assert tokenizer.words_apart
    apart = [number for word in _WORD.findall(text) for number in tokenizer._processor.encode(word)]
    assert tokenizer.encode(text).tolist() == tokenizer._processor.encode(text) == apart


@given(text=st.text(st.characters(max_codepoint=127)))
@example(text="".join(map(chr, range(128))) * 2)
def test_words_of_ascii_are_those_of_any_text(text: str) -> None:
    assert _ASCII_WORD.findall(text) == _WORD.findall(text)


def test_pieces_that_span_words_are_heeded(texts: list[str]) -> None:
    texts = [text + "of the end of the file " * 9 for text in texts]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=400, model_type="bpe", minloglevel=2,
        byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, split_by_whitespace=False,
    )  # fmt: skip
    tokenizer = SentencePieceTokenizer(model.getvalue())
    assert not tokenizer.words_apart
    assert tokenizer.encode(texts[0]).tolist() == tokenizer._processor.encode(texts[0])
    assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]


def test_a_full_cache_of_words_is_emptied(
    tokenizer: Tokenizer, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [tokenizer.encode(text).tolist() for text in texts]
    monkeypatch.setattr("mulligan.data.sentencepiece_tokenizer._CACHED_WORDS", 50)
    small = SentencePieceTokenizer(tokenizer.model)
    assert [small.encode(text).tolist() for text in texts] == expected
    assert len(small._ids_of_word) < len(set(" ".join(texts).split()))


@cache
def model_of(model_type: Literal["bpe", "unigram"], texts: tuple[str, ...]) -> bytes:
    return TokenizerRecipe(vocab_size=300, model_type=model_type).make(texts).model


def test_unigram_keeps_text_too(texts: list[str]) -> None:
    unigram = TokenizerRecipe(vocab_size=300, model_type="unigram").make(texts)
    for text in (*texts[:3], HARD, HARD[::-1]):
        assert unigram.decode(unigram.encode(text)) == text
        assert int(unigram.token_bytes()[unigram.encode(text)].sum()) == len(text.encode())


def test_text_it_was_trained_on_is_compressed(tokenizer: Tokenizer, texts: list[str]) -> None:
    assert len(tokenizer.encode(texts[0])) < 0.7 * len(texts[0])


def test_begin_and_end_stand_for_no_bytes_and_never_come_from_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes()[[tokenizer.begin_id, tokenizer.end_id]].tolist() == [0, 0]
    assert not {tokenizer.begin_id, tokenizer.end_id} & set(tokenizer.encode("<s> a </s>"))


def test_bytes_cut_inside_a_character_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("😀")[:-1]) == "\ufffd"


def test_the_same_texts_give_the_same_model(tokenizer: Tokenizer, texts: list[str]) -> None:
    assert TokenizerRecipe(vocab_size=400).make(iter(texts)).model == tokenizer.model


def test_tabs_and_blank_signs_in_the_sample_do_not_hide_its_text(texts: list[str], tokenizer: Tokenizer) -> None:
    tabbed = [text.replace(" ", "\t\u2581") for text in texts]
    hidden = TokenizerRecipe(vocab_size=400).make(tabbed)
    assert len(hidden.encode(texts[0])) < 1.2 * len(tokenizer.encode(texts[0]))


def test_a_text_of_one_long_line_is_learned_from(texts: list[str], tokenizer: Tokenizer) -> None:
    words = " ".join(texts).replace("\n", " ")
    line = words * (2**21 // len(words))
    assert len(TokenizerRecipe(vocab_size=400).make([line]).encode(words)) < 1.2 * len(tokenizer.encode(words))


def test_a_model_without_byte_fallback_is_refused(texts: list[str]) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=100, model_type="bpe", minloglevel=2
    )
    with pytest.raises(ValueError, match="must have byte fallback"):
        SentencePieceTokenizer(model.getvalue())
