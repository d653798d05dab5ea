"""The page on parts of one's own: its code runs as it stands there."""

import json
import shlex
from pathlib import Path
from textwrap import dedent

import pytest

from tests.conftest import Cli

PAGE = (Path(__file__).parents[2] / "docs/own_parts.md").read_text()


def block(first: str) -> str:
    """The indented lines of the page from ``first`` on."""
    lines = PAGE[PAGE.index(f"    {first}") :].splitlines()
    end = next(number for number, line in enumerate(lines) if line and not line.startswith("    "))
    return dedent("\n".join(lines[:end])).strip() + "\n"


def test_the_example_trains(here: Cli, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mylab.py").write_text(block("import torch"))
    files, command = block("# mine/optimizer").split("$ mulligan ")
    for file in files.split("# ")[1:]:
        name, content = file.split("\n", 1)
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content)
    done = here(
        *shlex.split(command.replace("\\\n", " ")), *tiny, "evaluate_every_n_steps=4", f"data.folder={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/default/notes.txt").read_text() == "ended at step 8\n"
    assert list((json.loads((tmp_path / "runs/default/provenance.jsonl").read_text()))["own_sources_sha256"]) == [
        "mylab"
    ]
    assert here("replay", "run=runs/default").stdout.splitlines()[-1].startswith("bit-identical")
    assert (tmp_path / "runs/default/notes.txt").read_text() == "ended at step 8\n"
