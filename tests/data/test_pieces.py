"""The pieces of a model file, beside what SentencePiece itself tells of them."""

from collections.abc import Callable

import pytest
import sentencepiece

from mulligan.data.pieces import has_exact_scores, read_pieces, with_exact_scores
from mulligan.data.tokenizer import TokenizerRecipe

TEXTS = ["the loss is a curve ===== of the loss, and a curve", "x = y + 1\n" * 40, "a\tb"] * 5


def trained(model_type: str) -> bytes:
    options = {"model_type": model_type, "byte_fallback": True, "normalization_rule_name": "identity"}
    model: list[bytes] = []
    writer = type("", (), {"write": lambda _, content: model.append(content)})()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=writer, vocab_size=300, minloglevel=2,
        user_defined_symbols=["\t"], hard_vocab_limit=False, **options,
    )  # fmt: skip
    return b"".join(model)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_pieces_are_those_that_the_library_knows(model_type: str) -> None:
    model = trained(model_type)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    found_type, pieces = read_pieces(model)
    assert found_type == model_type
    assert len(pieces) == processor.vocab_size()
    tests: dict[str, Callable[[int], bool]] = {
        "byte": processor.is_byte, "control": processor.is_control, "unknown": processor.is_unknown,
    }  # fmt: skip
    for number, piece in enumerate(pieces):
        assert (piece.text, piece.score) == (processor.id_to_piece(number), processor.get_score(number))
        assert piece.kind == next((kind for kind, test in tests.items() if test(number)), piece.kind)
    assert [piece.text for piece in pieces if piece.kind == "user_defined"] == ["\t"]


def test_scores_of_unigram_are_rounded_and_nothing_else() -> None:
    model = trained("unigram")
    before, after = read_pieces(model), read_pieces(with_exact_scores(model))
    assert not has_exact_scores(before.pieces)
    assert has_exact_scores(after.pieces)
    for old, new in zip(before.pieces, after.pieces, strict=True):
        assert new == old._replace(score=new.score)
        assert abs(new.score - old.score) <= 1 / 128


def test_a_trained_unigram_has_exact_scores() -> None:
    tokenizer = TokenizerRecipe(vocab_size=285, model_type="unigram").make(iter(TEXTS))
    assert has_exact_scores(read_pieces(tokenizer.model).pieces)
