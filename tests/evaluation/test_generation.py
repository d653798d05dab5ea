"""Texts of prompts: their beginning, their end, and what is shown of them on the way."""

from functools import partial
from typing import Any

import pytest

from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.generation import Completion, complete, generate_text
from mulligan.evaluation.sampler import Sampler
from mulligan.evaluation.suites import Subject
from tests.evaluation.conftest import make_model

PROMPTS = ["def ", "the cat sat on the mat while a dog ran", "", "foo", "return bar"]


def completion(tokenizer: Tokenizer, prompt: str, **options: Any) -> Completion:
    return Completion(
        tokenizer, prompt, Sampler(seed=options.pop("seed", 0)), **({"max_new_tokens": 20, "vocab_size": 320} | options)
    )


def test_a_batch_gives_each_prompt_the_text_it_has_alone(subject: Subject) -> None:
    alone = [
        "".join(generate_text(subject.model, subject.tokenizer, one, Sampler(), max_new_tokens=20)) for one in PROMPTS
    ]
    together = [completion(subject.tokenizer, one, max_new_tokens=20) for one in PROMPTS]
    complete(subject.model, together, batch_size=4)
    assert [one.text for one in together] == alone
    assert len(set(alone)) == len(alone)


def test_the_last_token_of_a_prompt_is_drawn_again(subject: Subject, tokenizer: Tokenizer) -> None:
    draw = partial(generate_text, subject.model, tokenizer, max_new_tokens=1)
    after_blank = {"".join(draw("def ", Sampler(seed=seed))) for seed in range(80)}
    words = {tokenizer.decode([number])[1:] for number in tokenizer.beginning_with(b" ")}
    assert after_blank <= words
    assert len(after_blank) > 3
    assert "".join(draw("", Sampler())) != ""


class Scripted:
    """A completion whose row is given tokens by hand."""

    def __init__(self, tokenizer: Tokenizer, stop: list[str]) -> None:
        self.completion = completion(tokenizer, "", stop=stop, max_new_tokens=99)
        self.tokenizer = tokenizer

    def say(self, spelled: bytes) -> str:
        """Byte by byte, each a token of its own."""
        shown = ""
        for byte in spelled:
            if self.completion.row.is_done:
                break
            tokens = [n for n in range(self.tokenizer.vocab_size) if self.tokenizer.decode_bytes([n]) == bytes([byte])]
            self.completion.row.new.append(tokens[0])
            shown += self.completion.advance()
        return shown


def test_a_stop_string_that_spans_tokens_ends_the_text_before_it(tokenizer: Tokenizer) -> None:
    scripted = Scripted(tokenizer, ["END", "\n\n"])
    assert scripted.say(b"a EN") == "a "  # what may become a stop is not shown yet
    assert scripted.say(b"V\nb") == "ENV\nb"
    assert scripted.say(b" \n\nEND") == " "
    assert scripted.completion.text == "a ENV\nb "
    assert (scripted.completion.ended_by, scripted.completion.stopped_by) == ("stop", "\n\n")


def test_what_was_held_back_is_shown_at_the_end(tokenizer: Tokenizer) -> None:
    scripted = Scripted(tokenizer, ["END"])
    scripted.say("é EN".encode() + "é".encode()[:1])
    scripted.completion.row.take(tokenizer.end_id)
    assert scripted.completion.advance() == "EN\ufffd"
    assert (scripted.completion.text, scripted.completion.ended_by) == ("é EN\ufffd", "end")


def test_the_first_to_be_complete_stops_and_of_two_at_once_the_longer(tokenizer: Tokenizer) -> None:
    for stop in (["cd", "bcd", "abcde"], ["abcde", "bcd", "cd"]):
        scripted, at_once = Scripted(tokenizer, stop), completion(tokenizer, "", stop=stop)
        scripted.say(b"xabcdefg")
        at_once.row.new += tokenizer.encode("xabcdefg").tolist()  # a token may hold several whole
        at_once.advance()
        assert scripted.completion.text == at_once.text == "xa"


def test_stops_of_a_real_batch(subject: Subject) -> None:
    whole = completion(subject.tokenizer, "def ")
    complete(subject.model, [whole], batch_size=1)
    stop = whole.text[3:6]
    stopped, other = completion(subject.tokenizer, "def ", stop=[stop]), completion(subject.tokenizer, "foo")
    complete(subject.model, [stopped, other], batch_size=2)
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert len(stopped.row.new) < len(whole.row.new) == len(other.row.new) == 20
    assert (whole.ended_by, stopped.ended_by) == ("length", "stop")


def test_an_empty_stop_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="stop must not hold an empty string"):
        completion(tokenizer, "x", stop=[""])


def test_a_model_with_fewer_rows_than_its_tokenizer_has_tokens_draws_those_it_has(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.begin_id, *tokenizer.encode("foo").tolist()]
    network = make_model(max(ids) + 1)
    one = completion(tokenizer, "foo", vocab_size=network.config.vocab_size)
    complete(network, [one], batch_size=1)
    assert one.text
    with pytest.raises(ValueError, match=f"a text needs the token {max(ids)}, which must be below .*={max(ids)}"):
        completion(tokenizer, "foo", vocab_size=max(ids))
