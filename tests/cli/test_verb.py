"""What is told before a run's libraries are loaded: help, the config, and mistakes that composing finds."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mulligan.cli.main import VERBS
from tests.conftest import Cli, environment

LIBRARIES = ["torch", "lightning", "datasets", "wandb", "pydantic", "numpy", "tokenizers", "matplotlib"]
COMMANDS = [
    *(f"{verb} --help" for verb in VERBS),
    "train --cfg job --resolve",
    "train model=initial initial_weights=here --cfg job --resolve",
    "train sede=1",
    "train model=tinyy",
]
SAYS = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from mulligan.cli.main import main
commands, libraries = json.loads(sys.argv[1])
told = {}
for command in commands:
    sys.argv = ["mulligan", *command.split()]
    with redirect_stdout(StringIO()) as out, redirect_stderr(out), suppress(SystemExit):
        main()
    told[command] = [out.getvalue(), sorted(sys.modules.keys() & set(libraries))]
print(json.dumps(told))
"""
SHAPE = {"vocab_size": 50, "max_length": 16, "width": 8, "num_layers": 3, "num_heads": 2, "feedforward_width": 9}


def test_nothing_is_loaded_for_what_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/model.json").write_text(json.dumps(SHAPE))
    done = subprocess.run(
        [sys.executable, "-c", SAYS, json.dumps([COMMANDS, LIBRARIES])],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert {command: loaded for command, (_, loaded) in told.items() if loaded} == {}
    for verb in VERBS:
        assert "Keys, as KEY=VALUE" in told[f"{verb} --help"][0]
    assert "\nmax_steps: 1000\n" in told["train --cfg job --resolve"][0]
    assert "  num_layers: 3\n" in told[COMMANDS[-3]][0]
    assert "sede: there is no such key" in told["train sede=1"][0]
    assert "model=tinyy is not one of" in told["train model=tinyy"][0]


@pytest.mark.parametrize("words", [("--help",), ("plan", "--help"), ("plan", "model=mini")])
def test_a_pipe_that_nobody_reads_ends_it_without_a_word(words: tuple[str, ...], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mulligan", *words]
    try:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_another_pipe_that_breaks_is_told(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("mulligan.cli.plan.work", broken)
    done = here("plan")
    assert (done.returncode, done.stderr) == (2, "mulligan plan: [Errno 32] Broken pipe\n")
