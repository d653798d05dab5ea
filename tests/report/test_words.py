"""The lines of a ledger as sentences."""

from typing import Any

import pytest

from mulligan.report.words import told
from tests.report.conftest import REWIND

ENTRY = REWIND | {"number": 3}


def test_a_rewind() -> None:
    one = told(ENTRY | {"kind": "rewind"}, tokens_per_step=1000)
    assert (one.number, one.kind, one.attempt) == (3, "rewind", 11)
    assert one.seen == "The loss was 9.00 nats where the limit was 3.50, from step 10 on; sure at step 10."
    assert one.done == "Went back to the state of step 8 and left out the samples 32 to 43."
    assert one.cost == "3 steps, 3,000 tokens read for nothing. 12 samples are never read again."


def test_a_spike_that_came_back_and_cut_the_rate() -> None:
    one = told(ENTRY | {"kind": "rewind", "level": 2, "rate_factor": 0.5, "rate_steps": 500}, tokens_per_step=1000)
    assert one.done.startswith("The spike had come back (level 2). Went back")
    assert one.done.endswith(" The learning rate is 0.5 times as high for 500 steps.")


@pytest.mark.parametrize(
    ("entry", "seen"),
    [
        ({"trigger": "not finite", "loss": None}, "The loss was no finite number, from step 10 on; sure at step 10."),
        ({"trigger": "not finite"}, "The gradient norm was no finite number, from step 10 on; sure at step 10."),
        ({"limit": None}, "The loss was 9.00 nats, from step 10 on; sure at step 10."),
        ({"trigger": "gradient"}, "Too many bad gradients, from step 10 on; sure at step 10."),
    ],
)
def test_what_was_seen(entry: dict[str, Any], seen: str) -> None:
    assert told(ENTRY | {"kind": "rewind"} | entry, tokens_per_step=1).seen == seen


def test_a_withheld_update_and_a_halt() -> None:
    withheld = told(ENTRY | {"kind": "withheld", "gradient_norm": None}, tokens_per_step=1000)
    assert withheld.kind == "update withheld"
    assert withheld.seen == "The gradient norm of step 10 was not finite; the loss was 9.00 nats."
    assert withheld.done == "The update of step 10 was left out; no weight moved."
    halt = told(ENTRY | {"kind": "halt"}, tokens_per_step=1000)
    assert halt.done == "The run was halted at the state of step 8."
    assert "3,000 tokens" in halt.cost
    assert "no good state was left" in told(ENTRY | {"kind": "halt", "target": 11}, tokens_per_step=1).done
