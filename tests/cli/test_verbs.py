"""The verbs in order, each a process of its own, as a user runs them."""

import json
import re
import sys
from pathlib import Path

import pytest

import mulligan.cli.main
from tests.conftest import Cli

PREPARING = ("data", "tokenizer")


def test_prepare_train_evaluate_generate(mulligan: Cli, tiny: tuple[str, ...], tmp_path: Path) -> None:
    own = (*tiny, f"data.folder={tmp_path}/prepared", "data.workers=2")
    prepared = mulligan("prepare", *(key for key in own if key.startswith(PREPARING)))
    assert prepared.returncode == 0, prepared.stderr
    assert "train: " in prepared.stdout
    assert "is ready, fingerprint" in prepared.stdout

    trained = mulligan("train", *own)
    assert trained.returncode == 0, trained.stderr
    assert "tokenizing" not in trained.stdout, "the prepared data was not found"
    assert "step 8/8 (100%)" in trained.stdout
    assert "gzip -9" in trained.stdout
    assert trained.stderr == ""
    summary = json.loads((tmp_path / "runs/default/summary.json").read_text())

    evaluated = mulligan("evaluate", "run=runs/default")
    assert evaluated.returncode == 0, evaluated.stderr
    numbers = [float(word) for word in re.findall(r"\d+\.\d+", evaluated.stdout)]
    wanted = [summary[f"val_{name}"] for name in ("perplexity", "bits_per_token", "bits_per_byte")]
    assert numbers == pytest.approx(wanted, rel=1e-4)

    options = ("run=runs/default", "prompt='def '", "max_new_tokens=9")
    generated, again = mulligan("generate", *options), mulligan("generate", *options)
    assert generated.returncode == 0, generated.stderr
    assert generated.stdout.startswith("def ")
    assert generated.stdout == again.stdout


def test_help_shows_verbs_and_keys(mulligan: Cli) -> None:
    assert "generate" in mulligan("--help").stdout
    shown = mulligan("train", "--help")
    assert shown.returncode == 0
    assert "max_steps: 1000" in shown.stdout
    assert "label_smoothing" in shown.stdout


def test_no_file_of_a_verb_hides_a_module_of_python() -> None:
    """Lightning starts other ranks by such a file's path, which puts its folder before Python's own modules."""
    assert not {path.stem for path in Path(mulligan.cli.main.__file__).parent.glob("*.py")} & sys.stdlib_module_names
