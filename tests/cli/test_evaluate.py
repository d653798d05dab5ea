"""``mulligan evaluate``: several suites in one table and one file."""

from pathlib import Path
from weakref import ref

import pytest

from mulligan.cli import compose
from mulligan.evaluation.suites import Subject
from mulligan.files import read_json
from tests.conftest import Cli

EXPOSURE = ("num_prefixes=8", "prefix_tokens=8", "rollout_tokens=8", "continuation_tokens=8")
held: list[ref[set[int]]] = []  # by suites that have failed
ABSENT, WRONG = f"{__name__}.Absent", f"{__name__}.Wrong"


def test_suites_in_one_table_and_one_file(sharded_run: Path, here: Cli) -> None:
    Path("passages.txt").write_text("def foo and bar\nreturn self and other\n")
    names = ["held_out", "text", "lambada", "exposure_bias"]
    options = [f"suite.exposure_bias.{one}" for one in EXPOSURE]
    options += ["suite.text.paths=[passages.txt]", "suite.lambada.path=passages.txt", "output=out.json"]
    done = here("evaluate", f"run={sharded_run}", f"suite=[{','.join(names)}]", *options)
    assert done.returncode == 0, done.stderr
    written = read_json(Path("out.json"))
    assert list(written["suites"]) == sorted(names)
    assert written["step"] == 6
    summary = read_json(sharded_run / "summary.json")
    held_out = written["suites"]["held_out"]
    assert held_out["bits_per_byte"]["value"] == pytest.approx(summary["val_bits_per_byte"], rel=1e-6)
    assert held_out["tokens"] == {"value": summary["val_tokens"], "standard_error": None}
    lines = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [line[0] for line in lines if line[0] in names] == names
    gap = written["suites"]["exposure_bias"]["gap"]
    assert ["gap", f"{gap['value']:.4f}", f"{gap['standard_error']:.4f}"] in lines
    assert ["passages", "2"] in lines


def test_a_mistake_met_at_work_names_the_suite(sharded_run: Path, here: Cli) -> None:
    options = ("suite=[exposure_bias,held_out]", "suite.exposure_bias.num_prefixes=8")
    done = here("evaluate", f"run={sharded_run}", *options)
    assert done.returncode == 2
    assert "mulligan evaluate: suite.exposure_bias: prefix_tokens=64, rollout_tokens=64" in done.stderr
    assert "bits_per_byte" in done.stdout, "the other suite's numbers are lost"


class Absent:
    """A library's task whose data is not there."""

    def __call__(self, subject: Subject) -> dict[str, float]:
        rows = {*range(9)}
        held.append(ref(rows))
        raise FileNotFoundError("Unable to find rows.jsonl")


class Wrong:
    def __call__(self, subject: Subject) -> dict[str, float]:
        assert held[-1]() is None, "what a suite that failed had is still there"
        raise TypeError("a mistake in the suite's code")


def test_each_suite_that_fails_is_told_and_the_others_are_written(sharded_run: Path, here: Cli) -> None:
    options = ("suite=[exposure_bias,held_out]", "suite.exposure_bias.num_prefixes=8", f"+suite.a._target_={ABSENT}")
    done = here("evaluate", f"run={sharded_run}", *options, "output=out.json")
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("mulligan evaluate: suite.exposure_bias: prefix_tokens=64")
    assert second == "mulligan evaluate: suite.a: Unable to find rows.jsonl"
    assert "bits_per_byte" in done.stdout
    written = read_json(Path("out.json"))
    assert list(written["suites"]) == ["held_out"]
    assert list(written["failed"]) == ["a", "exposure_bias"]
    assert written["failed"]["a"] == "FileNotFoundError: Unable to find rows.jsonl"


def test_an_error_that_is_no_mistake_of_the_users_keeps_its_traceback_and_the_others_numbers(
    sharded_run: Path, here: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("suite=[held_out]", f"+suite.a._target_={ABSENT}", f"+suite.wrong._target_={WRONG}")
    with pytest.raises(ExceptionGroup) as raised:
        here("evaluate", f"run={sharded_run}", *options, "output=out.json")
    assert [(type(one), one.__notes__) for one in raised.value.exceptions] == [
        (FileNotFoundError, ["suite.a"]), (TypeError, ["suite.wrong"])
    ]  # fmt: skip
    assert "bits_per_byte" in capsys.readouterr().out
    assert list(read_json(Path("out.json"))["suites"]) == ["held_out"]


def test_a_library_that_is_not_installed_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(path: str) -> None:
        raise ImportError(f"Error loading '{path}'") from ModuleNotFoundError("No module", name="lm_eval")

    monkeypatch.setattr(compose, "get_object", absent)
    assert list(compose.problems({"suite": {"lm_eval": {"_target_": "x"}}}, "")) == [
        "suite.lm_eval needs a library that is not installed: `pip install mulligan[lm-eval]` adds it"
    ]
