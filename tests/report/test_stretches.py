"""What was kept is told from what was given up."""

from mulligan.report.stretches import Stretch, stretches

REWIND = {"kind": "rewind", "attempt": 11, "step": 11, "target": 8}


def test_stretches_are_kept_or_given_up() -> None:
    again = REWIND | {"attempt": 20, "step": 17, "target": 15}
    assert list(stretches([], 5)) == [Stretch(0, 5, True)]
    assert list(stretches([REWIND], 8)) == [Stretch(0, 8, True)]  # what is drawn ends before what was given up
    assert list(stretches([REWIND], 9)) == [Stretch(0, 8, True), Stretch(8, 9, False)]
    assert list(stretches([REWIND, {"kind": "withheld", "attempt": 12}, again], 22)) == [
        Stretch(0, 8, True),
        Stretch(8, 11, False),
        Stretch(11, 18, True),
        Stretch(18, 20, False),
        Stretch(20, 22, True),
    ]
