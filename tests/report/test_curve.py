"""Curves are read from CSV, JSON lines and run folders; what is broken is named by file and line."""

import json
import math
import re
from pathlib import Path

import pytest

from mulligan.report.curve import Curve, read_curve


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_csv_and_json_lines_give_the_same_curve(tmp_path: Path) -> None:
    rows = [(1, 3.0, 1.5), (2, math.nan, 2.5), (4, 2.5, math.inf)]
    table = "step,loss,other,gradient_norm\n" + "".join(f"{step},{loss},,{norm}\n" for step, loss, norm in rows)
    lines = [json.dumps({"step": step, "loss": loss, "gradient_norm": norm}) for step, loss, norm in rows]
    csv = read_curve(written(tmp_path / "a.csv", table))
    assert csv.steps == [1, 2, 4]
    assert csv.losses == pytest.approx([3.0, math.nan, 2.5], nan_ok=True)
    assert csv.norms == [1.5, 2.5, math.inf]
    assert str(read_curve(written(tmp_path / "a.jsonl", "\n\n".join(lines)))) == str(csv)


def test_rows_without_a_loss_are_passed_over_and_a_missing_norm_leaves_no_norms(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "step,loss,val_loss,gradient_norm\n5,3.0,,1.0\n5,,2.9,\n10,2.8,,\n")
    assert read_curve(path) == Curve([5, 10], [3.0, 2.8], None)


def test_attempt_and_cross_entropy_come_first_and_names_can_be_given(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "attempt,step,loss,cross_entropy,grad\n1.0,1,3.1,3.0,7\n2.0,1,2.1,2.0,8\n")
    assert read_curve(path) == Curve([1, 2], [3.0, 2.0], None)
    assert read_curve(path, loss_column="loss", norm_column="grad") == Curve([1, 2], [3.1, 2.1], [7.0, 8.0])
    with pytest.raises(ValueError, match=r"a\.csv:3: step=1 comes after 1; .* step_column="):
        read_curve(path, step_column="step")


def test_the_starts_of_a_run_are_joined_by_attempt(tmp_path: Path) -> None:
    header = "attempt,cross_entropy,interventions,step\n"
    for version, rows in {
        0: "10,3.0,,10\n20,2.9,,20\n30,9.0,,30\n",
        2: "30,2.8,,30\n,,1,20\n",
        10: "40,5,,25\n",
    }.items():
        written(tmp_path / f"runs/x/metrics/version_{version}/metrics.csv", header + rows)
    assert read_curve(tmp_path / "runs/x") == Curve([10, 20, 30, 40], [3.0, 2.9, 2.8, 5.0], None)
    written(tmp_path / "runs/x/metrics/version_11/metrics.csv", header + "10,4,,10\n20,3,,20\n")
    assert read_curve(tmp_path / "runs/x") == Curve([10, 20], [4.0, 3.0], None), "begun anew"
    written(tmp_path / "runs/y/metrics/version_0/metrics.csv", header)
    with pytest.raises(ValueError, match=r"metrics\.csv of one run, and holds those of .*runs/x/metrics, .*runs/y"):
        read_curve(tmp_path / "runs")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", b"", r"a\.csv:1: the file has no rows"),
        ("a.csv", b"step,loss\n", r"a\.csv:1: the file has no rows"),
        ("a.csv", b"step,loss\n1,\n", r"a\.csv has no row with a number in the column loss"),
        ("a.csv", b"step,los\n1,2.0\n", r"no column cross_entropy or loss; name one by loss_column=NAME, of step, los"),
        ("a.csv", b"loss\n2.0\n", r"no column attempt or step; name one by step_column=NAME, of loss"),
        ("a.csv", b"step,loss\n1,2.0\n2\n", r"a\.csv:3: 1 cells where the header has 2; was it cut\?"),
        ("a.csv", b"step,loss\n1,2.0\n2,2.x\n", r"a\.csv:3: loss='2\.x' is not a number"),
        ("a.csv", b"step,loss\n1,2.0\n\xff,2.0\n", r"a\.csv:3: step='.' is not a number"),
        ("a.csv", b"step,loss\n1.5,2.0\n", r"a\.csv:2: step=1\.5 must be a whole number"),
        ("a.csv", b"step,loss\n,2.0\n", r"a\.csv:2: step=None must be a whole number"),
        ("a.csv", b"step,loss\n5,2.0\n4,2.0\n", r"a\.csv:3: step=4 comes after 5"),
        ("a.csv", b"step,loss,loss\n1,2.0,3.0\n", r"a\.csv:1: the header names the column 'loss' twice"),
        ("a.csv", b"step,loss\n1," + b"9" * 200_000, r"a\.csv:2: field larger than"),
        ("a.jsonl", b"", r"a\.jsonl:1: the file has no rows"),
        ("a.jsonl", b'{"step": 1, "loss": 2.0}\n{"step": 2, "lo', r"a\.jsonl:2: not whole JSON"),
        ("a.jsonl", b"[1, 2.0]\n", r"a\.jsonl:1: \[1, 2\.0\] must be a JSON object"),
        ("a.jsonl", b'{"step": 1, "loss": [2]}\n', r"a\.jsonl:1: loss=\[2\] is not a number"),
        ("a.jsonl", b'{"step": 1' + b"0" * 400 + b', "loss": 2.0}\n', r"a\.jsonl:1: step=10+ is not a number"),
        ("a.txt", b"step,loss\n1,2.0\n", r"a\.txt must be a \.csv or \.jsonl file"),
    ],
)
def test_a_broken_file_gives_one_error(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_curve(tmp_path / name)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"curve={tmp_path}/none.csv must be a .csv or .jsonl file")):
        read_curve(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"metrics\.csv of one run, and holds none"):
        read_curve(tmp_path)
    path = written(tmp_path / "a.csv", "step,loss\n1,2.0\n")
    with pytest.raises(ValueError, match=r"no column norm; name one by norm_column=NAME, of step, loss"):
        read_curve(path, norm_column="norm")
