"""A model in a folder is as good as the run it was exported from."""

import shutil
from pathlib import Path

import pytest

from mulligan.cli.main import main
from mulligan.cli.saved_model import SavedModel, open_model
from mulligan.cli.saved_run import SavedRun
from mulligan.data.tokenizer import tokenizer_path
from mulligan.model.weights import weights_sha256


def test_an_exported_model_speaks_as_its_run(
    tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def printed(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["mulligan", *arguments])
        assert main() == 0
        return capsys.readouterr().out

    printed("train", *tiny, "max_steps=2")
    Path("kept").mkdir()
    printed("export", "run=runs/default", "to=kept/model.safetensors")
    run, kept = open_model(Path("runs/default")), open_model(Path("kept"))
    assert isinstance(run, SavedRun)
    assert isinstance(kept, SavedModel)
    tokenizer = tokenizer_path(run.data_folder)
    assert tokenizer is not None
    shutil.copy(tokenizer, "kept")
    assert weights_sha256(kept.model().state_dict()) == weights_sha256(run.model().state_dict())
    assert kept.tokenizer().model == run.tokenizer().model
    assert kept.sequence_length == 32
    said = [
        printed("generate", f"run={folder}", "prompt=import", "max_new_tokens=9") for folder in ("runs/default", "kept")
    ]
    assert said[0] == said[1] != "import\n"
