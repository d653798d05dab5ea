"""The numbers at the head of a run's page, in words and as the files have them."""

import math
from typing import NamedTuple

from mulligan.report.run_files import RunFiles


class Tile(NamedTuple):
    label: str
    value: str
    note: str = ""


class Yardstick(NamedTuple):
    """``share`` of the largest of them, for a bar."""

    name: str
    bits_per_byte: float
    share: float


def state_of(run: RunFiles) -> tuple[str, str]:
    """A word for a label, and where the run stands."""
    at = f"at step {run.step:,} of {run.planned.num_steps:,}"
    if run.is_finished:
        return "finished", f"all {run.step:,} steps"
    if run.is_at_work:
        return "under way", at
    return ("halted" if run.is_halted else "stopped"), at


def origin_of(run: RunFiles) -> str:
    """When it was begun, how often it was started, and what the latest start ran on; empty where nothing says so."""
    if not run.provenance:
        return ""
    begun, latest = run.provenance[0].get("time", ""), run.provenance[-1]
    machine, ranks = latest.get("machine", {}), latest.get("world_size", 1)
    gpus, processor = machine.get("gpus") or [], machine.get("processor", "a processor that was not noted")
    device = f"{len(gpus)} x {gpus[0]}" if gpus else processor
    where = f"{ranks} rank{'s' if ranks > 1 else ''}, on a host with {device}"
    starts = f"; started {len(run.provenance)} times" if len(run.provenance) > 1 else ""
    return f"Begun {begun[:16].replace('T', ' ')} UTC{starts}; {where}."


def tiles(run: RunFiles) -> list[Tile]:
    planned, lost = run.planned, run.ledger.lost_steps
    kinds = [entry["kind"] for entry in run.ledger.entries]
    counts = [f"{kinds.count(kind)} {kind}" for kind in ("withheld", "rewind", "halt") if kind in kinds]
    speed, mfu = speed_of(run), _last(run, "mfu")
    untouched = "nothing had to be done" if planned.is_watched else "the loss was not watched"
    goodput = run.step / (run.step + lost) if run.step else None
    return [
        Tile("perplexity", number(perplexity_of(run), ".3f"), "held out"),
        Tile("tokens", f"{run.step * planned.tokens_per_step:,}", f"{run.step:,} steps of {planned.tokens_per_step:,}"),
        Tile("parameters", f"{planned.num_parameters:,}"),
        Tile("interventions", f"{len(kinds):,}", ", ".join(counts) or untouched),
        Tile("goodput", number(goodput, ".1%"), f"{lost:,} attempts given up" if lost else "no attempt was given up"),
        Tile("tokens per second", number(speed, ",.0f"), "" if mfu is None else f"MFU {mfu:.1%}"),
    ]


def yardsticks(run: RunFiles) -> list[Yardstick]:
    """Held-out bits per byte beside gzip and xz; of a run that has not ended its last kept validation alone."""
    found = {"this model" if run.is_finished else "last validation": held_out_bits(run)}
    if run.is_finished:
        found |= {"xz -9e": _closing(run, "xz_bits_per_byte"), "gzip -9": _closing(run, "gzip_bits_per_byte")}
    finite = {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
    return [Yardstick(name, value, value / max(finite.values())) for name, value in finite.items()]


def held_out_bits(run: RunFiles) -> float | None:
    """Bits per byte of the closing evaluation, NaN where they are not finite, else of the last validation."""
    return _closing(run, "val_bits_per_byte") if run.is_finished else run.newest_kept("val_bits_per_byte")


def evaluation_nats(run: RunFiles) -> float | None:
    """The held-out cross-entropy in nats a token: of the closing evaluation, else of the last validation."""
    if run.is_finished:
        return _closing(run, "val_bits_per_token") * math.log(2.0)
    return run.newest_kept("val_cross_entropy")


def perplexity_of(run: RunFiles) -> float | None:
    return _closing(run, "val_perplexity") if run.is_finished else run.newest_kept("val_perplexity")


def speed_of(run: RunFiles) -> float | None:
    """Tokens a second: of all training when it ended, else the last that was logged."""
    closing = run.summary.get("tokens_per_second") if run.is_finished else None
    return closing or _last(run, "tokens_per_second")


def _closing(run: RunFiles, key: str) -> float:
    """A number of summary.json, which holds null for one that is not finite."""
    value = run.summary.get(key)
    return math.nan if value is None else float(value)


def number(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return format(value, form) if math.isfinite(value) else "not finite"


def _last(run: RunFiles, name: str) -> float | None:
    return run.metrics[name].last if name in run.metrics else None
