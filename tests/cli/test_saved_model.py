"""A model in a folder is as good as the run it was exported from."""

from pathlib import Path

from mulligan.cli.saved_model import SavedModel, open_model
from mulligan.cli.saved_run import SavedRun
from mulligan.model.weights import weights_sha256
from tests.conftest import Cli


def test_an_exported_model_speaks_as_its_run(tiny: tuple[str, ...], here: Cli) -> None:
    assert here("train", *tiny, "max_steps=2").returncode == 0
    Path("kept").mkdir()
    assert here("export", "run=runs/default", "to=kept/model.safetensors").returncode == 0
    run, kept = open_model(Path("runs/default")), open_model(Path("kept"))
    assert isinstance(run, SavedRun)
    assert isinstance(kept, SavedModel)
    assert weights_sha256(kept.model().state_dict()) == weights_sha256(run.model().state_dict())
    assert kept.tokenizer().model == run.tokenizer().model
    assert kept.sequence_length == 32
    one, other = (
        here("generate", f"run={folder}", "prompt=import", "max_new_tokens=9") for folder in ("runs/default", "kept")
    )
    assert one.returncode == other.returncode == 0
    assert one.stdout == other.stdout != "import\n"
    assert here("export", "run=runs/default", "to=runs/default/model.safetensors").returncode == 0
    assert isinstance(open_model(Path("runs/default")), SavedRun), "what it trains from here on would not be seen"
