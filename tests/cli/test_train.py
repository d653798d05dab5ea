"""What a start finds in and around its folder, and how it ends where nobody reads or waits."""

import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mulligan.files import read_json
from tests.conftest import Cli

Tiny = tuple[str, ...]


def test_what_a_run_has_lost_of_its_folder_is_named_or_made_anew(here: Cli, tiny: Tiny, tmp_path: Path) -> None:
    assert here("train", *tiny).returncode == 0
    run = tmp_path / "runs/default"
    noted = read_json(run / "data.json")
    (run / "data.json").unlink()
    assert here("evaluate", "run=runs/default").stderr.endswith("go on with the run to write it anew\n")
    assert here("train", *tiny).returncode == 0
    assert read_json(run / "data.json") == noted
    assert [path.name for path in (run / "metrics").iterdir()] == ["version_0"], "no step came that could be logged"
    inside = here("train", *tiny, "name=default/checkpoints")
    assert (inside.returncode, inside.stdout) == (2, "")
    assert "folder=runs/default/checkpoints lies inside that of another run, runs/default: choose" in inside.stderr
    (run / "config.yaml").write_text("name: default\n")
    for verb in (("train", *tiny), ("replay", "run=runs/default"), ("evaluate", "run=runs/default")):
        refused = here(*verb)
        assert refused.returncode == 2
        assert "config.yaml is not that of a run, it has no sequence_length: bring it back\n" in refused.stderr


def test_what_another_process_trained_meanwhile_binds(
    here: Cli, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder was free of anything when the command looked, and in use by the one that it then waits for."""
    assert here("train", *tiny, "name=other").returncode == 0

    @contextmanager
    def lock(path: Path, **_: object) -> Iterator[None]:
        shutil.copytree(tmp_path / "runs/other", path.parent)
        yield

    monkeypatch.setattr("mulligan.cli.train.exclusive", lock)
    refused = here("train", *tiny, "seed=7")
    assert refused.returncode == 2
    assert "runs/default cannot go on from other weights" in refused.stderr
    assert "seed: 0 -> 7" in refused.stderr


def test_checkpoints_that_lie_elsewhere_are_not_begun_anew_beside(here: Cli, tiny: Tiny, tmp_path: Path) -> None:
    assert here("train", *tiny).returncode == 0
    refused = here("train", *tiny, "checkpoint.folder=elsewhere")
    assert refused.returncode == 2
    assert "checkpoint.folder=elsewhere has no checkpoint, and runs/default/checkpoints has those of" in refused.stderr
    (tmp_path / "runs/default/checkpoints").rename(tmp_path / "elsewhere")
    assert here("train", *tiny, "checkpoint.folder=elsewhere").returncode == 0


def test_a_run_needs_its_prepared_data_and_no_texts(here: Cli, tiny: Tiny, corpus: Path, tmp_path: Path) -> None:
    """The texts are gone, and so is the tokenizer's file; the prepared folder has moved."""
    shutil.copytree(corpus, own := tmp_path / "own")
    assert here("train", *tiny, "name=other", "max_steps=1").returncode == 0
    shutil.copy(Path(read_json(tmp_path / "runs/other/data.json")["folder"], "tokenizer.model"), own)
    keys = (*tiny, f"data.sources.files.paths=[{own}/*.txt]", f"tokenizer.model_file={own}/tokenizer.model")
    assert here("train", *keys, "data.folder=first", "max_steps=4").returncode == 0
    shutil.rmtree(own)
    assert here("replay", "run=runs/default").returncode == 0
    (tmp_path / "first").rename(tmp_path / "second")
    longer = here("train", *keys, "data.folder=second", "max_steps=6", "accept_changes=true")
    assert (longer.returncode, "going on from step 4" in longer.stdout) == (0, True), longer.stderr
    shutil.rmtree(tmp_path / "second")
    assert "is not a file" in here("train", *keys, "data.folder=second").stderr, "it has to be prepared anew"


def test_a_replay_on_other_data_is_refused(here: Cli, tiny: Tiny, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, own := tmp_path / "own")
    assert here("train", *tiny, f"data.sources.files.paths=[{own}/*.txt]").returncode == 0
    with (own / "00.txt").open("a") as text:
        text.write("some new text\n")
    (tmp_path / "runs/default/data.json").unlink()
    refused = here("replay", "run=runs/default")
    assert refused.returncode == 2
    assert "the run was trained on data" in refused.stderr
    assert "bring the old data back\n" in refused.stderr


def test_ctrl_c_before_a_run_trains_is_one_line(here: Cli, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mulligan.cli.train.quiet_lightning", interrupt)
    done = here("train", *tiny)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mulligan train: interrupted\n")


def test_a_terminal_that_knows_ascii_alone_is_shown_what_it_can(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    console = io.TextIOWrapper(written := io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr("mulligan.cli.main.USAGE", "d\u00e9j\u00e0 vu")
    assert here("--help").returncode == 0
    assert written.getvalue() == b"d?j? vu\n"


@pytest.mark.slow
def test_all_ranks_find_a_module_of_the_working_directory(mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "mylab.py").write_text("from lightning.pytorch import Callback as Mine\n")
    done = mulligan("train", *tiny, "trainer=cpu_ddp", "max_steps=1", "+callbacks.mine._target_=mylab.Mine")
    assert done.returncode == 0, done.stderr
