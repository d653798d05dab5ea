"""``mulligan generate`` on a finished run: what is printed, and what the file holds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mulligan.cli.saved_run import SavedRun
from tests.conftest import Cli

Generate = Callable[..., str]


@pytest.fixture
def generate(sharded_run: Path, here: Cli) -> Generate:
    """Run the verb with eight new tokens at most, and return what it prints."""

    def run(*arguments: str) -> str:
        done = here("generate", f"run={sharded_run}", "max_new_tokens=8", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def rows(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().removesuffix("\n").split("\n")]


def test_prompts_of_a_list_and_of_a_file_have_the_texts_they_have_alone(generate: Generate) -> None:
    Path("prompts.txt").write_text("def \n\nimport os\n")
    listed = generate("prompts=['def ','import os']", "output=listed.jsonl")
    assert listed == generate("prompts_file=prompts.txt", "output=filed.jsonl", "batch_size=1")
    for one, other in zip(rows("listed.jsonl"), rows("filed.jsonl"), strict=True):
        rounded = pytest.approx(
            one.pop("log_probabilities"), abs=1e-5
        )  # a batch's products are summed in another order
        assert other.pop("log_probabilities") == rounded
        assert one == other
    for prompt, row in zip(("def ", "import os"), rows("listed.jsonl"), strict=True):
        assert row["prompt"] == prompt
        assert f"{prompt}{row['text']}\n" in listed
        assert generate(f"prompt='{prompt}'") == f"{prompt}{row['text']}\n"


def test_a_form_feed_ends_no_line_of_a_file_of_prompts(generate: Generate) -> None:
    Path("prompts.txt").write_text("a\fb\u2028c\r\nd\n")
    generate("prompts_file=prompts.txt", "output=out.jsonl", "max_new_tokens=1")
    assert [row["prompt"] for row in rows("out.jsonl")] == ["a\fb\u2028c", "d"]


def test_the_file_holds_tokens_with_the_log_probabilities_of_the_model(generate: Generate, sharded_run: Path) -> None:
    generate("prompt=''", "output=out.jsonl", "sampler.temperature=0.5")
    (row,) = rows("out.jsonl")
    run = SavedRun(sharded_run)
    tokenizer = run.tokenizer()
    assert row["ended_by"] == "length"
    assert tokenizer.decode(row["tokens"]) == row["text"]
    with torch.no_grad():
        logits_TV = run.model().cpu().eval()(torch.tensor([[tokenizer.begin_id, *row["tokens"][:-1]]]))[0]
    log_probabilities = logits_TV[:, : tokenizer.vocab_size].log_softmax(1)
    wanted = log_probabilities.gather(1, torch.tensor(row["tokens"]).unsqueeze(1)).squeeze(1)
    assert row["log_probabilities"] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_stop_string_ends_the_text_on_the_way(generate: Generate) -> None:
    whole = generate("prompt=''").removesuffix("\n")
    assert generate("prompt=''", f"stop=['{whole[2]}']") == f"{whole[: whole.index(whole[2])]}\n"


def test_each_draw_is_explained(generate: Generate) -> None:
    shown = generate("prompt='def '", "explain=true", "max_new_tokens=3", "sampler.top_k=4", "output=out.jsonl")
    (row,) = rows("out.jsonl")
    assert shown.startswith(f"def {row['text']}\n")
    headings = [line for line in shown.splitlines() if line.startswith("token ")]
    assert len(headings) == 3
    assert "the filters leave 4" in headings[-1]
    assert sum(line.startswith(">") for line in shown.splitlines()) == 3, "which was drawn"
    drawn = [line.split() for line in shown.splitlines() if line.startswith(">")]
    assert [float(words[4]) for words in drawn] == pytest.approx(row["log_probabilities"], abs=2e-3)
    assert "\x1b" not in shown
