"""The front door of benchmarks/: rows are judged by their targets, and the page shows what was measured."""

import json
import sys

import pytest

from benchmarks import page
from benchmarks.report import Report


@pytest.fixture
def report() -> Report:
    made = Report()
    made.judge("loader", ours=120.0, unit="M tokens/s", at_least=80.0)
    made.judge("seek", ours=60.0, unit="us", at_most=50.0)
    made.judge("speed", ours=300.0, unit="tokens/s", peer="bare loop", theirs=200.0, ratio=1.5, at_least=1.2)
    made.judge("memory", ours=4.0, unit="MB", peer="plain", theirs=2.0, ratio=2.0, at_most=0.1)
    made.judge("shown", ours=1.0, unit="s")
    return made


def test_target_is_for_the_ratio_where_there_is_one(report: Report) -> None:
    assert [row["verdict"] for row in report.judged] == ["pass", "short", "pass", "short", "-"]
    assert [page.times_better(row) for row in report.judged[:4]] == pytest.approx([1.5, 50 / 60, 1.25, 0.05])


def test_page_takes_the_measured_rows_and_keeps_its_words(report: Report, tmp_path, monkeypatch) -> None:
    report.judged = [row | {"command": "python -m benchmarks.data"} for row in report.judged]
    report.write(tmp_path / "measured.json")
    text, picture = tmp_path / "page.md", tmp_path / "picture.png"
    text.write_text(f"Before.\n{page.BEGIN}\nold numbers\n{page.END}\nAfter.\n")
    command = ["page", str(tmp_path / "measured.json"), "--page", str(text), "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", command)
    page.main()
    content = text.read_text()
    assert content.startswith("Before.\n")
    assert content.endswith("\nAfter.\n")
    assert "old numbers" not in content
    assert "`python -m benchmarks.data`" in content
    assert "| speed | 300 | 200 | tokens/s | bare loop | 1.5 | >= 1.2 | pass |" in content
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "measured.json").read_text())["judged"][1]["verdict"] == "short"
