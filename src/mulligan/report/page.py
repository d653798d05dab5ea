"""One page of a run that needs nothing but itself: pictures, tables, and next-token bars that a slider moves."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mulligan import __version__
from mulligan.data.sequencer import Skips
from mulligan.report.headline import (
    Tile,
    evaluation_nats,
    held_out_bits,
    number,
    origin_of,
    state_of,
    tiles,
    yardsticks,
)
from mulligan.report.next_token import NextToken
from mulligan.report.palette import COLORS
from mulligan.report.rendering import Picture
from mulligan.report.run_files import RunFiles
from mulligan.report.sample_order import Source
from mulligan.report.words import told

HERE = Path(__file__).parent
MOST_SAMPLES = 12


class Sample(NamedTuple):
    """``when`` it was written; ``text`` follows the prompt."""

    when: str
    prompt: str
    text: str


class Row(NamedTuple):
    label: str
    ours: str
    theirs: str


class Compared(NamedTuple):
    name: str
    numbers: list[Row]
    differences: list[tuple[str, Any, Any]]
    caution: str = ""  # what does not compare


def page(
    run: RunFiles,
    pictures: Sequence[Picture],
    *,
    config: str,
    band_note: str,
    sources: Sequence[Source],
    without_sources: str,
    explorer: Sequence[NextToken],
    without_explorer: str,
    compared: Compared | None,
) -> str:
    """The HTML. ``without_...`` say why a part is missing, where it is; all text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = lambda value: value if isinstance(value, str) else json.dumps(value)
    state, where = state_of(run)
    samples, samples_note = samples_of(run)
    nats = evaluation_nats(run)
    return environment.get_template("page.html").render(
        run=run,
        state=state,
        where=where,
        origin=origin_of(run),
        tiles=tiles(run),
        yardsticks=yardsticks(run),
        weights=run.summary.get("weights_sha256") if run.is_finished else None,
        pictures={picture.name: picture.svg for picture in pictures},
        config=config,
        band_note=band_note,
        data_facts=data_facts(run, sources),
        sources=sources,
        without_sources=without_sources,
        told=[told(entry, tokens_per_step=run.planned.tokens_per_step) for entry in run.ledger.entries],
        samples=samples,
        samples_note=samples_note,
        compared=compared,
        explorer={
            "prompts": [one.as_json() for one in explorer],
            "vocabulary": len(explorer[0].logits_V),
            "shown": len(explorer[0].labels),
        }
        if explorer
        else None,
        without_explorer=without_explorer,
        evaluation=number(nats, ".4f"),
        colors=COLORS,
        style=(HERE / "page.css").read_text(),
        script=(HERE / "explorer.js").read_text(),
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d, %H:%M UTC"),
    )


def samples_of(run: RunFiles) -> tuple[list[Sample], str]:
    """Texts written while the run was trained, evenly chosen where they are many, or the finished model's one."""
    found = []
    for one in run.samples:
        step, prompt, text = one.get("step"), str(one.get("prompt", "")), str(one.get("text", ""))
        when = f"step {step:,}" if isinstance(step, int) else "a step that was not noted"
        if one.get("attempt", step) != step:
            when += f", attempt {one['attempt']:,}"
        found.append(Sample(when, prompt, text.removeprefix(prompt)))
    if found:
        count = min(MOST_SAMPLES, len(found))
        shown = [found[round(at * (len(found) - 1) / max(1, count - 1))] for at in range(count)]
        number = f"{count} of the {len(found)} texts" if count < len(found) else f"The {count} texts"
        return shown, f"{number} that were written during training."
    if not run.summary.get("sample"):
        return [], ""
    prompt = run.summary.get("sample_prompt", "")
    return [
        Sample("the finished model", prompt, run.summary["sample"].removeprefix(prompt))
    ], "Written when training had ended."


def data_facts(run: RunFiles, sources: Sequence[Source]) -> list[Tile]:
    planned, skipped = run.planned, sum(stop - start for start, stop in Skips(run.ledger.skips).ranges)
    tokens, available = run.step * planned.tokens_per_step, sum(source.tokens for source in sources)
    facts = [
        Tile("tokens trained on", f"{tokens:,}"),
        Tile("tokens lost to rewinds", f"{run.ledger.lost_steps * planned.tokens_per_step:,}"),
        Tile("samples left out for good", f"{skipped:,}"),
        Tile("tokens in these", f"{skipped * planned.sequence_length:,}"),
    ]
    return facts + ([Tile("passes over the data", f"{tokens / available:.2f}")] if available else [])


def rows_of_numbers(ours: RunFiles, theirs: RunFiles) -> list[Row]:
    """The numbers at the head of both pages, side by side."""
    pairs = zip(_numbers(ours), _numbers(theirs), strict=True)
    return [Row(mine.label, mine.value, other.value) for mine, other in pairs]


def _numbers(run: RunFiles) -> list[Tile]:
    return [
        Tile("state", ", ".join(state_of(run))),
        Tile("held-out bits per byte", number(held_out_bits(run), ".4f")),
        Tile("held-out nats a token", number(evaluation_nats(run), ".4f")),
        *tiles(run),
    ]
