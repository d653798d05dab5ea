"""The page holds what the files hold, escaped, and says what it does not have."""

import re
from html import unescape
from typing import Any

import numpy as np
import pytest

from mulligan.report.next_token import NextToken
from mulligan.report.page import Compared, page, rows_of_numbers, samples_of
from mulligan.report.rendering import Picture
from mulligan.report.run_files import RunFiles
from mulligan.report.sample_order import Source
from tests.report.conftest import REWIND, MakeRun, logged

EVIL = "</script><script>alert(1)</script>&"


def html_of(run: RunFiles, **changed: Any) -> str:
    given: dict[str, Any] = {
        "config": "name: made\n",
        "band_note": "",
        "sources": [],
        "without_sources": "no data",
        "explorer": [],
        "without_explorer": "no model",
        "compared": None,
    }
    return page(run, [Picture("loss", "<svg>drawn</svg>", b"")], **given | changed)


def text_of(html: str) -> str:
    """What a reader sees, with single blanks."""
    body = re.sub(r"<(style|script)\b.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_numbers_of_a_healed_run(healed: RunFiles) -> None:
    text = text_of(html_of(healed, sources=[Source("stdlib", 7, 1000, 1.0)]))
    assert "made finished all 12 steps; 1 intervention." in text
    assert "held-out bits per byte 1.2500 this model 1.2500 xz -9e 1.5000 gzip -9 2.5000" in text
    assert "weights sha256 " + "ab" * 32 in text
    assert "tokens trained on 384 tokens lost to rewinds 96 samples left out for good 12 tokens in these 96" in text
    assert "passes over the data 0.38" in text
    assert "stdlib 7 1,000 100.0 %" in text
    assert "Went back to the state of step 8 and left out the samples 32 to 43." in text
    assert "the finished model after “def ” def f(): pass" in text
    assert "drawn" in text
    assert "no model" in text


def test_samples_left_out_twice_count_once(made_run: MakeRun) -> None:
    deeper = REWIND | {"attempt": 14, "step": 11, "target": 5, "skip": [20, 50]}
    text = text_of(html_of(made_run(ledger=[("rewind", REWIND), ("rewind", deeper)])))
    assert "samples left out for good 30 tokens in these 240" in text


def test_a_run_of_which_nothing_is_there(made_run: MakeRun) -> None:
    text = text_of(html_of(made_run()))
    assert "made stopped at step 0 of 12; nothing had to be done to it." in text
    assert "interventions 0 nothing had to be done" in text
    for missing in (
        "no validation yet",
        "There are no curves",
        "None: the ledger has no line.",
        "No text was sampled.",
    ):
        assert missing in text
    assert "Without provenance.jsonl" in text
    assert "no data" in text


def test_of_a_run_that_nobody_watched_it_is_not_said_that_all_was_well(made_run: MakeRun) -> None:
    run = made_run()
    text = text_of(html_of(run._replace(planned=run.planned._replace(is_watched=False))))
    assert "made stopped at step 0 of 12; its loss was not watched (stability=none)." in text
    assert "interventions 0 the loss was not watched" in text


def test_whatever_a_run_wrote_is_text(made_run: MakeRun) -> None:
    run = made_run()._replace(
        name=EVIL, samples=[{"step": 3, "prompt": EVIL, "text": EVIL + "more"}], provenance=[{"time": EVIL, EVIL: EVIL}]
    )
    explorer = [NextToken("prompt", EVIL, np.zeros(2, np.float32), [EVIL, "<begin>"], 0, EVIL)]
    html = html_of(run, config=EVIL, explorer=explorer, compared=Compared(EVIL, [], [(EVIL, EVIL, EVIL)]))
    assert "alert(1)" in text_of(html)
    assert EVIL not in html
    assert html.count("<script") == html.count("</script>") == 2, "the data of the explorer, and its script"


def test_it_asks_for_nothing_outside_of_itself(healed: RunFiles) -> None:
    html = html_of(healed)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)|url\(|@import|https?:", html)
    assert "default-src 'none'" in html


def test_samples_written_during_training_come_in_place_of_the_last(healed: RunFiles) -> None:
    many = [{"step": step, "attempt": step, "prompt": "def ", "text": f"def f{step}"} for step in range(100)]
    shown, note = samples_of(healed._replace(samples=many))
    assert [sample.when for sample in shown] == [f"step {step}" for step in range(0, 100, 9)]
    assert (shown[-1].prompt, shown[-1].text) == ("def ", "f99")
    assert note.startswith("12 of the 100 texts")
    (only,), _ = samples_of(healed._replace(samples=[{"prompt": "def ", "text": "g"}]))
    assert only == ("a step that was not noted", "def ", "g"), "a text that does not repeat its prompt"


def test_two_runs_side_by_side(healed: RunFiles, made_run: MakeRun) -> None:
    other = made_run()._replace(name="other", summary={})
    rows = rows_of_numbers(healed, other)
    assert ("held-out nats a token", "2.0794", "-") in rows
    html = html_of(healed, compared=Compared("other", rows, [("optimizer.lr", 0.1, 0.2)]))
    assert "optimizer.lr 0.1 0.2" in text_of(html)
    assert "Nothing but names and places." in text_of(html_of(healed, compared=Compared("other", rows, [])))


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_loss_that_is_no_number(loss: str, made_run: MakeRun) -> None:
    assert "stopped" in text_of(html_of(made_run([logged(1, 1, loss)])))
