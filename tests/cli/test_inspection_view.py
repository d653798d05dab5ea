"""What stands on the screen about one line of a ledger, and that it stays whole without a terminal."""

import io
from typing import Any

from rich.console import Console

from mulligan.cli.inspection_view import show_circumstances, show_curve

REWIND: dict[str, Any] = {
    "number": 2, "kind": "rewind", "trigger": "not finite", "step": 12, "onset": 9, "judged_step": 11, "target": 4,
    "skip": [32, 96], "level": 1, "loss": None, "limit": 2.25, "gradient_norm": 7.0,
    "values": [[8, 2.0, 1.0], [9, 4.0, 3.0], [10, None, None], [11, None, 7.0]],
}  # fmt: skip


def printed(show: Any, entry: dict[str, Any]) -> list[str]:
    file = io.StringIO()
    show(Console(file=file, width=20), entry)
    return file.getvalue().splitlines()


def test_circumstances_are_two_lines() -> None:
    assert printed(show_circumstances, REWIND) == [
        "intervention 2: rewind at step 12, back to step 4, without the samples 32 to 95, level 1",
        "trigger not finite, onset 9, judged step 11: loss not finite, limit 2.25, gradient norm 7",
    ]
    withheld = {key: REWIND[key] for key in ("number", "step", "judged_step", "loss", "limit", "gradient_norm")}
    assert printed(show_circumstances, withheld | {"kind": "withheld", "trigger": None}) == [
        "intervention 2: withheld at step 12",
        "trigger -, judged step 11: loss not finite, limit 2.25, gradient norm 7",
    ]


def test_the_curve_has_both_axes_and_marks() -> None:
    lines = printed(show_curve, REWIND)
    assert lines[1] == "        4 ┤ █!!"
    assert lines[6] == "        2 ┤▁█  "
    assert lines[8] == "        7 ┤  !█"
    assert lines[-2:] == ["          └─o─t", "           steps 8 to 11  o: step 9  t: step 11"]


def test_a_ledger_of_before_has_no_curve() -> None:
    assert printed(show_curve, {key: value for key, value in REWIND.items() if key != "values"}) == []
    assert printed(show_curve, REWIND | {"values": []}) == []
