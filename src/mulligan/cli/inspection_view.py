"""What ``mulligan inspect`` prints: the table of a ledger, and the circumstances, curve and samples of one line."""

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from mulligan.cli.chart import axis, bars
from mulligan.cli.console import Console
from mulligan.cli.marked_text import coloured, hardest_stretch, legend, numbered, pieces, visible
from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.offenders import Offender

FILE_WIDTH = 160  # columns where there is no terminal that has a width
LOSS_ROWS, NORM_ROWS = 6, 3
REPETITION_CHARACTERS = 24


def make_console() -> Console:
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


def show_interventions(console: Console, entries: Sequence[dict[str, Any]]) -> None:
    """One line each; `intervention=NUMBER` shows the rest."""
    table = _table(
        "number", "what", "trigger", "onset", "judged", "at step", "back to", "skipped samples", "level", "loss",
        "limit", "gradient norm", "time",
    )  # fmt: skip
    for entry in entries:
        skip = entry.get("skip")
        places = ("number", "kind", "trigger", "onset", "judged_step", "step", "target")
        table.add_row(
            *(_plain(entry.get(key)) for key in places),
            f"{skip[0]}..{skip[1] - 1}" if skip else "-",
            _plain(entry.get("level")),
            _measured(entry["loss"]),
            _plain(entry["limit"]),
            _measured(entry["gradient_norm"]),
            entry["time"],
        )
    console.print(table)


def show_circumstances(console: Console, entry: dict[str, Any]) -> None:
    """What was judged, and what was done about it, in two lines."""
    skip, judged, onset = entry.get("skip"), entry["judged_step"], entry.get("onset")
    done = [f"intervention {entry['number']}: {entry['kind']} at step {entry['step']}"]
    done += [f"back to step {entry['target']}"] if entry.get("target") is not None else []
    done += [f"without the samples {skip[0]} to {skip[1] - 1}"] if skip else []
    done += [f"level {entry['level']}"] if "level" in entry else []
    seen = [f"trigger {_plain(entry.get('trigger'))}", *([] if onset is None else [f"onset {onset}"])]
    seen += [f"judged step {judged}: loss {_measured(entry['loss'])}, limit {_plain(entry['limit'])}"]
    seen += [f"gradient norm {_measured(entry['gradient_norm'])}"]
    for parts in (done, seen):
        console.print(", ".join(parts), soft_wrap=True)


def show_curve(console: Console, entry: dict[str, Any]) -> None:
    """Loss and gradient norm of the steps up to the judged one, where the ledger has them."""
    values = entry.get("values")
    if not values:
        return
    steps, losses, norms = zip(*values, strict=True)
    marks = {entry.get("onset", entry["judged_step"]): "o", entry["judged_step"]: "t"}
    lines = ["loss", *bars(losses, rows=LOSS_ROWS), "gradient norm", *bars(norms, rows=NORM_ROWS), axis(steps, marks)]
    named = "  ".join(f"{letter}: step {step}" for step, letter in marks.items())
    for line in (*lines, f"{'':10} steps {steps[0]} to {steps[-1]}  {named}"):
        console.print(line, soft_wrap=True)


def show_offenders(
    console: Console, found: Sequence[Offender], tokenizer: Tokenizer, *, top: int, characters: int
) -> None:
    """Those among the first ``top`` of a ranking: a table, then the hardest stretch of each one's text."""
    shown = [one for one in found if one.rank <= top]
    table = _table("by norm", "by loss", "sample", "step", "loss", "gradient norm", "repeated", "place", "documents")
    for one in shown:
        place = one.place
        table.add_row(
            *map(str, (one.norm_rank, one.loss_rank, one.sample, one.step)),
            _plain(one.score.loss),
            _plain(one.score.gradient_norm),
            _repeated(one, tokenizer),
            f"{place.source}:{place.file}:{place.offset}",
            f"{place.document}, {place.begun} begun",
        )
    console.print(table)
    if console.is_terminal:
        console.print(legend(tokenizer.vocab_size))
    for one in shown:
        whole = pieces(tokenizer, one.tokens.tolist(), losses_of(one))
        stretch = hardest_stretch(whole, characters)
        text = coloured(stretch, tokenizer.vocab_size) if console.is_terminal else numbered(stretch, losses_of(one))
        console.print(
            f"\nsample {one.sample}: loss {one.score.loss:.4g}, gradient norm {one.score.gradient_norm:.4g}",
            style="bold",
        )
        console.print(text, soft_wrap=True)


def losses_of(one: Offender) -> list[float]:
    """For each of its tokens; the first is never predicted."""
    return [math.nan, *one.score.token_losses_T.tolist()]


def repeated_text(one: Offender, tokenizer: Tokenizer) -> str:
    start, length, _ = one.repetition
    return tokenizer.decode(one.tokens[start : start + length].tolist())


def _repeated(one: Offender, tokenizer: Tokenizer) -> str:
    if one.repetition.repeats == 1:
        return "-"
    text = visible(repeated_text(one, tokenizer))
    text = text if len(text) <= REPETITION_CHARACTERS else f"{text[:REPETITION_CHARACTERS]}…"
    return f"{one.repetition.repeats} x {one.repetition.length} tokens '{text}'"


def _measured(value: float | None) -> str:
    """A loss or a norm, which the ledger has as null where it was no finite number."""
    return "not finite" if value is None else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    return table
