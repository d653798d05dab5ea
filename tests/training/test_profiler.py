"""A few steps recorded, with the run's numbers as they are without."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException

from tests.training.conftest import MakeRun, silent

STEPS = ("profiler=steps", "profiler.after_steps=3", "profiler.num_steps=2")


def test_the_steps_asked_for_are_recorded_and_none_is_changed(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = make_run("name=plain").train(silent, silent)
    module = make_run("name=seen", "micro_batch=2", *STEPS).train(silent, silent)
    (trace,) = Path("runs/seen/profile").glob("*.json.gz")
    assert trace.name == "attempts_4_to_5_rank_0.json.gz"
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {event["name"] for event in events if str(event.get("name", "")).startswith("ProfilerStep")}
    assert len(steps) == 2
    table = Path("runs/seen/profile/attempts_4_to_5_rank_0.txt").read_text()
    assert "Optimizer.step#AdamW.step" in table
    assert f"{trace} is a trace" in capfd.readouterr().out
    assert module.model is not None
    assert plain.model is not None
    for one, other in zip(module.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-5)  # another split into micro-batches


@pytest.mark.parametrize(("left", "recorded"), [(2, "none"), (3, "none"), (4, "1")])
def test_a_run_that_goes_on_says_what_its_last_steps_leave_to_record(
    make_run: MakeRun, left: int, recorded: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make_run("max_steps=4").train(silent, silent)
    make_run(*STEPS, f"max_steps={4 + left}", "accept_changes=true").train(silent, silent)
    said = capfd.readouterr().out
    assert (
        f"profiler.after_steps=3 and profiler.num_steps=2 behind them are more than the {left} steps left: "
        f"{recorded} will be recorded\n"
    ) in said
    assert ("has ended before a step was recorded" in said) == (recorded == "none")
    assert len(list(Path("runs/default").glob("profile/*.json.gz"))) == (recorded != "none")


def test_a_rank_that_was_not_asked_for_writes_nothing(make_run: MakeRun) -> None:
    make_run(*STEPS, "profiler.ranks=[1]").train(silent, silent)
    assert not Path("runs/default/profile").exists()


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("profiler.after_steps=0", "profiler.after_steps=0 must be at least 1"),
        ("profiler.num_steps=0", "profiler.num_steps=0 must be at least 1"),
        ("profiler.after_steps=7", "do not fit into a run of 8 steps"),
    ],
)
def test_a_mistake_is_named(make_run: MakeRun, override: str, complaint: str) -> None:
    with pytest.raises((InstantiationException, ValueError), match=complaint):
        make_run(*STEPS, override)
