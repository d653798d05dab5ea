"""A run that begins from a model trains on from its weights, whoever holds them, and is bound to them."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mulligan.files import read_json, sha256_file, write_json
from mulligan.model.transformer import Transformer
from mulligan.training.checkpoints import load_checkpoint
from mulligan.training.run import TrainingRun
from tests.conftest import Cli
from tests.training.conftest import MakeRun, silent
from tests.training.test_ranks import record
from tests.training.test_resume import assert_same, interrupted


def save(run: TrainingRun, folder: Path) -> Transformer:
    """A model of the run's shape, drawn from a seed that no run has, in ``folder``."""
    with torch.device("meta"):
        model = Transformer(run.model)
    model.materialize("cpu", seed=99)
    folder.mkdir()
    write_json(folder / "model.json", asdict(run.model))
    save_file(dict(model.named_parameters()), folder / "model.safetensors")
    return model


def losses(name: str) -> list[float]:
    rows = csv.DictReader(Path(f"runs/{name}/metrics/version_0/metrics.csv").read_text().splitlines())
    return [float(row["cross_entropy"]) for row in rows if row["cross_entropy"]]


def test_it_trains_on_from_them(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save(make_run(), Path("begun"))
    begun = ("initial_weights=begun", "max_steps=3")
    make_run(*begun, "name=named").train(silent, silent)
    make_run("max_steps=3", "name=drawn").train(silent, silent)
    weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    monkeypatch.setattr(Transformer, "materialize", lambda own, device, seed: own.load_weights(weights, device))
    make_run("max_steps=3", "name=held").train(silent, silent)
    assert losses("named") == losses("held") != losses("drawn")
    assert len(losses("named")) == 3


def test_stopped_it_goes_on_with_the_same_bits(make_run: MakeRun) -> None:
    save(make_run(), Path("begun"))
    make_run("initial_weights=begun", "name=whole").train(silent, silent)
    interrupted(make_run, 3, "initial_weights=begun")
    make_run("initial_weights=begun").train(silent, silent)
    ended = (Path(f"runs/{name}/checkpoints/step_00000008.ckpt") for name in ("whole", "default"))
    assert_same(*map(load_checkpoint, ended))


def test_the_run_is_bound_to_them(make_run: MakeRun, tiny: tuple[str, ...], here: Cli) -> None:
    save(make_run(), Path("begun"))
    assert here("train", *tiny, "model=initial", "initial_weights=begun", "max_steps=2").returncode == 0
    line = json.loads(Path("runs/default/provenance.jsonl").read_text())
    assert line["initial_weights_sha256"] == sha256_file(Path("begun/model.safetensors"))
    done = here("train", *tiny, "max_steps=2", "accept_changes=true")
    assert done.returncode == 2
    assert "cannot go on from other weights" in done.stderr
    assert "initial_weights: begun -> None" in done.stderr


def test_the_folder_may_have_another_name_but_not_other_weights(
    make_run: MakeRun, tiny: tuple[str, ...], here: Cli
) -> None:
    save(make_run(), Path("begun"))
    assert here("train", *tiny, "initial_weights=begun", "max_steps=2").returncode == 0
    Path("begun").rename("renamed")
    keys = (*tiny, "initial_weights=renamed", "accept_changes=true")
    assert here("train", *keys[:-1], "max_steps=2").returncode == 0
    longer = here("train", *keys, "max_steps=4", "schedule=constant")
    assert (longer.returncode, "initial_weights" in longer.stdout) == (0, False), longer.stderr
    Path("runs/default/config_until_step_00000002.yaml").unlink()  # of another length and schedule
    save_file(load_file("renamed/model.safetensors"), "renamed/model.safetensors", {"other": "bytes"})
    replayed = here("replay", "run=runs/default")
    assert (replayed.returncode, "initial_weights holds" in replayed.stderr) == (2, True), replayed.stderr
    longer = here("train", *keys, "max_steps=6", "schedule=constant")
    assert "it goes on from its checkpoint, but cannot be played again\n" in longer.stdout


def test_another_tokenizer_than_that_of_the_model_is_told(make_run: MakeRun) -> None:
    save(make_run(), Path("begun"))
    make_run("max_steps=1", "name=alone", "initial_weights=begun").train(silent, silent)
    data = Path(read_json(Path("runs/alone/data.json"))["folder"])
    for content, is_told in ((data / "tokenizer.model").read_bytes(), False), (b"another", True):
        Path("begun/tokenizer.model").write_bytes(content)
        said: list[str] = []
        make_run("max_steps=1", f"name=told_{is_told}", "initial_weights=begun").train(silent, said.append)
        assert any("another tokenizer than begun/tokenizer.model of init" in line for line in said) == is_told


@pytest.mark.slow
def test_each_rank_takes_its_part(make_run: MakeRun, tiny: tuple[str, ...], tmp_path: Path) -> None:
    form = ("model.num_heads=4", "model.num_key_value_heads=2", "model.qk_norm=true", "optimizer.clip_norm=null")
    save(make_run(*form), tmp_path / "begun")
    overrides = (*tiny, *form, "initial_weights=begun")
    (alone,) = record(tmp_path / "alone", "cpu", 1, 1, overrides, "name=alone")
    for trainer in ("cpu_ddp", "cpu_fsdp", "cpu_tp"):
        for one in record(tmp_path / trainer, trainer, 2, 1, overrides, f"name={trainer}"):
            for name, gradient in one["gradients"][0].items():
                torch.testing.assert_close(gradient, alone["gradients"][0][name], rtol=1e-5, atol=1e-6)
