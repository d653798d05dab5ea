"""The verbs in order, as a user runs them: those that start processes in one of their own, the others in this one."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mulligan.cli import main as main_file
from tests.conftest import Cli

PREPARING = ("data", "tokenizer")
Printed = Callable[..., str]


@pytest.fixture
def printed(here: Cli) -> Printed:
    """Run a verb that does well in this process, and return what it prints."""

    def run(*arguments: str) -> str:
        done = here(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_prepare_in_shares(printed: Printed, tiny: tuple[str, ...], tmp_path: Path) -> None:
    own = ("prepare", *(key for key in tiny if key.startswith(PREPARING)), f"data.folder={tmp_path}/prepared")
    own += ("data.sources.files.part_bytes=20000",)
    first = printed(*own, "prepare.part=1", "prepare.parts=2")
    there, total = map(int, re.findall(r"(\d+) of (\d+) parts are there; `mulligan prepare` without", first)[0])
    assert there == total // 2
    assert "is ready" not in first
    whole = printed(*own)
    assert f"{there} of {total} parts are tokenized already, {total - there} are left to do here" in whole
    assert "is ready, fingerprint" in whole
    assert "is prepared already" in printed(*own, "prepare.part=0", "prepare.parts=2")
    shown = printed("prepare", "--help")
    assert "machines share the work; a last call without these two checks and joins" in shown
    assert "counted from 0: $SLURM_ARRAY_TASK_ID of an --array=0-63, with parts: 64" in shown


def test_prepare_train_evaluate_generate(
    mulligan: Cli, printed: Printed, tiny: tuple[str, ...], tmp_path: Path
) -> None:
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

    evaluated = printed("evaluate", "run=runs/default")
    numbers = [float(word) for word in re.findall(r"\d+\.\d+", evaluated)]
    wanted = [summary[f"val_{name}"] for name in ("perplexity", "bits_per_token", "bits_per_byte")]
    assert numbers == pytest.approx(wanted, rel=1e-4)

    options = ("run=runs/default", "prompt='def '", "max_new_tokens=9")
    generated = printed("generate", *options)
    assert generated.startswith("def ")
    assert generated == printed("generate", *options)


def test_help_shows_verbs_and_keys(printed: Printed) -> None:
    assert "generate" in printed("--help")
    shown = printed("train", "--help")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "max_steps: 1000 # one of these three" in lines
    assert "num_heads: 2 # wide heads: attention on a CPU costs by the head" in lines, "of the chosen file"
    assert "norm: rms # rms | layer" in lines, "of the file that it builds on"
    assert "schedule constant [cosine] linear wsd" in lines
    assert not any(line.startswith("_target_") for line in lines)
    assert "num_heads: 12" in printed("train", "--help", "model=gpt2_124m")
    shown = printed("evaluate", "--help", "suite=[held_out,lambada]")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "suite exposure_bias [held_out] [lambada] lm_eval text" in lines
    assert "limit: null # passages; null: all, 5,153 of the hub's" in lines


def test_choices_of_ones_own_are_shown_and_named(printed: Printed, here: Cli, tmp_path: Path) -> None:
    (tmp_path / "own/optimizer").mkdir(parents=True)
    (tmp_path / "own/optimizer/slow.yaml").write_text("defaults: [adamw]\nlr: 1.0e-5  # a hundredth of ours\n")
    shown = printed("train", "--help", "--config-dir", "own", "optimizer=slow")
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "optimizer adamw [slow]" in lines
    assert "lr: 1.0e-05 # a hundredth of ours" in lines
    for option in (["--config-dir", "own"], ["--config-dir=own"]):
        done = here("train", *option, "optimizer=[adamw,slwo]")
        assert "optimizer=slwo is not one of adamw, slow; did you mean slow?" in done.stderr


def test_no_file_of_a_verb_hides_a_module_of_python() -> None:
    """Lightning starts other ranks by such a file's path, which puts its folder before Python's own modules."""
    assert not {path.stem for path in Path(str(main_file.__file__)).parent.glob("*.py")} & sys.stdlib_module_names
