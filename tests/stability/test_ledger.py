"""The ledger: chained, durable, and all that a run does differently follows from its lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from mulligan.stability.ledger import Ledger

REWIND: dict[str, Any] = {
    "step": 120, "judged_step": 119, "onset": 117, "target": 100, "skip": [800, 1600], "skip_steps": 100, "level": 0,
    "rate_factor": 0.5, "rate_steps": 30,
}  # fmt: skip


def written(path: Path) -> Ledger:
    ledger = Ledger(path)
    ledger.append("withheld", judged_step=60, step=61)
    ledger.append("rewind", **REWIND)
    ledger.append("rewind", **REWIND | {"step": 130, "target": 50, "skip": [400, 1700]})
    return ledger


def test_it_comes_back_as_it_was_written(tmp_path: Path) -> None:
    ledger, again = written(tmp_path / "ledger.jsonl"), Ledger(tmp_path / "ledger.jsonl")
    assert again.lines == ledger.lines
    assert again.entries == ledger.entries
    assert [entry["number"] for entry in again.entries] == [0, 1, 2]


def test_what_follows_from_it(tmp_path: Path) -> None:
    ledger = written(tmp_path / "ledger.jsonl")
    assert ledger.skips == [(800, 1600), (400, 1700)]
    assert ledger.lost_steps == 20 + 80
    assert [ledger.lost_before(step) for step in (50, 51, 90, 110, 140)] == [0, 100, 100, 100, 100]
    assert [ledger.before(2).lost_before(step) for step in (50, 100, 101)] == [0, 0, 20], "made before it went back"
    assert [ledger.rate_factor(step) for step in (49, 50, 79, 80, 100, 129, 130)] == [1, 0.5, 0.5, 1, 0.5, 0.5, 1]
    assert ledger.withheld_steps == set(), "the second rewind went back to before it"
    assert Ledger(tmp_path / "none.jsonl").lost_steps == 0


def test_cuts_of_the_rate_that_overlap_multiply(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for target in (100, 110):
        ledger.append("rewind", **REWIND | {"target": target})
    assert [ledger.rate_factor(step) for step in (109, 110, 129, 130, 140)] == [0.5, 0.25, 0.25, 0.5, 1]


def test_thousands_of_lines_are_looked_at_once(tmp_path: Path) -> None:
    """A run asks at every step, more than once."""

    class Counting(dict[str, Any]):
        looks = 0

        def __getitem__(self, key: str) -> Any:
            Counting.looks += 1
            return super().__getitem__(key)

    ledger = Ledger(tmp_path / "ledger.jsonl", writes=False)
    for step in range(1000):
        ledger.append("withheld", judged_step=step, step=step + 1)
    ledger.entries[:] = map(Counting, ledger.entries)
    assert (ledger.rate_factor(1000), len(ledger.withheld_steps), ledger.lost_steps) == (1.0, 1000, 0)
    assert (ledger.skips, ledger.history) == ([], [])
    assert Counting.looks == 0


def test_what_follows_is_the_same_read_back(tmp_path: Path) -> None:
    ledger = written(tmp_path / "ledger.jsonl")
    ledger.append("withheld", judged_step=50, step=51)
    ledger.append("withheld", judged_step=55, step=56)
    ledger.append("halt", step=56, target=50)
    for other in (ledger, Ledger(tmp_path / "ledger.jsonl"), ledger.before(6)):
        assert (other.withheld_steps, other.lost_steps, len(other.history)) == ({50}, 20 + 80 + 6, 2)


def test_it_can_be_seen_as_it_was(tmp_path: Path) -> None:
    ledger = written(tmp_path / "ledger.jsonl")
    assert [ledger.before(number).skips for number in range(4)] == [[], [], [(800, 1600)], ledger.skips]
    earlier = ledger.before(1)
    assert (earlier.withheld_steps, earlier.lost_steps, earlier.lines) == ({60}, 0, ledger.lines[:1])
    earlier.append("withheld", judged_step=70, step=71)
    assert Ledger(tmp_path / "ledger.jsonl").lines == ledger.lines, "the view wrote"


def test_states_after_a_target_are_abandoned_unless_they_are_younger(tmp_path: Path) -> None:
    ledger = written(tmp_path / "ledger.jsonl")
    assert ledger.abandons(110, num_lines=1)
    assert ledger.abandons(60, num_lines=2)
    assert not ledger.abandons(50, num_lines=0)
    assert not ledger.abandons(110, num_lines=3)
    ledger.append("halt", step=80, target=70)
    assert [ledger.abandons(step, num_lines=3) for step in (70, 71)] == [False, True]


@pytest.mark.parametrize("change", ["value", "order", "lost"])
def test_a_changed_ledger_is_named(tmp_path: Path, change: str) -> None:
    path = tmp_path / "ledger.jsonl"
    lines = written(path).lines
    if change == "value":
        lines[1] = lines[1].replace("1600", "1601")
    elif change == "order":
        lines[0], lines[1] = lines[1], lines[0]
    else:
        del lines[1]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"ledger\.jsonl, line \d: it does not follow from the line before"):
        Ledger(path)


@pytest.mark.parametrize("left", [1, 40])
def test_a_torn_last_line_never_was(tmp_path: Path, left: int) -> None:
    path = tmp_path / "ledger.jsonl"
    lines = written(path).lines
    path.write_text("".join(f"{line}\n" for line in lines[:2]) + lines[2][:left])
    torn = Ledger(path)
    assert torn.lines == lines[:2]
    torn.append("rewind", **REWIND)
    assert Ledger(path).lines == torn.lines
    assert len(torn.lines) == 3


def test_a_copy_must_be_how_it_begins(tmp_path: Path) -> None:
    ledger = written(tmp_path / "ledger.jsonl")
    for count in range(4):
        ledger.check_copy(ledger.lines[:count], "the checkpoint")
    with pytest.raises(ValueError, match="has another line 1, which the checkpoint has a copy of"):
        ledger.check_copy([json.dumps({"number": 0})], "the checkpoint")
    with pytest.raises(ValueError, match="is missing, which the checkpoint has a copy of"):
        Ledger(tmp_path / "none.jsonl").check_copy(ledger.lines, "the checkpoint")
    shorter = Ledger(tmp_path / "ledger.jsonl")
    shorter.lines.pop()
    with pytest.raises(ValueError, match="has lost its line 3"):
        shorter.check_copy(ledger.lines, "the checkpoint")


def test_ranks_that_do_not_write_hold_the_lines(tmp_path: Path) -> None:
    reader = Ledger(tmp_path / "ledger.jsonl", writes=False)
    reader.append("rewind", **REWIND)
    assert reader.skips == [(800, 1600)]
    assert not (tmp_path / "ledger.jsonl").exists()
