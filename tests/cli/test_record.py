"""What a run's folder binds: a start with another config, another user or other data leaves it as it was."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mulligan.cli.compose import build
from mulligan.cli.record import (
    MODEL,
    bound_differences,
    check_model,
    differences,
    keep_record,
    played_again,
    read_earlier_records,
    recorded_model,
    write_record,
)
from mulligan.files import exclusive
from mulligan.training.schedules import Schedule
from tests.conftest import Cli


def test_a_changed_config_is_refused_unless_told(here: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    assert here("train", *tiny).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    refused = here("train", *tiny, "optimizer.lr=1e-2", "log_every_n_steps=2")
    assert refused.returncode == 2
    assert "optimizer.lr: 0.002 -> 0.01" in refused.stderr
    assert "log_every_n_steps" not in refused.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before
    told = here("train", *tiny, "max_steps=10", "optimizer.lr=1e-2", "accept_changes=true")
    assert told.returncode == 0, told.stderr
    assert "goes on with another config: max_steps: 8 -> 10; optimizer.lr: 0.002 -> 0.01\n" in told.stdout
    rows = list(csv.DictReader((tmp_path / "runs/default/metrics/version_1/metrics.csv").read_text().splitlines()))
    assert [float(row["step"]) for row in rows] == [9.0, 10.0]
    schedule = Schedule(kind="cosine", warmup=0.03, final=0.05)
    rates = [1e-2 * schedule.factor(step, 10) for step in (8, 9)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(rates)
    assert (tmp_path / "runs/default/config_until_step_00000008.yaml").read_bytes() == before[
        tmp_path / "runs/default/config.yaml"
    ]
    lines = (tmp_path / "runs/default/provenance.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 8]  # what was refused is no start
    replayed = here("replay", "run=runs/default")
    assert (replayed.returncode, replayed.stdout) == (2, "")
    (line,) = replayed.stderr.splitlines()
    assert "its config was changed after step 8" in line
    assert "Different: max_steps: 8 -> 10; optimizer.lr: 0.002 -> 0.01" in line


def test_of_configs_until_the_same_step_the_first_trained_it(tmp_path: Path) -> None:
    for name in ("first", "second", "last"):
        write_record(tmp_path, {"name": name})
        keep_record(tmp_path, 8)
    assert read_earlier_records(tmp_path) == {8: {"name": "first"}}


@pytest.mark.parametrize(
    ("before", "now", "bound"),
    [
        ({}, {"width": 32}, ["model.width: 16 -> 32"]),
        ({}, {"num_key_value_heads": 2}, []),  # as many as there are heads, which null stands for
        ({}, {"num_key_value_heads": 1}, ["model.num_key_value_heads: None -> 1"]),
        ({}, {"max_length": 64, "dropout": 0.1}, []),
        ({"positions": "learned"}, {"max_length": 64}, ["model.max_length: 32 -> 64"]),
    ],
)
def test_a_model_that_weights_do_not_fit_cannot_be_accepted(
    before: dict[str, Any], now: dict[str, Any], bound: list[str]
) -> None:
    shape = {"vocab_size": 300, "max_length": 32, "width": 16, "num_layers": 1, "num_heads": 2, "feedforward_width": 8}
    recorded, content = ({"_target_": MODEL, "num_key_value_heads": None} | shape | before | more for more in ({}, now))
    models = {name: build(model) for name, model in (("before", recorded), ("now", content))}
    assert bound_differences(differences({"model": recorded}, {"model": content}), **models) == bound


def test_nothing_but_a_model_is_made_of_a_config(tmp_path: Path) -> None:
    node = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
    with pytest.raises(ValueError, match="its model has no _target_=mulligan"):
        recorded_model({"model": node}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_optimizer_cannot_take_over_the_moments() -> None:
    change = "optimizer._target_: mylab.Lion -> torch.optim.SGD"
    node = {"vocab_size": 300, "max_length": 32, "width": 16, "num_layers": 1, "num_heads": 2, "feedforward_width": 8}
    model = build({"_target_": MODEL} | node)
    assert bound_differences([change, "optimizer.lr: 1 -> 2"], before=model, now=model) == [change]


def test_a_model_that_no_verb_would_read_is_refused_before_it_is_trained() -> None:
    check_model({"model": {"_target_": MODEL}})
    with pytest.raises(
        ValueError, match=r"model\._target_=mylab\.Deeper must be mulligan\.model\.config\.ModelConfig:"
    ):
        check_model({"model": {"_target_": "mylab.Deeper"}})


def test_callbacks_of_a_run_that_is_played_again_leave_its_folder_alone() -> None:
    paths = ["runs/a/notes.txt", "runs/ab/notes.txt", "runs/a", 3]
    recorded = {"folder": "runs/a", "checkpoint": {}, "stability": None, "callbacks": {"mine": {"paths": paths}}}
    again = played_again(recorded, Path("/tmp/again"))
    assert again["callbacks"] == {"mine": {"paths": ["/tmp/again/notes.txt", "runs/ab/notes.txt", "/tmp/again", 3]}}


@pytest.mark.slow
def test_what_cannot_be_accepted_leaves_the_run_as_it_was(here: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    assert here("train", *tiny).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    for overrides, message in (
        (("model.width=32", "optimizer.lr=1e-2"), "begin a run of another name. Different: model.width: 16 -> 32"),
        (("global_batch_samples=8", "seed=5"), "order of data; begin a run of another name. Different: global_batch"),
        (("seed=5",), "Different: seed: 0 -> 5"),
        (("data.split_seed=5", "max_steps=10"), "Different: data.split_seed: 1 -> 5. It reads its prepared data and"),
    ):
        refused = here("train", *tiny, *overrides, "accept_changes=true")
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
        assert {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()} == before


def test_the_same_data_from_another_place_can_be_accepted(
    here: Cli, tiny: tuple[str, ...], corpus: Path, tmp_path: Path
) -> None:
    assert here("train", *tiny, "max_steps=2").returncode == 0
    shutil.copytree(corpus, tmp_path / "moved")
    keys = (*tiny, "data.sources.files.paths=[moved/*.txt]", "data.folder=anew")
    assert "leave the keys of data as they were\n" in here("train", *keys, "max_steps=2").stderr
    (tmp_path / "runs/default/data.json").unlink()  # or the folder that it names
    refused = here("train", *keys, "max_steps=4", "accept_changes=true")
    assert (refused.returncode, "`mulligan prepare` with these keys first\n" in refused.stderr) == (2, True)
    assert not (tmp_path / "anew").exists(), "hours of work for another run's data"
    of_preparing = [key for key in keys if key.startswith(("data", "tokenizer"))]
    assert here("prepare", *of_preparing).returncode == 0
    done = here("train", *keys, "max_steps=4", "accept_changes=true")
    assert (done.returncode, "going on from step 2" in done.stdout) == (0, True), done.stderr


def test_a_run_in_use_is_named(here: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    with exclusive(tmp_path / "runs/default/.lock"):
        refused = here("train", *tiny)
    assert refused.returncode == 2
    assert "runs/default is in use by another process" in refused.stderr


@pytest.mark.slow
def test_a_run_is_judged_on_its_own_data_only(here: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    assert here("train", *tiny, "checkpoint.folder=elsewhere").returncode == 0
    assert here("evaluate", "run=runs/default").returncode == 0
    assert here("train", *tiny, "name=other", "data.split_seed=5").returncode == 0
    (tmp_path / "runs/other/data.json").replace(tmp_path / "runs/default/data.json")
    refused = here("evaluate", "run=runs/default")
    assert refused.returncode == 2
    assert "is not the data" in refused.stderr
