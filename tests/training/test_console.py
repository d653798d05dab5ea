"""What a person sees while a run trains."""

import re
import sys

import pytest
from hydra.errors import InstantiationException

from tests.training.conftest import MakeRun, silent


def test_plain_lines_come_every_so_many_steps(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("print_every_n_steps=3", "validate_every_n_steps=4").train(silent, silent)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split("/")[0] for line in lines] == ["step 3", "step 4", "step 6", "step 8", "step 8"]
    for part in (r"\(100%\)", r"loss \d\.\d{3}", r"tokens/s [\d,]+", "0:00:00 left"):
        assert re.search(part, lines[3])
    assert ["held-out bits/byte" in line for line in lines] == [False, True, False, False, True]


def test_a_terminal_shows_a_bar(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    make_run().train(silent, silent)
    shown = capsys.readouterr().out
    assert "step 8/8" not in shown
    assert "8/8" in shown
    assert re.search(r"loss \d\.\d{3}", shown)


def test_a_mistake_is_named(make_run: MakeRun) -> None:
    with pytest.raises(InstantiationException, match="print_every_n_steps=0 must be at least 1"):
        make_run("print_every_n_steps=0")
