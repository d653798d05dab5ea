"""What was done to a run, a sentence for each question: what was seen, what was done, what it cost."""

from typing import Any, NamedTuple

KINDS = {"withheld": "update withheld"}


class Told(NamedTuple):
    number: int
    kind: str
    attempt: int
    seen: str
    done: str
    cost: str


def told(entry: dict[str, Any], *, tokens_per_step: int) -> Told:
    """One line of a ledger."""
    say = {"withheld": _withheld, "rewind": _rewind, "halt": _halt}[entry["kind"]]
    done, cost = say(entry, tokens_per_step)
    seen = _bad_gradient(entry) if entry["kind"] == "withheld" else _spike(entry)
    return Told(entry["number"], KINDS.get(entry["kind"], entry["kind"]), entry["attempt"], seen, done, cost)


def _withheld(entry: dict[str, Any], tokens_per_step: int) -> tuple[str, str]:
    done = f"The update of step {entry['judged_step']:,} was left out; no weight moved."
    return done, f"One update: {tokens_per_step:,} tokens read without effect."


def _rewind(entry: dict[str, Any], tokens_per_step: int) -> tuple[str, str]:
    (start, stop), target = entry["skip"], entry["target"]
    done = f"Went back to the state of step {target:,} and left out the samples {start:,} to {stop - 1:,}."
    if entry["level"]:
        done = f"The spike had come back (level {entry['level']}). {done}"
    if entry["rate_steps"]:
        done += f" The learning rate is {entry['rate_factor']:g} times as high for {entry['rate_steps']:,} steps."
    return done, f"{_lost(entry, tokens_per_step)} {stop - start:,} samples are never read again."


def _halt(entry: dict[str, Any], tokens_per_step: int) -> tuple[str, str]:
    if entry["step"] == entry["target"]:
        return "The run was halted; no good state was left, and its checkpoints stay.", "Nothing more."
    return f"The run was halted at the state of step {entry['target']:,}.", _lost(entry, tokens_per_step)


def _lost(entry: dict[str, Any], tokens_per_step: int) -> str:
    lost = entry["step"] - entry["target"]
    return f"{lost:,} {'step' if lost == 1 else 'steps'}, {lost * tokens_per_step:,} tokens read for nothing."


def _spike(entry: dict[str, Any]) -> str:
    since = f"from step {entry['onset']:,} on; sure at step {entry['judged_step']:,}"
    if entry["trigger"] == "gradient":
        return f"Too many bad gradients, {since}."
    if entry["trigger"] == "not finite" or entry["loss"] is None:
        what = "The gradient norm" if entry["loss"] is not None else "The loss"
        return f"{what} was no finite number, {since}."
    limit = "" if entry["limit"] is None else f" where the limit was {entry['limit']:.2f}"
    return f"The loss was {entry['loss']:.2f} nats{limit}, {since}."


def _bad_gradient(entry: dict[str, Any]) -> str:
    norm = entry["gradient_norm"]
    size = "was not finite" if norm is None else f"was {norm:.3g}, far above the usual"
    loss = "not finite" if entry["loss"] is None else f"{entry['loss']:.2f} nats"
    return f"The gradient norm of step {entry['judged_step']:,} {size}; the loss was {loss}."
