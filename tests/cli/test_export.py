"""One file out of either form of checkpoint, and the same model out of it."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mulligan.cli.main import main
from mulligan.files import read_json
from mulligan.model.config import ModelConfig
from mulligan.model.weights import model_with_weights, weights_sha256


def exported(run: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> str:
    """The hash of the weights in the file."""
    monkeypatch.setattr("sys.argv", ["mulligan", "export", f"run={run}", "to=out.safetensors", *more])
    assert main() == 0
    shape = ModelConfig(**read_json(Path("out.json")))
    return weights_sha256(model_with_weights(shape, load_file("out.safetensors"), "cpu").state_dict())


@pytest.mark.parametrize("form", ["parts", "one file"])
def test_the_file_holds_the_weights_of_the_run(
    form: str,
    sharded_run: Path,
    tiny: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = sharded_run
    if form == "one file":
        run = Path("runs/default")
        monkeypatch.setattr("sys.argv", ["mulligan", "train", *tiny, "max_steps=6", "model.tied_embeddings=false"])
        assert main() == 0
    capsys.readouterr()
    assert exported(run, monkeypatch) == read_json(run / "summary.json")["weights_sha256"]
    said = capsys.readouterr().out
    assert (
        f"parameters of {run} at step 6, sha256 of the weights {read_json(run / 'summary.json')['weights_sha256'][:16]}"
        in said
    )


def test_a_step_may_be_named(sharded_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert exported(sharded_run, monkeypatch, "step=4") != read_json(sharded_run / "summary.json")["weights_sha256"]


def test_a_checkpoint_of_another_shape_is_named(
    sharded_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sharded_run, "run")
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("feedforward_width: 32", "feedforward_width: 48"))
    monkeypatch.setattr("sys.argv", ["mulligan", "export", "run=run", "to=out.safetensors"])
    assert main() == 2
    assert "step_00000006.ckpt has no blocks.0.feedforward.gate.weight of the shape" in capsys.readouterr().err
