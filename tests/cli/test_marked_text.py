"""Text with losses: whole characters, nothing that a terminal obeys, the hardest stretch."""

import math
from types import SimpleNamespace
from typing import Any

from mulligan.cli.marked_text import Piece, coloured, hardest_stretch, numbered, pieces, visible

BYTES = {1: b"", 2: b"", 3: "é".encode()[:1], 4: "é".encode()[1:], 5: b"a\n"}
TOKENIZER: Any = SimpleNamespace(
    begin_id=1, end_id=2, decode_bytes=lambda ids: b"".join(BYTES[number] for number in ids)
)


def test_a_character_of_two_tokens_has_the_greater_loss() -> None:
    found = pieces(TOKENIZER, [3, 4, 5, 4], [math.nan, 2.0, 1.0, 3.0])
    assert found == [("é", 2.0), ("a↵", 1.0), ("\ufffd", 3.0)]
    assert pieces(TOKENIZER, [3, 4], [3.0, 2.0]) == [("é", 3.0)]


def test_documents_are_framed_and_end_a_torn_character() -> None:
    assert [piece.text for piece in pieces(TOKENIZER, [5, 3, 2, 1, 5], [0.0] * 5)] == [
        "a↵", "\ufffd<end>", "<begin>", "a↵",
    ]  # fmt: skip
    assert [piece.text for piece in pieces(TOKENIZER, [5, 3], [0.0] * 2)] == ["a↵", "\ufffd"]


def test_a_terminal_obeys_nothing() -> None:
    assert visible("a\x1b[31m\r\t\u202eb\n") == "a\\x1b[31m\\r\\t\\u202eb↵"


def test_the_stretch_of_the_highest_losses_is_shown() -> None:
    whole = [Piece("ab", loss) for loss in (math.nan, 1.0, 5.0, 4.0, 1.0)]
    assert [piece.text for piece in hardest_stretch(whole, 5)] == ["…", "ab", "ab", "…"]
    assert [piece.loss for piece in hardest_stretch(whole, 5)][1:3] == [5.0, 4.0]
    assert [piece.loss for piece in hardest_stretch(whole, 1)][1:2] == [5.0], "one piece at least"
    assert "".join(piece.text for piece in hardest_stretch(whole, 99)) == "ab" * 5


def test_the_hardest_tenth_is_numbered() -> None:
    whole = [Piece(str(number), float(number)) for number in range(10)]
    assert numbered(whole[7:], [math.nan, *range(10)]).plain == "789⟨9.0⟩"
    assert numbered([Piece("a", math.nan)], [math.nan]).plain == "a"


def test_what_costs_more_than_a_guess_stands_out() -> None:
    text = coloured([Piece("easy", 0.1), Piece("[bold]", 6.0), Piece("?", math.nan)], vocab_size=400)
    assert text.plain == "easy[bold]?"
    assert [(span.start, span.end, str(span.style)) for span in text.spans] == [
        (0, 4, "dim"),
        (4, 10, "bold white on red"),
    ]
