"""How an intervention is written down and told."""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from lightning.pytorch import Trainer

from mulligan.stability.detector import Judgement
from mulligan.training.event_logger import event_loggers
from mulligan.training.judging import Verdict


def circumstances(
    judgement: Judgement,
    *,
    step: int,
    attempt: int,
    gradient_norm: float,
    recent: Iterable[list[float]],
    fingerprints: dict[str, str | None],
) -> dict[str, Any]:
    """What a line of the ledger says of the moment; ``recent`` is the curve: step, loss and norm."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "judged_step": judgement.step,
        "attempt": attempt,
        "trigger": judgement.triggered,
        "loss": judgement.loss,
        "gradient_norm": gradient_norm,
        "centre": judgement.centre,
        "limit": judgement.limit,
        "values": list(recent),
        "fingerprints": fingerprints,
    }


def described(verdict: Verdict) -> str:
    """A spike in words: ``step 10: spike (loss, from step 9 on, loss 5.912)``."""
    judgement, norm = verdict.judgement, verdict.gradient_norm
    loss = f"{judgement.loss:.3f}" if math.isfinite(judgement.loss) else "not finite"
    if judgement.triggered == "not finite" and math.isfinite(judgement.loss):
        loss += " but a gradient norm that is not"
    if judgement.triggered == "gradient":
        loss += f", gradient norm {norm:.3g}"
    return f"step {judgement.step}: spike ({judgement.triggered}, from step {judgement.onset} on, loss {loss})"


def judged_numbers(verdict: Verdict) -> dict[str, float]:
    """For the loggers: a rewind drops what they would have been told of these steps."""
    judgement = verdict.judgement
    return {
        "judged_step": float(judgement.step),
        "judged_loss": judgement.loss,
        "judged_gradient_norm": verdict.gradient_norm,
    }


def tell(
    trainer: Trainer,
    say: Callable[[str], None],
    text: str,
    *,
    attempt: int,
    entries: Sequence[dict[str, Any]],
    numbers: dict[str, float],
) -> None:
    """One line for the console, ``numbers`` for each logger, and the ledger's ``entries`` for those that take more."""
    say(text)
    if not trainer.is_global_zero:
        return
    step = trainer.global_step
    event = numbers | {"interventions": float(len(entries)), "step": float(step), "attempt": float(attempt)}
    for logger in trainer.loggers:
        logger.log_metrics(event, step=step)
    for logger in event_loggers(trainer.loggers):
        logger.note_intervention(text, entries)
