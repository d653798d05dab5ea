"""The table of runs: whatever state they are in, and what sets them apart."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mulligan.cli.compose import CONF, plain
from mulligan.cli.record import read_record, write_record
from mulligan.cli.runs import set_apart
from mulligan.files import exclusive, write_json
from mulligan.stability.ledger import Ledger
from tests.conftest import TINY, Cli

OVERRIDES = {
    "finished": ("model=tiny", "name=finished", "optimizer.lr=1e-3"),
    "nested/halfway": ("model=tiny", "name=nested/halfway", "optimizer.lr=2e-3"),
    "begun": ("model=tiny", "optimizer.lr=3e-3", "seed=4"),
}
REWIND = {
    "kind": "rewind", "step": 3, "attempt": 3, "target": 1, "judged_step": 2, "onset": 2, "trigger": "loss",
    "loss": 9.0, "limit": 5.0, "gradient_norm": 1.0, "time": "2026-01-01", "skip": [4, 12],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of eight steps: one finished, one at step 2 after a rewind, one that logged nothing, and one torn."""
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        content = plain(compose("train", overrides=[*TINY, "data.sources.files.paths=[none]"]))
    for name, overrides in OVERRIDES.items():
        write_record(Path("runs", name), content | {"checkpoint": {"folder": f"runs/{name}/checkpoints"}})
        Path("runs", name, "provenance.jsonl").write_text(json.dumps({"overrides": overrides}) + "\n")
    write_json(Path("runs/finished/summary.json"), {"step": 8, "val_bits_per_byte": 2.5, "tokens_per_second": 1234.5})
    Path("runs/nested/halfway/metrics/version_0").mkdir(parents=True)
    Path("runs/nested/halfway/metrics/version_0/metrics.csv").write_text(
        "attempt,step,cross_entropy,val_bits_per_byte,tokens_per_second\n"
        "1,1,5.5,,800\n2,2,9.0,,\n3,3,9.5,,\n4,2,5.25,,900\n4,2,,2.25,\n"
    )
    Ledger(Path("runs/nested/halfway/ledger.jsonl")).append(**REWIND)
    Path("runs/torn").mkdir()
    Path("runs/torn/config.yaml").write_text("{")
    Path("runs/torn/provenance.jsonl").touch()
    Path("runs/settings").mkdir()
    Path("runs/settings/config.yaml").write_text("of: something else")
    return tmp_path


def listed(here: Cli, *overrides: str) -> tuple[list[dict[str, Any]], str]:
    """What it wrote as JSON and what it printed."""
    done = here("runs", "output=runs.json", *overrides)
    assert done.returncode == 0, done.stderr
    found = json.loads(Path("runs.json").read_text())
    assert isinstance(found, list)
    return found, done.stdout


def test_each_run_has_a_line_of_its_own(folder: Path, here: Cli) -> None:
    with exclusive(Path("runs/begun/.lock")):
        (begun, finished, halfway, torn), printed = listed(here)
    assert [line["folder"] for line in (begun, finished, halfway, torn)] == [
        "runs/begun", "runs/finished", "runs/nested/halfway", "runs/torn"
    ]  # fmt: skip
    assert [line["state"] for line in (begun, finished, halfway, torn)] == [
        "under way", "finished", "stopped", "unreadable"
    ]  # fmt: skip
    assert {"step": 8, "held_out": 2.5, "tokens_per_second": 1234.5, "interventions": 0}.items() <= finished.items()
    assert {
        "step": 2, "num_steps": 8, "given_up": 2, "interventions": 1, "cross_entropy": 5.25, "held_out": 2.25,
        "tokens_per_second": 900.0,
    }.items() <= halfway.items()  # fmt: skip
    assert begun["cross_entropy"] is begun["held_out"] is None
    assert "torn/config.yaml is not whole" in torn["trouble"]
    (line,) = (line.split() for line in printed.splitlines() if "halfway" in line)
    assert line[-1] == "optimizer.lr=2e-3"
    assert "model=tiny" not in printed
    assert "name=" not in printed


@pytest.mark.parametrize(
    ("sort_by", "first"), [("name", "runs/begun"), ("held_out", "runs/nested/halfway"), ("written", "runs/finished")]
)
def test_the_order_is_the_one_asked_for(folder: Path, here: Cli, sort_by: str, first: str) -> None:
    for number, name in enumerate(("torn", "begun", "nested/halfway", "finished")):
        for path in Path("runs", name).rglob("*"):
            os.utime(path, (60.0 * number, 60.0 * number))
    lines, _ = listed(here, f"sort_by={sort_by}")
    assert lines[0]["folder"] == first
    assert len(lines) == 4


def test_several_folders_and_runs_themselves_are_listed_once(folder: Path, here: Cli) -> None:
    lines, _ = listed(here, "folders=[runs/nested,runs/nested/halfway,runs/finished]")
    assert [line["folder"] for line in lines] == ["runs/finished", "runs/nested/halfway"]


def test_a_broken_run_hides_no_other(folder: Path, here: Cli) -> None:
    content = plain(OmegaConf.create(read_record(Path("runs/begun"))))
    write_record(Path("runs/begun"), content | {"model": content["model"] | {"width": -1}})
    write_record(Path("runs/finished"), {key: node for key, node in content.items() if key != "model"})
    Path("runs/nested/halfway/provenance.jsonl").write_text("none\n")
    for name, node in (("words", {"max_steps": "eight"}), ("nothing", {"checkpoint": None})):
        write_record(Path("runs", name), content | node)
        Path("runs", name, "provenance.jsonl").touch()
    lines, _ = listed(here)
    assert [line["state"] for line in lines] == ["unreadable"] * 6
    wanted = (
        "model.width=-1 must be at least 1", "its model has no _target_", "provenance.jsonl:1: not whole JSON",
        "'NoneType'", "is not whole", "'str'",
    )  # fmt: skip
    assert [said in line["trouble"] for said, line in zip(wanted, lines, strict=True)] == [True] * 6, lines


def test_metrics_that_are_torn_are_told(folder: Path, here: Cli) -> None:
    metrics = Path("runs/nested/halfway/metrics/version_0/metrics.csv")
    whole = metrics.read_text()
    metrics.write_text(whole + "5,3")
    (line,), _ = listed(here, "folders=[runs/nested]")
    assert (line["cross_entropy"], line["trouble"]) == (5.25, ""), "a last line that a kill cut off is no trouble"
    metrics.write_text(whole + "5,3\n")
    (line,), printed = listed(here, "folders=[runs/nested]")
    assert (line["state"], line["cross_entropy"]) == ("stopped", None)
    assert "metrics.csv:7: 2 cells where the header has 5" in line["trouble"]
    _, row, reason, _ = printed.splitlines()
    assert row.endswith("optimizer.lr=2e-3")
    assert reason == f"runs/nested/halfway: {line['trouble']}"


def test_links_are_followed_once(folder: Path, here: Cli) -> None:
    Path("elsewhere").mkdir()
    Path("runs/finished").rename("elsewhere/finished")
    Path("runs/finished").symlink_to(folder / "elsewhere/finished")
    Path("runs/nested/halfway/back").symlink_to(folder / "runs")
    Path("runs/a_torn").symlink_to(folder / "runs/torn")
    names = ["runs/begun", "runs/finished", "runs/nested/halfway", "runs/torn"]
    assert [line["folder"] for line in listed(here)[0]] == names
    own_names_first, _ = listed(here, "folders=[runs/torn,runs/a_torn,runs/finished,elsewhere]")
    assert [line["folder"] for line in own_names_first] == ["elsewhere/finished", "runs/torn"]


def test_off_a_terminal_a_run_has_one_line(folder: Path, here: Cli) -> None:
    content, overrides = read_record(Path("runs/begun")) or {}, [f"data.sources.files.paths=[{'x' * 300}]", "seed=7"]
    name = f"runs/{'very_' * 20}long"
    write_record(Path(name), content | {"checkpoint": {"folder": f"{name}/checkpoints"}})
    Path(name, "provenance.jsonl").write_text(json.dumps({"overrides": overrides}) + "\n")
    _, printed = listed(here)
    (line,) = (line for line in printed.splitlines() if "very_" in line)
    assert line.split()[0] == name
    assert line.split()[-2:] == overrides


def test_what_all_have_sets_none_apart() -> None:
    assert set_apart([("a=1", "b=2", "name=x"), ("a=1", "b=3", "folder=y")]) == [["b=2"], ["b=3"]]
    assert set_apart([("a=1", "b=2")]) == [["a=1", "b=2"]]
    assert set_apart([("a=1",), ()]) == [["a=1"], []]
    assert set_apart([("a=1", "b=2"), None, ("a=1",)]) == [["b=2"], [], []]
