"""A run that went back twice, inspected: the samples are those it trained on then, and so are their losses."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from mulligan.cli.compose import CONF, build, plain
from mulligan.cli.inspection import suspects
from mulligan.cli.record import write_record
from mulligan.data.tokenizer import tokenizer_in
from tests.conftest import TINY, Cli
from tests.training.conftest import silent
from tests.training.test_rewind import sure_at

OPTIONS = (
    "max_steps=18", "checkpoint.every_n_steps=1", "checkpoint.keep_last=20", "checkpoint.keep_abandoned=true",
    "stability.snapshots.every_n_steps=2", "stability.policy.depth_steps=2", "stability.policy.skip_steps=5",
)  # fmt: skip
# Of each intervention: its updates, the samples they were made on, and the attempt of the first of them.
WANTED = [(range(9, 12), range(32, 44), 9), (range(13, 16), range(68, 80), 17)]


@pytest.fixture(scope="module")
def healed(corpus: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went back from step 11 to 7, and then from 15 to 9."""
    folder = tmp_path_factory.mktemp("healed")
    places = (f"data.sources.files.paths=[{corpus}/*.txt]", f"data.folder={prepared}", f"folder={folder}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        content = plain(compose("train", overrides=[*TINY, *OPTIONS, *places]))
    run = build(content)
    sure_at(run, onset=9, step=10)
    sure_at(run, onset=13, step=14)
    run.fit(silent, silent, lambda: write_record(folder, content))
    return folder


@pytest.fixture
def inspect(healed: Path, here: Cli) -> Any:
    """Run the verb in this process, and return what it wrote as JSON and what it printed."""

    def run(*overrides: str) -> tuple[Any, str]:
        done = here("inspect", f"run={healed}", "output=all.json", *overrides)
        assert done.returncode == 0, done.stderr
        return json.loads(Path("all.json").read_text()), done.stdout

    return run


@pytest.mark.parametrize("number", [0, 1])
def test_samples_and_losses_are_those_of_then(inspect: Any, healed: Path, number: int) -> None:
    steps, samples, attempt = WANTED[number]
    content, _ = inspect(f"intervention={number}")
    assert content["intervention"]["skip"][0] == (28, 56)[number]
    assert content["judged_by"]["step"] == steps[0] - 1
    found = sorted(content["samples"], key=lambda one: one["sample"])
    assert [one["sample"] for one in found] == list(samples)
    assert [one["step"] for one in found] == np.repeat(steps, 4).tolist()
    trained = list(csv.DictReader((healed / "metrics/version_0/metrics.csv").read_text().splitlines()))
    (of_then,) = (row for row in trained if row["attempt"] and float(row["attempt"]) == attempt)
    assert float(of_then["step"]) == steps[0]
    assert np.mean([one["loss"] for one in found[:4]]) == pytest.approx(float(of_then["cross_entropy"]), rel=1e-5)


def test_places_and_text_are_those_of_the_shards(inspect: Any, healed: Path) -> None:
    content, _ = inspect("intervention=0", "top=2")
    shown = [one for one in content["samples"] if "text" in one]
    assert {1, 2} <= {one["rank_by_loss"] for one in shown} & {
        one["rank_by_gradient_norm"] for one in content["samples"]
    }
    assert all(min(one["rank_by_loss"], one["rank_by_gradient_norm"]) <= 2 for one in shown)
    data = Path(json.loads((healed / "data.json").read_text())["folder"])
    tokenizer = tokenizer_in(data)
    for one in shown:
        start = one["place"]["offset"]
        tokens = np.load(data / one["place"]["file"])[start : start + 33]
        text = "".join(piece for piece, _ in one["text"]).replace("<begin>", "").replace("<end>", "")
        assert text == tokenizer.decode(tokens.tolist()).replace("\n", "↵")


def test_it_prints_a_table_of_all_or_one_in_detail(inspect: Any) -> None:
    content, table = inspect()
    assert [entry["target"] for entry in content["interventions"]] == [7, 9]
    assert table.splitlines()[1].split()[:8] == ["0", "rewind", "loss", "9", "10", "11", "7", "28..47"]
    _, printed = inspect("intervention=1", "max_steps=2", "top=1", "characters=20")
    assert "intervention 1: rewind at step 15, back to step 9, without the samples 56 to " in printed
    assert "8 samples of the updates 13 to 14 of 3 (max_steps=2), judged by the state of step 12" in printed
    assert "files:train_000000.npy:" in printed


@pytest.mark.parametrize(
    ("stability", "why"), [(None, "its loss was not watched (stability=none)"), ({}, "its ledger has no line")]
)
def test_a_run_to_which_nothing_was_done(stability: Any, why: str, here: Cli) -> None:
    record = {"sequence_length": 32, "precision": "32-true", "checkpoint": {"folder": "calm/checkpoints"}}
    write_record(Path("calm"), record | {"stability": stability})
    assert here("inspect", "run=calm").stdout == f"nothing was done to calm: {why}\n"


def test_a_ledger_that_lost_lines_is_named(healed: Path, here: Cli) -> None:
    path = healed / "ledger.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\n") + 1])
    done = here("inspect", f"run={healed}")
    path.write_bytes(content)
    assert done.returncode == 2
    assert "ledger.jsonl has lost lines" in done.stderr
    assert "was written under 2, and 1 are left" in done.stderr


def test_without_a_state_of_then_the_newest_judges(inspect: Any, healed: Path) -> None:
    for path in healed.glob("checkpoints/**/step_*.ckpt"):
        if path.stem != "step_00000018":
            path.rename(path.with_suffix(".away"))
    content, printed = inspect("intervention=0")
    assert content["judged_by"]["step"] == 18
    assert "the state of step 18, 9 after the first: the newest, as none that led to them" in printed
    for path in healed.glob("checkpoints/**/*.away"):
        path.rename(path.with_suffix(".ckpt"))


def test_a_withheld_update_is_its_own_suspect() -> None:
    assert suspects({"kind": "withheld", "judged_step": 7, "step": 8}) == range(7, 8)
    assert suspects({"kind": "halt", "onset": 5, "judged_step": 7, "step": 8}) == range(5, 9)
