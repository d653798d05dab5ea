"""A tokenizer comes from a file of either kind, or from text; a wrong file or size is one clear error."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.data.tokenizer import TokenizerRecipe
from mulligan.data.tokens import Tokenizer


def test_a_model_file_is_taken_as_it_is(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "own.model"
    path.write_bytes(tokenizer.model)
    assert TokenizerRecipe(vocab_size=400, model_file=str(path)).make([]).model == tokenizer.model
    with pytest.raises(ValueError, match=r"own\.model' has 400 pieces: set tokenizer\.vocab_size=400, not 500"):
        TokenizerRecipe(vocab_size=500, model_file=str(path)).make([])


def test_a_missing_model_file_is_named() -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.model_file='nowhere\.model' is not a file"):
        TokenizerRecipe(vocab_size=400, model_file="nowhere.model")


def test_a_file_that_is_no_model_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "wrong.model"
    for content in (b"hello " * 100, tokenizer.model[:-3000]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"wrong\.model is not a SentencePiece model"):
            TokenizerRecipe(vocab_size=400, model_file=str(path)).make([])


def test_vocabularies_that_cannot_be_are_one_error(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size=259 must be at least 260"):
        TokenizerRecipe(vocab_size=259)
    for vocab_size in (262, 100_000):  # fewer than the characters, more than the text can fill
        with pytest.raises(ValueError, match=rf"tokenizer\.vocab_size={vocab_size} cannot be trained"):
            TokenizerRecipe(vocab_size=vocab_size).make(texts)
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size=300 cannot be trained"):
        TokenizerRecipe(vocab_size=300).make([])


def test_rare_characters_leave_room_for_words_when_told() -> None:
    """As in Chinese, whose characters are more than a small vocabulary has pieces."""
    characters = [chr(0x4E00 + number) for number in range(600)]
    texts = ["".join(characters), "the same few words, said again and again, fill a vocabulary\n" * 2500]
    with pytest.raises(ValueError, match=r"tokenizer\.vocab_size=320 cannot be trained.*character_coverage"):
        TokenizerRecipe(vocab_size=320).make(texts)
    tokenizer = TokenizerRecipe(vocab_size=320, character_coverage=0.98).make(texts)
    assert tokenizer.vocab_size == 320
    assert len(tokenizer.encode(" again")) == 1
    assert len(tokenizer.encode(characters[0])) == 3, "spelled in its bytes"
    assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]


def test_prepared_data_from_before_the_key_keeps_its_folder() -> None:
    usual = TokenizerRecipe(vocab_size=320).request
    assert sorted(usual) == ["model_file", "model_sha256", "model_type", "sample_bytes", "seed", "vocab_size"]
    assert TokenizerRecipe(vocab_size=320, character_coverage=0.98).request == usual | {"character_coverage": 0.98}


def test_what_reading_the_texts_raises_comes_out_as_it_is() -> None:
    def texts() -> Iterator[str]:
        yield "some text\n" * 50
        raise ValueError("row 7 is not text")

    with pytest.raises(ValueError, match=r"^row 7 is not text$"):
        TokenizerRecipe(vocab_size=300).make(texts())
    with pytest.raises(ValueError, match="cannot be trained on this sample of text: there is none"):
        TokenizerRecipe(vocab_size=300).make([])
