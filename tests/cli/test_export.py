"""One file out of either form of checkpoint, and the same model out of it."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mulligan.files import read_json, write_json
from mulligan.model.config import ModelConfig
from mulligan.model.weights import model_with_weights, weights_sha256
from tests.conftest import Cli


def exported(here: Cli, run: Path, *more: str) -> tuple[str, str]:
    """The hash of the weights in the file, and what was printed."""
    done = here("export", f"run={run}", "to=out.safetensors", *more)
    assert done.returncode == 0, done.stderr
    shape = ModelConfig(**read_json(Path("out.json")))
    return weights_sha256(model_with_weights(shape, load_file("out.safetensors"), "cpu").state_dict()), done.stdout


@pytest.mark.parametrize("form", ["parts", "one file"])
def test_the_file_holds_the_weights_of_the_run(form: str, sharded_run: Path, tiny: tuple[str, ...], here: Cli) -> None:
    run = sharded_run
    if form == "one file":
        run = Path("runs/default")
        assert here("train", *tiny, "max_steps=6", "model.tied_embeddings=false").returncode == 0
    wanted = read_json(run / "summary.json")["weights_sha256"]
    found, said = exported(here, run)
    assert found == wanted
    assert f"parameters of {run} at step 6, sha256 of the weights {wanted[:16]}" in said


def test_a_step_may_be_named(sharded_run: Path, here: Cli) -> None:
    assert exported(here, sharded_run, "step=4")[0] != read_json(sharded_run / "summary.json")["weights_sha256"]


def test_a_checkpoint_of_another_shape_is_named(sharded_run: Path, here: Cli) -> None:
    shutil.copytree(sharded_run, "run")
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("feedforward_width: 32", "feedforward_width: 48"))
    done = here("export", "run=run", "to=out.safetensors")
    assert done.returncode == 2
    assert "step_00000006.ckpt has no blocks.0.feedforward.gate.weight of the shape" in done.stderr


def test_the_card_has_no_numbers_of_other_weights_of_the_same_step(sharded_run: Path, here: Cli) -> None:
    shutil.copytree(sharded_run, "run")
    write_json(Path("run/summary.json"), read_json(sharded_run / "summary.json") | {"weights_sha256": "0" * 64})
    done = here("export", "run=run", "to=out", "format=hf")
    assert done.returncode == 0, done.stderr
    assert "was not evaluated at this step" in Path("out/README.md").read_text()


def test_weights_go_out_without_a_tokenizer_where_the_data_is_not_at_hand(sharded_run: Path, here: Cli) -> None:
    shutil.copytree(sharded_run, "run")
    Path("run/data.json").unlink()
    done = here("export", "run=run", "to=model.safetensors")
    assert done.returncode == 0, done.stderr
    assert "model.json their shape; without its tokenizer: run/data.json is missing" in done.stdout
    assert sorted(path.name for path in Path().iterdir()) == ["model.json", "model.safetensors", "run"]


def test_an_export_that_failed_goes_on_with_the_same_command(
    sharded_run: Path, here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr("mulligan.cli.export.write_hashed", full)
        failed = here("export", f"run={sharded_run}", "to=model.safetensors")
    assert failed.returncode == 2
    assert "model.safetensors: No space left on device; make room there" in failed.stderr
    assert list(Path().iterdir()) == []
    assert here("export", f"run={sharded_run}", "to=model.safetensors").returncode == 0
