"""``mulligan backtest`` as a user runs it: a table of rules, and the numbers as JSON."""

import json
import math
import random
from pathlib import Path

from mulligan.cli.record import write_record
from mulligan.stability.ledger import Ledger
from tests.conftest import Cli


def printed(here: Cli, *words: str) -> str:
    done = here("backtest", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_recorded_spike_is_caught_by_ours_and_missed_by_others(here: Cli) -> None:
    rng = random.Random(0)
    losses = [2.5 + 4.0 * math.exp(-step / 50) + rng.gauss(0.0, 0.03) + (400 <= step < 460) for step in range(800)]
    Path("loss.csv").write_text("step,loss\n" + "".join(f"{step},{loss}\n" for step, loss in enumerate(losses)))
    opening, *table = printed(here, "curve=loss.csv", "output=numbers.json").splitlines()
    assert opening == "loss.csv: 800 points from step 0 to 799; 1 spike(s) seen in hindsight: [400, 460]"
    rows = {cells[0]: cells[1:] for line in table if len(cells := [cell.strip() for cell in line.split("│")]) > 2}
    assert rows["mulligan"] == ["1", "2", "0", "0", "0.00", "0"]
    assert rows["llm-foundry KillLossSpike"] == ["0", "-", "1", "0", "0.00", "0"]
    assert rows["ZClip"] == ["-"] * 6
    numbers = json.loads(Path("numbers.json").read_text())
    assert numbers["spikes"] == [[400, 460]]
    assert numbers["rules"]["mulligan"]["alarms"] == [[402, 460]]
    assert numbers["rules"]["mulligan"]["median_delay_steps"] == 2
    assert numbers["rules"]["ZClip"] is None


def test_spikes_and_the_detector_are_the_users(here: Cli) -> None:
    rows = [{"n": step, "train/loss": 2.0 + (100 <= step < 110)} for step in range(200)]
    Path("loss.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = ("curve=loss.jsonl", "step_column=n", "loss_column=train/loss", "output=numbers.json")
    said = printed(here, *named, "spikes=[[50,60],[100,110]]")
    assert "2 spike(s) given: [50, 60], [100, 110]" in said
    ours = json.loads(Path("numbers.json").read_text())["rules"]["mulligan"]
    assert (ours["caught"], ours["missed"], ours["median_delay_steps"]) == (1, 1, 2)
    printed(here, *named, "stability.detector.patience=20")
    assert json.loads(Path("numbers.json").read_text())["rules"]["mulligan"]["caught"] == 0


def test_a_run_is_judged_by_its_ledger_as_far_as_its_steps_were_logged(here: Cli) -> None:
    metrics = Path("run/metrics/version_0/metrics.csv")
    metrics.parent.mkdir(parents=True)
    metrics.write_text("attempt,cross_entropy\n" + "".join(f"{step},2.0\n" for step in range(25, 1000, 25)))
    detector = {"_target_": "mulligan.stability.detector.Detector", "window": 16, "patience": 3}
    write_record(Path("run"), {"stability": {"detector": detector}})
    ledger = Ledger(Path("run/ledger.jsonl"))
    for attempt in (73, 126):
        ledger.append("rewind", attempt=attempt, step=attempt, onset=attempt - 2, target=0, skip=[0, 1])
    opening, told, *_ = printed(here, "curve=run").splitlines()
    assert opening.endswith(
        "1 spike(s) in the ledger (1 of the ledger's lie between the steps that were logged): [125, 126]"
    )
    assert told == "the run's own detector had stability.detector.window=16: give these too to judge as it did"
