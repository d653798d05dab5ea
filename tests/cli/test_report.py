"""``mulligan report`` of a run that went back once, read as text and in a browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from mulligan.cli.compose import CONF, build, plain
from mulligan.cli.main import main
from mulligan.cli.record import write_record
from mulligan.cli.report import caution_of, explorer_or_reason, sources_or_reason
from mulligan.cli.saved_run import SavedRun
from mulligan.evaluation.sampler import Sampler
from mulligan.files import write_json
from mulligan.report.metrics import read_metrics
from mulligan.report.next_token import prompt_context
from tests.conftest import TINY
from tests.training.conftest import silent
from tests.training.test_rewind import sure_at

OPTIONS = (
    "max_steps=12", "validate_every_n_steps=6", "stability.snapshots.every_n_steps=2",
    "stability.policy.depth_steps=2", "stability.policy.skip_steps=5",
    "stability.detector.window=8", "stability.detector.warmup_steps=2",
)  # fmt: skip
QUIET = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync",
)  # fmt: skip
PROMPT = "import "


@pytest.fixture(scope="module")
def reported(corpus: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went back from step 9 to 5, with its page."""
    folder = tmp_path_factory.mktemp("reported") / "healed"
    places = (f"data.sources.files.paths=[{corpus}/*.txt]", f"data.folder={prepared}", f"folder={folder}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        content = plain(compose("train", overrides=[*TINY, *OPTIONS, *places]))
    run = build(content)
    sure_at(run, onset=7, step=8)
    run.fit(silent, silent, lambda: write_record(folder, content))
    with pytest.MonkeyPatch.context() as patch:
        report(patch, f"run={folder}", f"prompts=['{PROMPT}','def f(x):']")
    return folder


def report(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    monkeypatch.setattr("sys.argv", ["mulligan", "report", *overrides])
    assert main() == 0


def test_the_numbers_are_those_of_the_files(reported: Path) -> None:
    html, summary = (reported / "report.html").read_text(), json.loads((reported / "summary.json").read_text())
    (entry,) = (json.loads(line) for line in (reported / "ledger.jsonl").read_text().splitlines())
    for number in (
        f"{summary['val_bits_per_byte']:.4f}", f"{summary['gzip_bits_per_byte']:.4f}", summary["weights_sha256"],
        f"{summary['val_perplexity']:.3f}", f"{summary['num_parameters']:,}", f"{summary['tokens_per_second']:,.0f}",
        f"Went back to the state of step {entry['target']} and left out the samples {entry['skip'][0]}",
    ):  # fmt: skip
        assert number in html
    assert (reported / "config.yaml").read_text().splitlines()[0] in html
    pictures = sorted(path.stem for path in (reported / "report_pictures").glob("*.png"))
    assert pictures == ["loss", "norm", "order", "rate", "speed", "terms"]
    assert html.count("<svg") == 6
    assert "The band reaches" in html
    metrics = read_metrics(reported)
    centres, limits = metrics["loss_centre"], metrics["loss_limit"]
    assert centres.attempts.tolist() == limits.attempts.tolist()
    assert {8, 12, 13} <= set(limits.attempts) <= set(metrics["attempt"].attempts)  # back at 9, judged anew from 10 on
    assert all(centre < limit for centre, limit in zip(centres.values, limits.values, strict=True))


def test_compared_with_another_run_and_written_elsewhere(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(reported, tmp_path / "other", ignore=shutil.ignore_patterns("*.ckpt", "*.html", "metrics"))
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 12", "max_steps: 13"))
    report(monkeypatch, f"run={other}", f"compare={reported}", f"to={tmp_path}/page.html")
    assert capsys.readouterr().out.endswith("it has no whole checkpoint yet\n")
    html = (tmp_path / "page.html").read_text()
    assert "<td><code>max_steps</code></td><td><code>13</code></td><td><code>12</code></td>" in html
    assert re.search(r"stopped, at step 12 of 13</td>\s*<td class=\"number\">finished, all 12 steps", html)
    assert "There are no curves" in html
    assert re.search(r'<p class="missing">The model could not be asked: .*it has no whole checkpoint yet', html)
    assert [path.name for path in (tmp_path / "page_pictures").iterdir()] == ["order.png"]
    assert not (other / "report.html").exists()


def test_what_cannot_be_shown_is_explained(reported: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(reported, tmp_path / "bare", ignore=shutil.ignore_patterns("data.json"))
    run = SavedRun(bare)
    for shown, reason in (sources_or_reason(run), explorer_or_reason(run, None)):
        assert shown == []
        assert f"{bare}/data.json is missing" in reason
    write_json(bare / "data.json", {"folder": "somewhere/files-0123"})
    for _, reason in (sources_or_reason(run), explorer_or_reason(run, None)):
        assert f"somewhere/files-0123, which {bare} was trained on, is missing: bring it back" in reason
    assert explorer_or_reason(SavedRun(reported), []) == ([], "prompts=[] asks for none.")


def test_by_default_held_out_texts_are_asked_too(reported: Path) -> None:
    explorer, reason = explorer_or_reason(SavedRun(reported), None)
    assert reason == ""
    assert [one.origin.split(",")[0] for one in explorer] == ["prompt", *["held out"] * (len(explorer) - 1)]
    assert len(explorer) > 1
    assert all(one.next_rank is not None for one in explorer[1:])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("chromium and chromedriver are not both installed")
    options = Options()
    options.binary_location, profile = str(programs[0]), tmp_path_factory.mktemp("profile")
    for argument in (*QUIET, f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(programs[1])))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: webdriver.Chrome, reported: Path) -> webdriver.Chrome:
    for log in ("browser", "performance"):
        browser.get_log(log)  # what came before this page
    browser.get((reported / "report.html").as_uri())
    return browser


def move(browser: webdriver.Chrome, slider: str, value: float) -> None:
    browser.execute_script(
        "const one = document.getElementById(arguments[0]);"
        "one.value = arguments[1]; one.dispatchEvent(new Event('input'));",
        slider,
        value,
    )


def bars(browser: webdriver.Chrome) -> list[dict[str, Any]]:
    return browser.execute_script(
        "return [...document.querySelectorAll('.bars tbody tr')].map((row) => ({p: Number(row.dataset.p),"
        "width: row.querySelector('i').getBoundingClientRect().width, cut: row.classList.contains('cut')}))"
    )


def logits_after_prompt(reported: Path) -> torch.Tensor:
    """What the page shows first, (V,), in double precision."""
    run = SavedRun(reported)
    with torch.no_grad():
        return run.model()(torch.tensor([prompt_context(run.tokenizer(), PROMPT).ids]))[0, -1].double()


def reading(browser: webdriver.Chrome, name: str) -> float:
    return float(browser.find_element(By.ID, name).text.split()[0].replace(",", ""))


def test_it_opens_without_a_network_or_an_error(opened: webdriver.Chrome) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    requests = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    asked = {one["request"]["url"].split(":")[0] for one in requests if one["documentURL"] == opened.current_url}
    assert asked <= {"file", "data"}, "the page itself and its empty icon"
    assert "file" in asked
    assert opened.get_log("browser") == []
    assert opened.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 3.0])
def test_the_slider_gives_the_softmax_of_the_whole_vocabulary(
    opened: webdriver.Chrome, reported: Path, temperature: float
) -> None:
    p_V = (logits_after_prompt(reported) / temperature).softmax(0).sort(descending=True).values
    evaluated, before = reading(opened, "evaluation"), bars(opened)
    move(opened, "temperature", temperature)
    after = bars(opened)
    assert [bar["p"] for bar in after] == pytest.approx(p_V[:20].tolist(), abs=1e-9)
    entropy = -(p_V * p_V.log()).nan_to_num().sum()
    assert reading(opened, "entropy") == pytest.approx(float(entropy) / 0.6931471805599453, abs=6e-4)
    assert reading(opened, "choices") == pytest.approx(float(entropy.exp()), abs=6e-3)
    assert reading(opened, "next-loss") == pytest.approx(-float(p_V[0].log()), abs=6e-4)
    assert reading(opened, "evaluation") == evaluated, "temperature does not score"
    assert ([bar["width"] for bar in after] != [bar["width"] for bar in before]) is (temperature != 1.0)


def test_the_cuts_keep_the_tokens_that_the_sampler_would(opened: webdriver.Chrome, reported: Path) -> None:
    logits_V = logits_after_prompt(reported)
    kept_V = Sampler(top_p=0.3, temperature=0.5).probabilities(logits_V) > 0
    move(opened, "temperature", 0.5)
    move(opened, "top-p", 0.3)
    count = int(kept_V.sum())
    assert reading(opened, "kept") == count
    assert [bar["cut"] for bar in bars(opened)] == [rank >= count for rank in range(20)]
    move(opened, "top-p", 1.0)
    move(opened, "min-p", 0.5)
    p_V = (logits_V / 0.5).softmax(0)
    assert reading(opened, "kept") == int((p_V >= 0.5 * p_V.max()).sum())


def test_another_prompt_is_chosen(opened: webdriver.Chrome) -> None:
    first = bars(opened)
    opened.execute_script("document.querySelectorAll('.prompts button')[1].click()")
    assert bars(opened) != first
    assert "def f(x):" in opened.find_element(By.CLASS_NAME, "context").text


@pytest.mark.parametrize(
    ("key", "said"),
    [("tokenizer.vocab_size", "both curves do not"), ("data.validation_fraction", "different text"), ("max_steps", "")],
)
def test_what_does_not_compare_is_said(key: str, said: str) -> None:
    assert said in caution_of([(key, 1, 2)])
    assert bool(caution_of([(key, 1, 2)])) == bool(said)
