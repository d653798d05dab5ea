"""``mulligan inspect run=runs/NAME``: what was done to a run; with ``intervention=K`` why, sample by sample."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from mulligan.cli.compose import build, plain
from mulligan.cli.console import Reporter
from mulligan.cli.counterfactual import counterfactual
from mulligan.cli.inspection_view import (
    losses_of,
    make_console,
    repeated_text,
    show_circumstances,
    show_curve,
    show_interventions,
    show_offenders,
)
from mulligan.cli.marked_text import pieces
from mulligan.cli.output import output_path
from mulligan.cli.saved_run import SavedRun
from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.offenders import Offender, offenders
from mulligan.files import write_json


class Inspection:
    """The schema of conf/inspect.yaml."""

    def __init__(
        self,
        *,
        run: str,
        intervention: int | None,
        test: Literal["counterfactual"] | None,
        top: int,
        characters: int,
        max_steps: int,
        output: str | None,
    ) -> None:
        for key, number in (("top", top), ("characters", characters), ("max_steps", max_steps)):
            if number < 1:
                raise ValueError(f"{key}={number} must be at least 1")
        self.run = SavedRun(Path(run))
        self.run.check_ledger()
        self.entries = self.run.ledger.entries
        if intervention is not None and not self.entries:
            raise ValueError(f"intervention={intervention}: nothing was done to run={run}, its ledger has no line")
        if intervention is not None and not 0 <= intervention < len(self.entries):
            raise ValueError(
                f"intervention={intervention} must be in [0, {len(self.entries) - 1}], or null for a table of all"
            )
        if test is not None and (intervention is None or "onset" not in self.entries[intervention]):
            raise ValueError(f"test={test} needs intervention=NUMBER, that of a rewind or a halt")
        if test is not None and not self.run.is_watched:
            raise ValueError(f"test={test} needs a detector, and run={run} went on with stability=none")
        self.intervention, self.test, self.top, self.characters, self.max_steps = (
            intervention,
            test,
            top,
            characters,
            max_steps,
        )
        self.output = output_path(output)


def suspects(entry: dict[str, Any]) -> range:
    """The updates that an intervention holds to be bad: from the onset to the last one made, or the withheld one."""
    if entry["kind"] == "withheld":
        return range(entry["judged_step"], entry["judged_step"] + 1)
    return range(entry["onset"], entry["step"] + 1)


def work(config: DictConfig) -> None:
    inspection: Inspection = build(plain(config))
    if inspection.intervention is None:
        if inspection.entries:
            show_interventions(make_console(), inspection.entries)
        else:
            why = "its ledger has no line" if inspection.run.is_watched else "its loss was not watched (stability=none)"
            print(f"nothing was done to {inspection.run.folder}: {why}")
        content: Any = {"interventions": inspection.entries}
    else:
        content = _inspect_one(inspection, inspection.entries[inspection.intervention])
    if inspection.output is not None:
        write_json(inspection.output, content)
        print(f"{inspection.output} holds all of it")


def _inspect_one(inspection: Inspection, entry: dict[str, Any]) -> dict[str, Any]:
    """Show one intervention, and return what was shown as plain JSON."""
    run, console, number = inspection.run, make_console(), entry["number"]
    show_circumstances(console, entry)
    show_curve(console, entry)
    steps = suspects(entry)
    if inspection.test is not None:
        return {"intervention": entry, inspection.test: counterfactual(run, entry, steps, console)}
    judged = steps[: inspection.max_steps]
    before = run.newest_before(steps[0], num_lines=number)
    checkpoint = before or run.newest
    away = checkpoint.step - steps[0]
    state = f"the state of step {checkpoint.step}, {abs(away)} {'before' if away < 0 else 'after'} the first"
    if before is None:
        state += ": the newest, as none that led to them is left"
    shards, tokenizer = run.training_shards(), run.tokenizer()
    with Reporter(speaks=True) as report:
        found = offenders(
            run.model(checkpoint),
            shards,
            run.sequencer(shards, run.ledger.before(number).skips),
            judged,
            global_batch=run.global_batch,
            begin_id=tokenizer.begin_id,
            document_mask=run.document_mask,
            autocast_dtype=run.autocast_dtype,
            report=partial(report, "judging"),
        )
    left_out = f" of {len(steps)} (max_steps={inspection.max_steps})" if len(judged) < len(steps) else ""
    console.print(
        f"{len(found)} samples of the updates {judged[0]} to {judged[-1]}{left_out}, judged by {state}", soft_wrap=True
    )
    losses = [one.score.loss for one in found if one.step == entry["judged_step"]]
    if losses and entry["loss"] is not None:  # far apart: the cause lies in the state, or between data and model
        mean = sum(losses) / len(losses)
        console.print(f"step {entry['judged_step']}: {mean:.3f} in that state, {entry['loss']:.3f} in the run")
    show_offenders(console, found, tokenizer, top=inspection.top, characters=inspection.characters)
    return {
        "intervention": entry,
        "judged_by": {"checkpoint": str(checkpoint.path), "step": checkpoint.step},
        "samples": [_as_json(one, tokenizer, with_text=one.rank <= inspection.top) for one in found],
    }


def _as_json(one: Offender, tokenizer: Tokenizer, *, with_text: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "sample": one.sample,
        "step": one.step,
        "loss": one.score.loss,
        "gradient_norm": one.score.gradient_norm,
        "rank_by_loss": one.loss_rank,
        "rank_by_gradient_norm": one.norm_rank,
        "place": one.place._asdict(),
        "repetition": one.repetition._asdict() | {"text": repeated_text(one, tokenizer)},
    }
    if with_text:
        content["text"] = [[piece.text, piece.loss] for piece in pieces(tokenizer, one.tokens.tolist(), losses_of(one))]
    return content
