"""The last word: where it begins, what it costs, and what the numbers are taken of."""

import json
import math
from pathlib import Path

import pytest

from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.lambada import LambadaSuite, last_word
from mulligan.evaluation.likelihood import likelihoods
from mulligan.evaluation.suites import Subject

PASSAGES = ["the cat sat on the mat", "a dog ran, and a dog sat far", "return bar or far"]


def test_the_last_word_has_the_blank_before_it(tokenizer: Tokenizer) -> None:
    pair = last_word(tokenizer, "the cat sat on the\nold mat.\n")
    assert pair.context[0] == tokenizer.begin_id
    assert tokenizer.decode(pair.context[1:]) == "the cat sat on the\nold"
    assert tokenizer.decode(pair.continuation) == " mat."


def test_where_a_token_reaches_over_the_border_both_sides_are_tokenized_apart() -> None:
    """Unigram pieces may span words."""
    joined = Joining()
    pair = last_word(joined, "on the mat")  # type: ignore[arg-type]  # stands for a tokenizer
    assert joined.encode("on the mat").tolist() == [9, 7]
    assert pair == ([1, 9, 5], [6])


class Joining:
    """A tokenizer whose token 7 is "the mat"; by themselves "the" is 5 and " mat" is 6."""

    begin_id = 1

    def encode(self, text: str) -> "Ids":
        return Ids({"on the": [9, 5], " mat": [6], "on the mat": [9, 7]}[text])


class Ids(list[int]):
    def tolist(self) -> list[int]:
        return list(self)


def test_a_passage_of_one_word_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="the passage 'mat\\\\n' must hold two words"):
        last_word(tokenizer, "mat\n")


@pytest.mark.parametrize("name", ["passages.txt", "passages.jsonl"])
def test_perplexity_is_of_words_and_accuracy_of_whole_words(subject: Subject, tmp_path: Path, name: str) -> None:
    lines = PASSAGES if name.endswith(".txt") else [json.dumps({"text": one}) for one in PASSAGES]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    scores = LambadaSuite(path=str(tmp_path / name))(subject)
    pairs = [last_word(subject.tokenizer, one) for one in PASSAGES]
    words = likelihoods(subject.model, pairs, batch_size=1)
    assert max(len(pair.continuation) for pair in pairs) > 1, "no word of several tokens"
    assert scores["perplexity"].value == pytest.approx(
        math.exp(-sum(one.log_probability for one in words) / 3), rel=1e-4
    )
    assert scores["accuracy"].value == sum(one.is_greedy for one in words) / 3
    assert scores["passages"].value == 3
    assert LambadaSuite(path=str(tmp_path / name), limit=2)(subject)["passages"].value == 2
