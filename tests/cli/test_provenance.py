"""What a run was made with: each fact against where it comes from."""

import hashlib
import json
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import lightning
import pytest
import torch

import mulligan as package
from mulligan.cli import provenance
from mulligan.cli.compose import CONF
from mulligan.cli.provenance import changed_sources, files_sha256, git_state, image_stamp, own_sources
from mulligan.files import append_line, sha256_file, write_json
from tests.conftest import Cli

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    command = ["git", *author, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "code.py").write_text("one\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    return folder


@pytest.mark.slow
def test_a_start_adds_its_line(
    mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = {"base": "python@sha256:abc", "lock_sha256": "123", "revision": "456"}
    write_json(tmp_path / "image.json", stamp)
    monkeypatch.setenv("MULLIGAN_IMAGE", "image.json")
    done = mulligan("train", *tiny, "trainer=cpu_ddp", "max_steps=1")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs/default"
    (line,) = (folder / "provenance.jsonl").read_text().splitlines()
    found = json.loads(line)
    data = Path(json.loads((folder / "data.json").read_text())["folder"])
    assert found["step"] == 0
    assert found["overrides"] == [*tiny, "trainer=cpu_ddp", "max_steps=1"]
    assert found["config_sha256"] == sha256_file(folder / "config.yaml")
    assert found["data_fingerprint"] == json.loads((folder / "summary.json").read_text())["data_fingerprint"]
    assert found["tokenizer_sha256"] == sha256_file(data / "tokenizer.model")
    assert (found["world_size"], found["num_nodes"], found["strategy"]) == (2, 1, "ReplicatedStrategy")
    assert found["source_sha256"] == files_sha256(Path(package.__file__).parent, CONF)
    assert (found["image"], found["lock_sha256"]) == (stamp, "123")
    assert (found["version"], found["python"]) == (package.__version__, platform.python_version())
    assert found["packages"]["torch"] == metadata.version("torch")  # torch.__version__ may have +cu130 behind it
    assert found["packages"]["lightning"] == lightning.__version__
    assert found["machine"]["threads"] == 1
    assert found["machine"]["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


def test_source_is_known_by_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    source = Path(package.__file__).parent
    installed, ignored = tmp_path / "site/mulligan", shutil.ignore_patterns("__pycache__", "conf")
    shutil.copytree(source, installed, ignore=ignored)
    shutil.copytree(CONF, installed / "conf")  # as a wheel has it
    known = files_sha256(source, CONF)
    assert files_sha256(installed, installed / "conf") == known
    for changed in ("model/rope.py", "conf/optimizer/adamw.yaml"):
        former = (installed / changed).read_bytes()
        (installed / changed).write_bytes(former + b"\n")
        assert files_sha256(installed, installed / "conf") != known
        (installed / changed).write_bytes(former)


def test_parts_of_ones_own_are_known_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lab_for_provenance.py").write_text("class Mine: ...\n")
    targets = ["lab_for_provenance.Mine", "mulligan.training.schedules.Schedule", "lightning.pytorch.Trainer"]
    content = {"callbacks": [{"_target_": target} for target in targets]}
    known = own_sources(content)
    assert known == {"lab_for_provenance": sha256_file(tmp_path / "lab_for_provenance.py")}
    assert own_sources({"callbacks": {"say": {"_target_": "builtins.print"}}}) == {}, "of no file"
    assert changed_sources(tmp_path, {"own_sources_sha256": known}) == []  # the first start
    append_line(tmp_path / "provenance.jsonl", json.dumps({"own_sources_sha256": known}))
    assert changed_sources(tmp_path, {"own_sources_sha256": own_sources(content)}) == []
    (tmp_path / "lab_for_provenance.py").write_text("class Mine: now = 1\n")
    assert changed_sources(tmp_path, {"own_sources_sha256": own_sources(content)}) == ["lab_for_provenance"]


@needs_git
def test_a_checkout_is_known_by_its_commit_and_what_differs(checkout: Path) -> None:
    revision = git(checkout, "rev-parse", "HEAD").strip()
    assert git_state(checkout) == {"revision": revision, "diff_sha256": None}
    (checkout / "code.py").write_text("two\n")
    (checkout / "notes.txt").write_text("not tracked\n")
    shown = git(checkout, "diff", "HEAD", "--binary", "--full-index")
    assert git_state(checkout) == {"revision": revision, "diff_sha256": hashlib.sha256(shown.encode()).hexdigest()}


@needs_git
def test_a_folder_without_a_commit_has_no_git_state(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(checkout / "absent") is None
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.0)
    assert git_state(checkout) is None  # it took too long
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout) is None  # there is no git


def test_outside_of_an_image_there_is_no_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULLIGAN_IMAGE", raising=False)
    assert image_stamp() is None
