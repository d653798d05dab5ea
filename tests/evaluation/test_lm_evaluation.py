"""lm-eval's tasks on our model, without a network: the adapter against direct computing, and two tasks of one's own."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: `make test-slow` brings it")

import datasets
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from mulligan.evaluation.generation import Completion, complete
from mulligan.evaluation.lm_evaluation import LmEvalSuite, SubjectLM
from mulligan.evaluation.sampler import Sampler
from mulligan.evaluation.suites import Subject
from mulligan.export.hugging_face import write_folder
from mulligan.safetensors_file import LazyTensors
from tests.evaluation.conftest import make_model

pytestmark = pytest.mark.slow

LONG = "the cat sat on the mat while a dog ran far; " * 9
PAIRS = [
    ("the cat", " sat"),
    ("the cat sat on the ", "mat"),
    ("", "def foo"),
    (LONG, "return bar"),
    ("a dog", " ran far"),
]


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=number)  # type: ignore[arg-type]
        for number, one in enumerate(arguments)
    ]


def losses(subject: Subject, ids: list[int]) -> list[float]:
    """Nats of each token behind a begin mark, with as many before it as the model reads."""
    found, ids = [], [subject.tokenizer.begin_id, *ids]
    for place in range(1, len(ids)):
        with torch.no_grad():
            logits_V = subject.model.eval()(torch.tensor([ids[max(0, place - 64) : place]]))[0, -1]
        found.append(-float(logits_V.log_softmax(0)[ids[place]]))
    return found


def test_loglikelihood_is_of_the_continuation_behind_a_begin_mark(subject: Subject) -> None:
    found = SubjectLM(subject).loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True)
    for (context, continuation), (log_probability, _) in zip(PAIRS, found, strict=True):
        if context == LONG:
            continue  # its beginning is cut off once for all its tokens, not for each
        whole = subject.tokenizer.encode(context + continuation).tolist()
        num_new = len(whole) - len(subject.tokenizer.encode(context.rstrip()))
        assert log_probability == pytest.approx(-sum(losses(subject, whole)[-num_new:]), abs=1e-4)


def test_rolling_counts_each_token_of_a_document_once(subject: Subject) -> None:
    short, long = SubjectLM(subject).loglikelihood_rolling(asked("loglikelihood_rolling", ("a dog ran",), (LONG,)))
    assert short == pytest.approx(-sum(losses(subject, subject.tokenizer.encode("a dog ran").tolist())), abs=1e-4)
    ids = subject.tokenizer.encode(LONG).tolist()
    windows = [ids[:64], *(ids[start - 1 : start + 63] for start in range(64, len(ids) - 64, 63))]
    assert -long > sum(losses(subject, windows[0])) > 0.0
    assert long == pytest.approx(-sum(losses(subject, ids)), rel=0.1)  # less context than for each by itself


def test_generate_until_is_greedy_and_stops(subject: Subject) -> None:
    options = {"until": ["a"], "max_gen_toks": 12, "do_sample": False}
    wanted = []
    for context in ("the cat", "def foo(bar", "a dog ran far"):
        one = Completion(
            subject.tokenizer, context, Sampler(temperature=0.0), max_new_tokens=12, vocab_size=320, stop=["a"],
            redraws_last=False,
        )  # fmt: skip
        complete(subject.model, [one], batch_size=1)
        wanted.append((context, one.text))
    requests = asked("generate_until", *((context, options) for context, _ in wanted), (LONG, {"max_gen_toks": 3}))
    found = SubjectLM(subject).generate_until(requests)
    assert found[:-1] == [text for _, text in wanted]
    assert not any("a" in text for text in found[:-1])
    cut = Completion(
        subject.tokenizer, LONG, Sampler(temperature=0.0), max_new_tokens=3, vocab_size=320, redraws_last=False
    )
    cut.row.context = cut.row.context[-61:]  # room for three of 64, as lm-eval's hf model leaves it
    complete(subject.model, [cut], batch_size=1)
    assert found[-1] == cut.text


def test_an_option_that_cannot_be_followed_is_named(subject: Subject) -> None:
    with pytest.raises(ValueError, match="generation_kwargs of the task: num_beams cannot be followed"):
        SubjectLM(subject).generate_until(asked("generate_until", ("the", {"num_beams": 4})))


def test_a_continuation_that_is_too_long_is_named_with_its_task_and_document(subject: Subject) -> None:
    short, long = (
        Instance("loglikelihood", {}, (" a", text), number, metadata=("choose", 7 + number, 1))
        for number, text in enumerate((" dog", LONG))
    )
    with pytest.raises(ValueError, match=r"tasks: choose, document 8: a continuation of \d+ tokens must have 1 to"):
        SubjectLM(subject).loglikelihood([short, long], disable_tqdm=True)


TASKS = {
    "choose": {
        "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}", "metric_list": [{"metric": "acc", "aggregation": "mean"}],
    },
    "write": {
        "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean"}],
    },
}  # fmt: skip


@pytest.fixture
def tasks(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two tasks whose answers are what the model itself would say, but for one of the first four."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    questions = ["the cat", "def foo(", "a dog", "return bar", "and"]
    said = [Completion(subject.tokenizer, one, Sampler(temperature=0.0), max_new_tokens=4, vocab_size=320,
                       stop=["\n"], redraws_last=False) for one in questions]  # fmt: skip
    complete(subject.model, said, batch_size=5)
    likelier = SubjectLM(subject).loglikelihood(
        asked("loglikelihood", *((one, choice) for one in questions for choice in (" sat", " far"))), disable_tqdm=True
    )
    rows = []
    for number, (question, one) in enumerate(zip(questions, said, strict=True)):
        label = int(likelier[2 * number + 1][0] > likelier[2 * number][0])
        wrong = number in (2, 4)
        answer = "something else" if wrong else one.text
        rows.append({"q": question, "choices": [" sat", " far"], "label": label ^ wrong, "a": answer})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in TASKS.items():
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}}}
        content = {"task": name, "test_split": "test"} | source | task
        (tmp_path / f"{name}.yaml").write_text(json.dumps(content))  # JSON is YAML
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_tasks_of_ones_own(subject: Subject, tasks: Path) -> None:
    scores = LmEvalSuite(tasks=["choose", "write"], include_path=str(tasks), limit=4)(subject)
    assert scores["choose acc"].value == scores["write exact_match"].value == 0.75
    assert scores["choose acc"].standard_error == pytest.approx((0.75 * 0.25 / 3) ** 0.5)


@pytest.mark.filterwarnings("ignore")  # the library's own
def test_the_exported_model_has_the_same_scores(subject: Subject, tasks: Path, tmp_path: Path) -> None:
    """By lm-eval's own model for what transformers loads. That may draw tokens which the tokenizer does not have, and
    spells bytes that form no character otherwise: this model draws neither.
    """
    model = make_model(subject.tokenizer.vocab_size, max_length=64, init_std=0.3)
    lengths = torch.from_numpy(subject.tokenizer.token_bytes())
    with torch.no_grad():
        model.embedding.weight[: int((lengths > 1).nonzero()[0])] = 0.0  # marks and bytes: their logits are 0
    subject = subject._replace(model=model)
    folder = tmp_path / "exported"
    folder.mkdir()
    weights = {name: weight.detach() for name, weight in subject.model.named_parameters()}
    lazy = LazyTensors({name: weight.to("meta") for name, weight in weights.items()}, weights.__getitem__)
    write_folder(folder, config=subject.model.config, weights=lazy, tokenizer=subject.tokenizer, card="")
    huggingface = pytest.importorskip("lm_eval.models.huggingface")  # takes seconds
    theirs = huggingface.HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=3)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = simple_evaluate(theirs, tasks=["choose", "write"], task_manager=manager)["results"]
    ours = LmEvalSuite(tasks=["choose", "write"], include_path=str(tasks))(subject)
    assert ours["choose acc"].value == found["choose"]["acc,none"]
    assert ours["write exact_match"].value == found["write"]["exact_match,none"]
    requests = asked("loglikelihood", *PAIRS)
    for (one, _), (other, _) in zip(
        SubjectLM(subject).loglikelihood(requests, disable_tqdm=True), theirs.loglikelihood(requests), strict=True
    ):
        assert one == pytest.approx(other, abs=1e-3)
    options = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
    written = [
        lm.generate_until(asked("generate_until", *((context, dict(options)) for context, _ in PAIRS[:2])))
        for lm in (SubjectLM(subject), theirs)
    ]
    assert written[0] == written[1]
    assert all(written[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tasks": []}, r"tasks=\[\] names no task"),
        ({"tasks": ["x"], "include_path": "nowhere"}, "include_path=nowhere is not a folder"),
        ({"tasks": ["x"], "limit": 0}, "limit=0 must be at least 1, or null"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LmEvalSuite(**options)


def test_an_unknown_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lm-eval has no task 'lambda_openai'"):
        LmEvalSuite(tasks=["lambda_openai"], include_path=str(tmp_path))
