"""The numbers of a plan as tables."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from mulligan.cli.console import Console
from mulligan.planning.scaling import PAYS

UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
WIDTH = 78
EVERY_ROW = 3  # of scaling: eight times the devices
SAME = {"global_batch": "Scaling at this global batch", "batch_of_device": "Scaling at this batch a device"}
CAVEAT = "nats a token, on the data and tokenizer that the law was fitted to; yours differ"


def show(numbers: dict[str, Any], console: Console) -> None:
    tables = [
        _parameters(numbers) if "parameters" in numbers else _budget(numbers),
        _run(numbers["run"]) if "run" in numbers else None,
        _time(numbers) if "time" in numbers else None,
        *(_scaling(numbers["scaling"]) if "scaling" in numbers else ()),
        _memory(numbers["memory"]) if "memory" in numbers else None,
        _ways(numbers["memory"]) if "memory" in numbers else None,
        _storage(numbers["storage"]) if "storage" in numbers else None,
        _losses(numbers),
        _optima(numbers),
        _smaller(numbers["same_loss"]),
    ]
    for table in tables:
        if table is not None:
            console.print(table)
            console.print()


def _table(title: str, *headings: str, caption: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption=caption, caption_justify="left")
    table.show_edge, table.show_header, table.min_width = False, any(headings), WIDTH
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _parameters(numbers: dict[str, Any]) -> Table:
    table = _table("Model", "part", "parameters", "share")
    counts = numbers["parameters"]
    for part, count in counts.items():
        name = "head, the embeddings'" if part == "head" and not count else part
        table.add_row(name, f"{count:,}", f"{100.0 * count / counts['all']:.1f}%", end_section=part == "head")
    return table


def _budget(numbers: dict[str, Any]) -> Table:
    given = " ".join(f"{key}={number:g}" for key, number in numbers["given"].items())
    table = _table(f"Budget of {given}", "", "")
    budget = numbers["budget"]
    table.add_row("parameters", _short(budget["params"]))
    table.add_row("tokens", _short(budget["tokens"]))
    table.add_row("tokens a parameter", f"{budget['tokens_per_parameter']:.1f}")
    table.add_row("FLOPs, 6 N D", f"{budget['flops']:.2e}")
    return table


def _run(run: dict[str, Any]) -> Table:
    table = _table("Run", "", "")
    table.add_row("steps", f"{run['num_steps']:,}")
    table.add_row("tokens", f"{run['tokens']:,}")
    table.add_row("tokens a parameter", f"{run['tokens_per_parameter']:.2f}")
    table.add_row("FLOPs a token", f"{run['flops_per_token']:,}")
    table.add_row("FLOPs", f"{run['flops']:.3e}", end_section=True)
    table.add_row("global batch", f"{run['global_batch_samples']:,} samples, {run['tokens_per_step']:,} tokens")
    groups = f" in groups of {run['tensor_parallel_size']}" if run["tensor_parallel_size"] > 1 else ""
    table.add_row("ranks", f"{run['num_ranks']:,}{groups}")
    table.add_row("micro-batch", f"{run['micro_batch']:,} samples, {run['accumulation']:,} a step")
    again = ", activations computed again" if run["activation_checkpointing"] else ""
    table.add_row("precision", f"{run['precision']}{again}")
    return table


def _time(numbers: dict[str, Any]) -> Table:
    time = numbers["time"]
    table = _table("Time", "", "")
    peak = f"{time['num_devices']:,} x {_short(time['peak_flops'])}FLOP/s"
    table.add_row(f"{numbers['hardware']}, peak", peak)
    table.add_row("at an MFU of", f"{100.0 * time['mfu']:g}%", end_section=True)
    if "step_seconds" in time:
        table.add_row("a step", _duration(time["step_seconds"]))
        table.add_row("tokens a second", f"{time['tokens_per_second']:,.0f}")
    table.add_row("all", _duration(time["seconds"]))
    table.add_row("device hours", f"{time['device_hours']:,.1f}")
    if time["cost"] is not None:
        table.add_row("cost", f"{time['cost']:,.0f}")
    return table


def _scaling(scaling: dict[str, Any]) -> list[Table]:
    """One table for each of what stays the same."""
    tables = []
    for same, title in SAME.items():
        rows = scaling["same"][same]
        ways = [way for way in rows[0] if way != "devices"]
        table = _table(title, "devices", *ways, caption=_stops(rows, ways))
        for row in rows[::EVERY_ROW]:
            table.add_row(f"{row['devices']:,}", *(_point(row[way]) for way in ways))
        tables.append(table)
    return tables


def _point(point: dict[str, Any] | None) -> str:
    if point is None:
        return "-"
    if not point["fits"]:
        return "does not fit"
    group = f" x {point['tensor_parallel_size']}" if point["tensor_parallel_size"] > 1 else ""
    return f"{_short(point['tokens_per_second'])} {100.0 * point['efficiency']:3.0f}%{group}"


def _stops(rows: list[dict[str, Any]], ways: list[str]) -> str:
    """Where each way falls below the efficiency that pays."""
    found = []
    for way in ways:
        fitting = [row for row in rows if row[way] is not None and row[way]["fits"]]
        below = next((row["devices"] for row in fitting if row[way]["efficiency"] < PAYS), None)
        if fitting:
            found.append(f"{way} " + (f"from {below:,}" if below else "nowhere"))
    below = f"below {100.0 * PAYS:g}%: {', '.join(found) or 'nothing fits'}"
    return f"tokens a second, and their share of what the devices do when each is alone\n{below}"


def _memory(memory: dict[str, Any]) -> Table:
    table = _table("Memory of a rank", "part", "GB")
    *_, last = memory["parts"]
    for part, size in memory["parts"].items():
        table.add_row(part, _gigabytes(size), end_section=part == last)
    table.add_row("all", _gigabytes(memory["rank_bytes"]))
    if memory["fits"] is not None:
        fits = "[green]fits[/]" if memory["fits"] else "[red]does not fit[/]"
        table.add_row(f"of {_gigabytes(memory['device_bytes'])}, nine tenths usable", fits)
    return table


def _ways(memory: dict[str, Any]) -> Table:
    caption = (
        "GB a rank at this micro-batch; x: ranks in groups of tensor parallelism\nagain: activation_checkpointing=true"
    )
    ways = memory["ways"]
    table = _table("Memory by strategy and precision", "", *next(iter(ways.values())), caption=caption)
    for name, sizes in ways.items():
        table.add_row(name, *(_judged(size, memory["usable_bytes"]) for size in sizes.values()))
    return table


def _storage(storage: dict[str, Any]) -> Table:
    refused = storage["refused"]
    caption = None if refused is None else f"[red]`mulligan train` will refuse:[/] {escape(refused)}"
    table = _table("Copies", "", "number", "GB each", "GB", caption=caption)
    for name, number, size in (
        ("snapshots, host memory of a rank", storage["num_snapshots"], storage["snapshot_bytes"]),
        ("copy of a checkpoint, the same", storage["num_checkpoint_copies"], storage["checkpoint_copy_bytes"]),
        ("checkpoints on disk", storage["num_checkpoints"], storage["checkpoint_bytes"]),
    ):
        table.add_row(name, f"{number}", _gigabytes(size), _gigabytes(number * size))
    return table


def _losses(numbers: dict[str, Any]) -> Table:
    caption = CAVEAT + ("\nparameters or tokens lie outside of those" if numbers["extrapolated"] else "")
    table = _table("Expected loss", "law", "nats", caption=caption)
    for source, loss in numbers["losses"].items():
        table.add_row(source, f"{loss:.3f}")
    return table


def _optima(numbers: dict[str, Any]) -> Table:
    caption = "loss by Besiroglu's fit"
    table = _table("Best use of this compute", "law", "parameters", "tokens", "tokens/param", "loss", caption=caption)
    for source, best in numbers["optima"].items():
        counts = [_short(best["params"]), _short(best["tokens"]), f"{best['tokens_per_parameter']:.1f}"]
        table.add_row(source, *counts, f"{best['loss']:.3f}")
    return table


def _smaller(same: dict[str, Any]) -> Table:
    caption = (
        f"by Besiroglu's fit; this plan takes {same['own_training_ratio']:.2f} x the training of the first row\n"
        "pays after: tokens of inference that save what the longer training takes more"
    )
    title = f"The same loss of {same['loss']:.3f}, cheaper to use"
    table = _table(title, "parameters", "tokens", "training", "inference", "pays after", caption=caption)
    table.add_row(_short(same["best"]["params"]), _short(same["best"]["tokens"]), "1 x", "1 x", "-")
    for one in same["smaller"]:
        table.add_row(
            _short(one["params"]),
            _short(one["tokens"]),
            f"{one['training_ratio']:.2f} x",
            f"{1.0 - one['saved_share']:.2f} x",
            _short(one["pays_after_tokens"]),
        )
    return table


def _judged(size: float, usable: float | None) -> str:
    if usable is None:
        return _gigabytes(size)
    return f"[{'green' if size <= usable else 'red'}]{_gigabytes(size)}[/]"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f}" if size >= 1e7 else f"{size / 1e9:.4f}"


def _short(number: float) -> str:
    """Three digits and a unit, or a power of ten where there is none."""
    for size, unit in UNITS:
        if size <= number < 1e18:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g} "


def _duration(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "min")):
        if seconds >= 2.0 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.3g} s"
