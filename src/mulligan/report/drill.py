"""What a run with a fault came to, from its ledger and the run without one."""

import math
from collections import Counter
from typing import NamedTuple

from mulligan.stability.ledger import Ledger


class Outcome(NamedTuple):
    """``began`` is the attempt in which the fault first acted, ``delay`` the steps from there to the first one that the
    guard acted on, ``answers`` the kinds of its acts since; None: the fault never came, or nothing was done about it.
    ``loss`` is None for a run that was halted, ``excess_percent`` also where there is no finite loss to compare.
    """

    began: int | None
    delay: int | None
    answers: list[str]
    false_alarms: int
    tokens_lost: int
    loss: float | None
    excess_percent: float | None


def outcome_of(
    ledger: Ledger, *, began: int | None, tokens_per_step: int, loss: float | None, clean_loss: float | None
) -> Outcome:
    """What the guard did before the fault, and all that it did in a run without one, are false alarms."""
    judged = [(entry["attempt"] - entry["step"] + entry["judged_step"], entry["kind"]) for entry in ledger.entries]
    answers = [(attempt, kind) for attempt, kind in judged if began is not None and attempt >= began]
    excess = None if loss is None or clean_loss is None else 100.0 * (loss / clean_loss - 1.0)
    return Outcome(
        began=began,
        delay=answers[0][0] - began if answers and began is not None else None,
        answers=[kind for _, kind in answers],
        false_alarms=len(judged) - len(answers),
        tokens_lost=ledger.lost_steps * tokens_per_step,
        loss=loss,
        excess_percent=excess if excess is not None and math.isfinite(excess) else None,
    )


def summary_of(answers: list[str]) -> str:
    """``withheld x2, rewind`` for what was done in that order."""
    return ", ".join(kind if count == 1 else f"{kind} x{count}" for kind, count in Counter(answers).items()) or "-"
