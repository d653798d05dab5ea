"""Text of a sample with the loss of its tokens: in colours on a terminal, as numbers elsewhere."""

import codecs
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.text import Text

from mulligan.data.tokens import Tokenizer

NEWLINE, CUT = "↵", "…"
# Loss as a share of log(vocabulary), what a uniform guess costs, and the style from there on.
STYLES = ((1.0, "bold white on red"), (0.75, "red"), (0.5, "yellow"), (0.25, ""), (0.0, "dim"))
MARKED_SHARE = 0.1  # of a sample's tokens have their loss written behind them


class Piece(NamedTuple):
    """Whole characters, and the loss of their token in nats: NaN where it has none."""

    text: str
    loss: float


def visible(text: str) -> str:
    """``text`` in which nothing moves a cursor, hides or turns around: such characters are spelled out."""
    return "".join(
        char if char.isprintable() else NEWLINE if char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def pieces(tokenizer: Tokenizer, tokens: Sequence[int], losses: Sequence[float]) -> list[Piece]:
    """Where several tokens spell one character, it has the greatest of their losses."""
    marks = {tokenizer.end_id: "<end>", tokenizer.begin_id: "<begin>"}  # one for both stands before a document
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    found, greatest = [], math.nan
    for token, loss in zip(tokens, losses, strict=True):
        greatest = loss if math.isnan(greatest) or loss > greatest else greatest
        text = decoder.decode(tokenizer.decode_bytes([token]), final=token in marks) + marks.get(token, "")
        if text:
            found.append(Piece(visible(text), greatest))
            greatest = math.nan
    rest = decoder.decode(b"", final=True)
    return [*found, Piece(rest, greatest)] if rest else found


def hardest_stretch(whole: Sequence[Piece], characters: int) -> list[Piece]:
    """The neighbours of at most so many characters, and at least one piece, whose losses sum highest."""
    losses = [0.0 if math.isnan(piece.loss) else piece.loss for piece in whole]
    best, best_sum, start, length, total = (0, 1), -math.inf, 0, 0, 0.0
    for stop, piece in enumerate(whole, start=1):
        length, total = length + len(piece.text), total + losses[stop - 1]
        while length > characters and start < stop - 1:
            length, total, start = length - len(whole[start].text), total - losses[start], start + 1
        if total > best_sum:
            best, best_sum = (start, stop), total
    ends = [Piece(CUT, math.nan) if cut else Piece("", math.nan) for cut in (best[0] > 0, best[1] < len(whole))]
    return [ends[0], *whole[best[0] : best[1]], ends[1]]


def numbered(stretch: Sequence[Piece], losses: Sequence[float]) -> Text:
    """``token⟨loss⟩`` for tokens above the 90th percentile of ``losses``, those of the whole sample."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    threshold = float(np.quantile(finite, 1.0 - MARKED_SHARE)) if finite else math.inf
    return Text("".join(f"{text}⟨{loss:.1f}⟩" if loss > threshold else text for text, loss in stretch))


def coloured(stretch: Sequence[Piece], vocab_size: int) -> Text:
    text = Text()
    for piece in stretch:
        text.append(piece.text, _style(piece.loss / math.log(vocab_size)))
    return text


def legend(vocab_size: int) -> Text:
    """The colours, each with the loss that it begins at."""
    text = Text("nats a token, from:")
    for share, style in reversed(STYLES):
        text.append("  ").append(f"{share * math.log(vocab_size):.1f}", style)
    return text.append(f"  (a uniform guess costs {math.log(vocab_size):.1f})")


def _style(share: float) -> str:
    return next((style for least, style in STYLES if share >= least), "")
