"""What ``mulligan generate`` prints: texts, and with ``explain=true`` the candidates of each of their tokens."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from mulligan.cli.console import Console
from mulligan.cli.marked_text import visible
from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.explanation import Candidate, Explanation
from mulligan.evaluation.generation import Completion

BAR_WIDTH = 20


def show_completion(console: Console, completion: Completion, *, number: int, total: int) -> None:
    if total > 1:
        console.print(f"{'' if number == 1 else chr(10)}--- {number} of {total}", style="dim")
    console.print(Text(completion.prompt, "bold"), Text(completion.text), sep="", soft_wrap=True)


def show_explanations(console: Console, explanations: Sequence[Explanation], tokenizer: Tokenizer) -> None:
    """A table for each draw: on a terminal with a bar for what the model gives, and the drawn token in colour."""
    for number, one in enumerate(explanations, start=1):
        (drawn,) = (candidate for candidate in one.candidates if candidate.token == one.drawn)
        console.print(
            Text.assemble(
                f"\ntoken {number} ",
                (_named(tokenizer, one.drawn), "bold green"),
                f"  probability {drawn.probability:.4f}, rank {drawn.rank}; entropy {one.entropy_bits:.2f} bits, as of "
                f"{one.effective_choices:.1f} equal choices; the filters leave {one.num_left:,}",
            ),
            soft_wrap=True,
        )
        console.print(_table(console, one, tokenizer))


def _table(console: Console, one: Explanation, tokenizer: Tokenizer) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "rank", "probability", "after filters", "log-probability", "token", ""):
        table.add_column(name, justify="left" if name in ("", "token") else "right", no_wrap=True)
    for candidate in one.candidates:
        is_drawn = candidate.token == one.drawn
        table.add_row(
            ">" if is_drawn else "",
            str(candidate.rank),
            f"{candidate.probability:.4f}",
            f"{candidate.filtered:.4f}" if candidate.filtered else "-",
            f"{candidate.log_probability:.3f}",
            _named(tokenizer, candidate.token),
            _bar(candidate) if console.is_terminal else "",
            style="bold green" if is_drawn else "" if candidate.filtered else "dim",
        )
    return table


def _named(tokenizer: Tokenizer, token: int) -> str:
    """In quotes, for blanks matter; a token that is no whole character in its bytes."""
    if token in (tokenizer.begin_id, tokenizer.end_id):
        return "<end>" if token == tokenizer.end_id else "<begin>"
    spelled = tokenizer.decode_bytes([token])
    try:
        return f"'{visible(spelled.decode())}'"
    except UnicodeDecodeError:
        return " ".join(f"<{byte:02x}>" for byte in spelled)


def _bar(candidate: Candidate) -> str:
    eighths = round(candidate.probability * BAR_WIDTH * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
