"""The band that the detector held each loss against, found again from a curve of every attempt and the ledger."""

import math
from typing import NamedTuple

from mulligan.report.metrics import Column
from mulligan.stability.detector import Detector
from mulligan.stability.ledger import Ledger


class Band(NamedTuple):
    """Nats, one for each attempt; NaN where the detector did not judge."""

    attempts: list[int]
    centres: list[float]
    limits: list[float]


def band_of(detector: Detector, losses: Column, ledger: Ledger) -> Band | None:
    """Let a fresh ``detector`` see ``losses`` as the run's own did: after a rewind it is what it was at the target.

    None unless every judged loss was logged: a mean over several steps is not what the detector saw. The last attempt
    before a rewind is neither judged nor logged.
    """
    back = {entry["attempt"]: entry for entry in ledger.entries if "target" in entry}
    if set(range(1, losses.attempts[-1] + 1)) - set(losses.attempts) - back.keys():
        return None
    loss_of = dict(zip(losses.attempts, losses.values, strict=True))
    states = {entry["target"]: detector.state_dict() for entry in back.values()}
    band, step, past = Band([], [], []), 0, ledger.before(0)
    for attempt in range(1, losses.attempts[-1] + 1):
        centre = limit = math.nan
        if attempt in back:
            step, past = back[attempt]["target"], ledger.before(back[attempt]["number"] + 1)
            detector.load_state_dict(states[step])
        else:
            step += 1
            if past.rate_factor(step - 1) > past.rate_factor(step - 2):
                detector.reset()  # as the guard does where a cut of the rate ends
            centre, limit = detector.observe(step, loss_of[attempt], None)[2:4]
            if step in states:
                states[step] = detector.state_dict()
        band.attempts.append(attempt)
        band.centres.append(centre)
        band.limits.append(limit)
    return band
