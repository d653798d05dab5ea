"""``mulligan backtest curve=FILE``: what our detector and other frameworks' rules make of a recorded loss curve."""

from bisect import bisect_left
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from mulligan.cli.compose import build, plain
from mulligan.cli.console import Console
from mulligan.cli.output import output_path
from mulligan.cli.record import read_record
from mulligan.files import write_json
from mulligan.report.backtest import Score, Span, find_spikes, given_spikes, in_steps, judge, recorded_spikes
from mulligan.report.curve import Curve, read_curve
from mulligan.stability.detector import Detector
from mulligan.stability.ledger import Ledger
from mulligan.stability.rules import every_rule
from mulligan.training.callbacks.stability import Guard

SHOWN_SPIKES = 5
LEGEND = (
    "caught, missed: spikes; after: median steps from their start to the first alarm\n"
    "false: alarms that touch no spike; outside: points under alarm beside spikes"
)


class Backtest:
    """The schema of conf/backtest.yaml. ``stability`` is what a run would be healed by; its detector is judged."""

    def __init__(
        self,
        *,
        curve: str,
        stability: Guard,
        spikes: list[list[int]] | None,
        min_rise: float,
        step_column: str | None,
        loss_column: str | None,
        norm_column: str | None,
        output: str | None,
    ) -> None:
        self.path, self.output = Path(curve), output_path(output)
        self.curve: Curve = read_curve(
            self.path, step_column=step_column, loss_column=loss_column, norm_column=norm_column
        )
        self.origin = "given"
        self.guarded_by: list[str] = []
        if self.path.is_dir():
            self.guarded_by = _other_settings(read_record(self.path) or {}, stability.detector)
        if spikes is None:
            ledger = recorded_spikes(Ledger(self.path / "ledger.jsonl", writes=False)) if self.path.is_dir() else []
            spikes = [spike for spike in ledger if len({bisect_left(self.curve.steps, step) for step in spike}) > 1]
            self.origin = "in the ledger" if spikes else "seen in hindsight"
            if len(spikes) < len(ledger):
                self.origin += f" ({len(ledger) - len(spikes)} of the ledger's lie between the steps that were logged)"
        self.spikes: list[Span] = (
            given_spikes(self.curve, spikes) if spikes else find_spikes(self.curve, min_rise=min_rise)
        )
        self.rules = every_rule(stability.detector, num_steps=len(self.curve.steps))

    def scores(self) -> dict[str, Score | None]:
        return {name: judge(rule, self.curve, self.spikes) for name, rule in self.rules.items()}


def _other_settings(recorded: dict[str, Any], detector: Detector) -> list[str]:
    """Keys of the detector that a run was guarded by, with their values, where ``detector`` has others."""
    own = (recorded.get("stability") or {}).get("detector", {})
    return [
        f"stability.detector.{key}={value}"
        for key, value in own.items()
        if key != "_target_" and value != getattr(detector, key)
    ]


def work(config: DictConfig) -> None:
    test: Backtest = build(plain(config))
    console = Console()
    console.print(_opening(test), markup=False, highlight=False, soft_wrap=True)
    if test.guarded_by:
        told = f"the run's own detector had {' '.join(test.guarded_by)}: give these too to judge as it did"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    scores = test.scores()  # of a million points that takes a minute or more
    if test.output is not None:
        write_json(test.output, _numbers(test, scores))
    console.print(_table(scores))


def _opening(test: Backtest) -> str:
    steps, spikes = test.curve.steps, in_steps(test.curve, test.spikes)
    shown = ", ".join(map(str, spikes[:SHOWN_SPIKES])) + (", ..." if len(spikes) > SHOWN_SPIKES else "")
    return (
        f"{test.path}: {len(steps):,} points from step {steps[0]} to {steps[-1]}; {len(spikes)} spike(s) "
        f"{test.origin}{': ' if spikes else ''}{shown}"
    )


def _table(scores: dict[str, Score | None]) -> Table:
    table = Table(show_edge=False, caption=LEGEND, caption_justify="left")
    table.add_column("rule", no_wrap=True)
    for heading in ("caught", "after", "missed", "false", "/1,000", "outside"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, score in scores.items():
        if score is None:
            table.add_row(name, *["-"] * 6)
            continue
        delay = "-" if score.median_delay is None else f"{score.median_delay:g}"
        table.add_row(
            name,
            f"{len(score.delays)}",
            delay,
            f"{score.missed}",
            f"{score.false_alarms}",
            f"{score.false_alarms_per_1000:.2f}",
            f"{score.alarmed_outside:,}",
        )
    return table


def _numbers(test: Backtest, scores: dict[str, Score | None]) -> dict[str, Any]:
    """Steps in half-open ranges; a rule that could not judge the curve is null."""
    return {
        "curve": str(test.path),
        "num_points": len(test.curve.steps),
        "spikes": in_steps(test.curve, test.spikes),
        "rules": {
            name: None
            if score is None
            else {
                "caught": len(score.delays),
                "median_delay_steps": score.median_delay,
                "missed": score.missed,
                "false_alarms": score.false_alarms,
                "false_alarms_per_1000": score.false_alarms_per_1000,
                "points_alarmed_outside": score.alarmed_outside,
                "alarms": in_steps(test.curve, score.alarms),
            }
            for name, score in scores.items()
        },
    }
