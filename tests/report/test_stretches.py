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


def test_a_deeper_rewind_gives_up_what_was_kept_by_the_one_before() -> None:
    deeper = REWIND | {"attempt": 14, "step": 11, "target": 5}
    assert list(stretches([REWIND, deeper], 20)) == [Stretch(0, 5, True), Stretch(5, 14, False), Stretch(14, 20, True)]
    shallower = REWIND | {"attempt": 22, "step": 13, "target": 7}
    assert list(stretches([REWIND, deeper, shallower], 24)) == [
        Stretch(0, 5, True),
        Stretch(5, 14, False),
        Stretch(14, 16, True),
        Stretch(16, 22, False),
        Stretch(22, 24, True),
    ]
