"""``mulligan inspect ... test=counterfactual``: train through the batches of an intervention again, three ways."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from mulligan.cli.compose import build
from mulligan.cli.console import Console, Reporter
from mulligan.cli.record import played_again
from mulligan.cli.recorded_data import on_recorded_data
from mulligan.cli.saved_run import SavedRun
from mulligan.cli.train import quiet_lightning
from mulligan.report.run_files import json_lines
from mulligan.training.counterfactual import Outcome, arms, try_out, verdict, write_start


def counterfactual(run: SavedRun, entry: dict[str, Any], updates: range, console: Console) -> dict[str, Any]:
    """Try the batches of ``updates`` and the state before them together and apart, and show the verdict."""
    number = entry["number"]
    near = run.newest_before(updates[0], num_lines=number, written_then=True)
    if near is None:
        raise ValueError(
            f"test=counterfactual: {run.folder} has no checkpoint from before step {updates[0]} left; keep more "
            "(checkpoint.keep_last, checkpoint.milestone_every_n_steps)"
        )
    quiet_lightning()
    ledger, shards = run.ledger.before(number), run.training_shards()
    far = run.newest_before(near.step, num_lines=number, written_then=True)
    outcomes = []
    with Reporter(speaks=True) as report:
        sequencer = run.sequencer(shards, ledger.skips)
        tried = arms(updates, entry.get("skip", [0, 0])[1], sequencer, run.global_batch, near, far)
        for done, arm in enumerate(tried):
            report("trying", done, len(tried))
            with TemporaryDirectory() as folder:
                write_start(arm, ledger, Path(folder))
                content = played_again(run.recorded, Path(folder), alone=True) | {"micro_batch": micro_batch_of(run)}
                outcomes.append(try_out(arm, build(on_recorded_data(content, run.folder))))
        report("trying", len(tried), len(tried))
    _show(outcomes, console)
    return {
        "arms": [
            {"batches": one.arm.batches, "state": one.arm.state, "state_of_step": one.arm.start.step}
            | {"highest_rise": one.rise, "spiked": one.spiked}
            for one in outcomes
        ],
        "verdict": verdict(outcomes),
    }


def micro_batch_of(run: SavedRun) -> int:
    """The samples that a rank of the run's latest start held at once: one process may have no room for more."""
    given: int | None = run.recorded["micro_batch"]
    if given is not None:
        return given
    starts, strategy = json_lines(run.folder / "provenance.jsonl"), run.recorded["trainer"]["strategy"]
    ranks = starts[-1]["world_size"] if starts else 1
    return run.global_batch * (strategy.get("tensor_parallel_size", 1) if isinstance(strategy, dict) else 1) // ranks


def _show(outcomes: list[Outcome], console: Console) -> None:
    table = Table(show_edge=False)
    for heading in ("batches", "state", "of step", "highest rise", "spiked"):
        table.add_column(heading)
    for one in outcomes:
        rise = f"{one.rise:+.3f} nats" if one.rise < float("inf") else "not finite"
        table.add_row(one.arm.batches, one.arm.state, str(one.arm.start.step), rise, "yes" if one.spiked else "no")
    console.print(table)
    console.print(f"verdict: {verdict(outcomes)}", soft_wrap=True)
