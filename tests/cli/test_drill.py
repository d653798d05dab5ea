"""``mulligan drill`` as a user runs it: a run without a fault, one run a fault, a table and the numbers as JSON."""

import json
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.training.conftest import run_program

SHORT = (
    "max_steps=12", "checkpoint.every_n_steps=6", "logger=none", "faults.no_number.at_step=8",
    "faults.no_number.num_steps=1", "faults.plateau.at_step=10",
)  # fmt: skip


@pytest.fixture
def drill(tiny: tuple[str, ...], here: Cli) -> Cli:
    return lambda *options: here("drill", *tiny, *SHORT, *options)


def rows(printed: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines() if "│" in line]
    return {name: row for name, *row in cells}


def test_two_faults_and_a_second_drill_of_the_same_name(drill: Cli) -> None:
    done = drill("only=[no_number,plateau]", "faults.plateau.size=3.0", "output=numbers.json")
    assert done.returncode == 0, done.stderr
    table, numbers = rows(done.stdout), json.loads(Path("numbers.json").read_text())
    assert list(table) == ["clean", "no_number", "plateau"]
    assert table["clean"][:4] == ["-", "-", "0", "0"]
    assert table["no_number"][:4] == ["withheld", "0", "0", "0"]
    assert numbers["clean"]["excess_percent"] == 0.0
    assert numbers["no_number"]["began"] == 8
    assert numbers["plateau"]["answers"] == [], "the detector has not warmed up"
    assert numbers["plateau"]["loss"] > numbers["clean"]["loss"]
    assert "at_step: 10" in Path("runs/drill/plateau/config.yaml").read_text()

    done = drill("only=[no_number,plateau]")
    assert done.returncode == 2
    assert "runs/drill is there already: remove it, or give the drill another name" in done.stderr


def test_a_halt_is_a_result(drill: Cli) -> None:
    done = drill("only=[no_number]", "stability.policy.rewind=false", "stability.policy.max_withheld=0")
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)["no_number"] == ["halt", "0", "0", f"{(9 - 6) * 4 * 32}", "halted", "-"]


def test_a_run_that_nobody_guards(drill: Cli) -> None:
    done = drill("only=[no_number]", "stability=none", "output=numbers.json")
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout)["no_number"] == ["-", "-", "0", "0", "nan", "-"]
    assert json.loads(Path("numbers.json").read_text())["no_number"]["loss"] is None


@pytest.mark.slow
def test_a_fault_of_one_of_two_ranks_is_answered_by_both(tiny: tuple[str, ...], tmp_path: Path) -> None:
    options = ("only=[no_number]", "faults.no_number.rank=1", "trainer=cpu_ddp", "output=numbers.json")
    said = run_program(tmp_path, "-m", "mulligan", "drill", *tiny, *SHORT, *options)
    assert said.count("run 2 of 2") == 1, "both ranks spoke"
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["clean"]["answers"] == []
    assert (numbers["no_number"]["began"], numbers["no_number"]["answers"]) == (8, ["withheld"])
