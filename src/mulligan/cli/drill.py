"""``mulligan drill``: faults on purpose, one run each, and what the guard made of them."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from mulligan.cli.compose import build, plain
from mulligan.cli.console import Console, Reporter
from mulligan.cli.output import output_path
from mulligan.cli.record import write_record
from mulligan.cli.train import quiet_lightning
from mulligan.files import write_json
from mulligan.launcher import is_launched_rank_zero
from mulligan.report.drill import Outcome, outcome_of, summary_of
from mulligan.stability.ledger import Ledger
from mulligan.training.callbacks.stability import Halted
from mulligan.training.faults import Fault
from mulligan.training.run import TrainingRun

CLEAN = "clean"  # the run without a fault
LEGEND = (
    "after: steps from the fault to the first that was acted on\n"
    "false: acts before the fault; lost: tokens of the steps given up\n"
    "final: held-out nats at the end; against: those of the run without a fault"
)


class Drill:
    """The schema of conf/drill.yaml; the keys of conf/train.yaml are left to the runs, each of which is built anew."""

    def __init__(
        self, *, faults: dict[str, Fault], only: list[str] | None, output: str | None, **training: Any
    ) -> None:
        for name, fault in faults.items():
            if not isinstance(fault, Fault) or name == CLEAN:
                raise ValueError(
                    f"faults.{name}={fault} must be a fault of mulligan.training.faults, not named {CLEAN}"
                )
        for name in only or ():
            if name not in faults:
                raise ValueError(f"only: there is no fault {name!r}; choose from {', '.join(faults)}")
        self.faults = {name: fault for name, fault in faults.items() if only is None or name in only}
        self.output = output_path(output)
        self.validates_every_n_steps: int = training["validate_every_n_steps"]

    def check(self, run: TrainingRun) -> None:
        """Raise ValueError where ``run`` has no place for a fault, or no validation at its end."""
        if run.num_steps % self.validates_every_n_steps:
            raise ValueError(
                f"validate_every_n_steps={self.validates_every_n_steps} must divide the run's {run.num_steps} steps: "
                f"the last validation gives the final loss"
            )
        for name, fault in self.faults.items():
            if fault.at_step > run.num_steps:
                raise ValueError(f"faults.{name}.at_step={fault.at_step} is beyond the run's {run.num_steps} steps")
            if fault.rank is not None and fault.rank >= run.num_ranks:
                raise ValueError(
                    f"faults.{name}.rank={fault.rank} must be below the number of ranks, {run.num_ranks}, or null"
                )


def work(config: DictConfig) -> None:
    quiet_lightning()
    plan: Drill = build(plain(config))
    plan.check(build(_content(config, CLEAN)))
    folder, speaks = Path(config.folder), is_launched_rank_zero()
    if speaks:
        _make(folder)
    outcomes: dict[str, Outcome] = {}
    for name in (CLEAN, *plan.faults):
        if speaks:
            print(f"\n{folder / name}: run {len(outcomes) + 1} of {1 + len(plan.faults)}", flush=True)
        content = _content(config, name)
        run: TrainingRun = build(content)
        loss = _train(run, content, speaks)
        outcomes[name] = outcome_of(
            Ledger(run.folder / "ledger.jsonl", writes=False),
            began=_began(run),
            tokens_per_step=run.tokens_per_step,
            loss=loss,
            clean_loss=outcomes[CLEAN].loss if outcomes else loss,
        )
    if speaks:
        _tell(outcomes, plan.output)


def _content(config: DictConfig, name: str) -> dict[str, Any]:
    """The plain config of one run."""
    own = config.copy()
    own.folder, own.name = f"{config.folder}/{name}", f"{config.name}/{name}"
    content = plain(own)
    faults = content.pop("faults")
    for key in ("only", "output"):
        content.pop(key)
    if name != CLEAN:
        content["callbacks"]["fault"] = faults[name]
    return content | {"_target_": "mulligan.training.run.TrainingRun"}


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ValueError(f"{folder} is there already: remove it, or give the drill another name") from None


def _train(run: TrainingRun, content: dict[str, Any], speaks: bool) -> float | None:
    """Cross-entropy in nats of the validation at the end; None for a run that was halted."""

    def say(text: str) -> None:
        if speaks:
            print(text, flush=True)

    try:
        with Reporter(speaks=speaks) as report:
            run.train(report, say, begun=lambda: write_record(run.folder, content))
    except Halted as halted:
        say(str(halted))
        return None
    return run.metrics.latest_validation["val_cross_entropy"]


def _began(run: TrainingRun) -> int | None:
    return next((callback.began for callback in run.callbacks if isinstance(callback, Fault)), None)


def _tell(outcomes: dict[str, Outcome], output: Path | None) -> None:
    if output is not None:
        write_json(output, {name: outcome._asdict() for name, outcome in outcomes.items()})
    Console().print(_table(outcomes))


def _table(outcomes: dict[str, Outcome]) -> Table:
    table = Table(show_edge=False, caption=LEGEND, caption_justify="left")
    table.add_column("fault", no_wrap=True)
    table.add_column("answer")
    for heading in ("after", "false", "lost", "final", "against"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, outcome in outcomes.items():
        table.add_row(
            name,
            summary_of(outcome.answers),
            "-" if outcome.delay is None else f"{outcome.delay}",
            f"{outcome.false_alarms}",
            f"{outcome.tokens_lost:,}",
            "halted" if outcome.loss is None else f"{outcome.loss:.3f}",
            "-" if outcome.excess_percent is None else f"{outcome.excess_percent:+.1f}%",
        )
    return table
