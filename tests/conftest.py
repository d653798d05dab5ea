"""A small corpus and tiny runs on it, in this process or in one of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads OpenMP: spinning slows it 2 to 6 times
os.environ["HF_HUB_OFFLINE"] = "1"  # before datasets is imported: no test may touch the network

import pytest
from hypothesis import settings

from mulligan.cli.main import main
from mulligan.data.documents import PythonStdlib
from mulligan.files import exclusive

settings.register_profile("shared machine", deadline=None)  # where an example may wait for its turn
settings.load_profile("shared machine")

TINY = (
    "data=files",
    "tokenizer.vocab_size=400",
    "model.width=16",
    "model.num_layers=2",
    "model.feedforward_width=32",
    "sequence_length=32",
    "global_batch_samples=4",
    "max_steps=8",
    "precision=32-true",
    "compile=false",
    "validation_samples=8",
    "log_every_n_steps=1",
    "checkpoint.every_n_steps=2",
    "data.workers=1",
    "data.validation_fraction=0.2",
)
SHARDED = ("trainer=cpu_fsdp", "max_steps=6", "checkpoint.keep_last=3", "evaluate_every_n_steps=3", "sample_tokens=6")
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what the workers of pytest-xdist make once, under a lock, and all use: it is to stay so."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def corpus(of_all_workers: Path) -> Path:
    """A folder of forty short texts."""
    folder = of_all_workers / "corpus"
    with exclusive(of_all_workers / "corpus.lock"):
        if not folder.is_dir():
            folder.mkdir()
            source = PythonStdlib()
            documents = (document for part in source.parts() for document in source.read(part))
            short = (document for document in documents if 1_000 < len(document.text) < 6_000)
            for number, document in zip(range(40), short, strict=False):
                (folder / f"{number:02d}.txt").write_text(document.text)
    return folder


@pytest.fixture(scope="session")
def prepared(of_all_workers: Path) -> Path:
    """Where the tiny runs find their prepared data: made by the first, used by all."""
    return of_all_workers / "prepared"


@pytest.fixture
def tiny(corpus: Path, prepared: Path) -> tuple[str, ...]:
    """Overrides for a run that takes a second."""
    return (*TINY, f"data.sources.files.paths=[{corpus}/*.txt]", f"data.folder={prepared}")


@pytest.fixture(scope="session")
def sharded_run(of_all_workers: Path, corpus: Path, prepared: Path) -> Path:
    """The folder of a finished run of two FSDP2 ranks, with the checkpoints of steps 2, 4 and 6."""
    folder = of_all_workers / "sharded"
    overrides = (*TINY, f"data.sources.files.paths=[{corpus}/*.txt]", f"data.folder={prepared}", *SHARDED)
    with exclusive(of_all_workers / "sharded.lock"):
        if not (folder / "runs/default/summary.json").is_file():
            folder.mkdir(exist_ok=True)
            done = subprocess.run(
                [sys.executable, "-m", "mulligan", "train", *overrides],
                cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    return folder / "runs/default"


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def lines_of(stderr: str) -> list[str]:
    """But for what torch says where no name server answers, as in a container without a network."""
    return [line for line in stderr.splitlines() if "hostname of the client socket cannot be retrieved" not in line]


@pytest.fixture
def mulligan(tmp_path: Path) -> Cli:
    """Run ``mulligan`` in a process of its own, in an empty folder, ended after a time."""

    def run(*arguments: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mulligan", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run ``mulligan`` in this process, which has the libraries loaded, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr("sys.argv", ["mulligan", *arguments])
        try:
            code = main()
        except SystemExit as end:  # Hydra's way out of --help
            if end.code:
                raise
            code = 0
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run
