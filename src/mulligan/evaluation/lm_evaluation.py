"""Any task of EleutherAI's lm-eval (Gao et al. 2021) on our own model, without a detour over an exported one.

A context is framed as in training, and as lm-eval's ``hf`` model does where the tokenizer adds a begin mark: that mark,
then the text. Only ``loglikelihood_rolling`` differs from it: there ``hf`` would set two marks, and have the second
predicted; with its ``add_bos_token=False`` it agrees.
"""

import json
import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from mulligan.evaluation.generation import Completion, complete
from mulligan.evaluation.likelihood import NotScorable, Pair, likelihoods
from mulligan.evaluation.sampler import Sampler
from mulligan.evaluation.suites import Score, Subject

DEFAULT_NEW_TOKENS = 256  # as lm-eval's hf model
NEW_TOKENS_KEYS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
BOOTSTRAP_ITERATIONS = 1000  # for the metrics whose standard error has no closed form
os.environ.setdefault("DISABLE_MULTIPROC", "1")  # its bootstrap would fork a process that has threads


class LmEvalSuite:
    """``tasks`` are names of tasks, groups or tags; ``include_path`` is a folder with more of them. ``num_fewshot`` and
    ``limit``, the documents of a task, are the tasks' own by default.
    """

    def __init__(
        self,
        *,
        tasks: list[str],
        include_path: str | None = None,
        num_fewshot: int | None = None,
        limit: int | None = None,
    ) -> None:
        if not tasks:
            raise ValueError("tasks=[] names no task of lm-eval")
        if include_path is not None and not Path(include_path).is_dir():
            raise ValueError(f"include_path={include_path} is not a folder")
        for name, number, least in (("num_fewshot", num_fewshot, 0), ("limit", limit, 1)):
            if number is not None and number < least:
                raise ValueError(f"{name}={number} must be at least {least}, or null")
        # Of one's own first: to look through lm-eval's takes eight seconds.
        self.manager = TaskManager(include_path=include_path, include_defaults=False)
        if not all(self.manager.match_tasks([task]) for task in tasks):
            self.manager = TaskManager(include_path=include_path)
        for task in tasks:
            if not self.manager.match_tasks([task]):
                raise ValueError(f"tasks: lm-eval has no task {task!r}; `lm-eval ls tasks` lists them")
        self.tasks, self.num_fewshot, self.limit = tasks, num_fewshot, limit

    def __call__(self, subject: Subject) -> dict[str, Score]:
        found = simple_evaluate(
            model=SubjectLM(subject),
            tasks=list(self.tasks),
            num_fewshot=self.num_fewshot,
            limit=self.limit,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
            log_samples=False,
            task_manager=self.manager,
        )
        return {} if found is None else _scores(found["results"])  # only rank zero has any


def _scores(results: dict[str, dict[str, Any]]) -> dict[str, Score]:
    """``acc,none`` and ``acc_stderr,none`` of a task as one score; of other filters than none with their name."""
    scores = {}
    for task, numbers in results.items():
        for key, value in numbers.items():
            metric, _, chosen = key.partition(",")
            if not chosen or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = numbers.get(f"{metric}_stderr,{chosen}")
            name = f"{task} {metric}" if chosen == "none" else f"{task} {metric} ({chosen})"
            scores[name] = Score(value, error if isinstance(error, int | float) else None)
    return scores


class SubjectLM(TemplateLM):
    """What lm-eval asks of a model. The split into context and continuation is its own."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject, self.max_length = subject, subject.model.config.max_length

    @property
    def eot_token_id(self) -> int:
        return self.subject.tokenizer.end_id

    @property
    def prefix_token_id(self) -> int:
        return self.subject.tokenizer.begin_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        ids: list[int] = self.subject.tokenizer.encode(string).tolist()
        return ids if add_special_tokens is False else [self.prefix_token_id, *ids]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        try:
            return super().loglikelihood(requests, disable_tqdm)
        except NotScorable as error:
            one = requests[error.number]
            raise ValueError(f"tasks: {one.task_name}, document {one.doc_id}: {error}") from None

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs = [Pair(context, continuation) for _, context, continuation in requests]
        found = self._likelihoods(pairs)
        return [(one.log_probability, one.is_greedy) for one in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        windows = [
            (number, Pair(*make_disjoint_window(window)))
            for number, request in enumerate(requests)
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0], add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
        ]
        sums = [0.0] * len(requests)
        found = self._likelihoods([pair for _, pair in windows])
        for (number, _), one in zip(windows, found, strict=True):
            sums[number] += one.log_probability
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        texts: dict[int, str] = {}
        options = [json.dumps(request.args[1], sort_keys=True) for request in requests]
        order = sorted(range(len(requests)), key=lambda number: options[number])
        for _, group in groupby(order, key=lambda number: options[number]):
            numbers = list(group)
            completions = [self._completion(*requests[number].args) for number in numbers]
            complete(
                self.subject.model,
                completions,
                batch_size=self.subject.batch_size,
                autocast_dtype=self.subject.autocast_dtype,
            )
            texts |= {number: one.text for number, one in zip(numbers, completions, strict=True)}
        return [texts[number] for number in range(len(requests))]

    def _completion(self, context: str, options: dict[str, Any]) -> Completion:
        options = dict(options)
        until = options.pop("until", None) or []
        lengths = [options.pop(key) for key in NEW_TOKENS_KEYS if key in options]
        max_new_tokens = int(lengths[0]) if lengths else DEFAULT_NEW_TOKENS
        temperature = float(options.pop("temperature", 1.0 if options.get("do_sample") else 0.0))
        if not options.pop("do_sample", temperature > 0.0):
            temperature = 0.0
        filters = {key: options.pop(key) for key in ("top_k", "top_p", "min_p") if key in options}
        if options:
            raise ValueError(f"generation_kwargs of the task: {', '.join(options)} cannot be followed")
        completion = Completion(
            self.subject.tokenizer,
            context,
            Sampler(temperature=temperature, **filters),
            max_new_tokens=max_new_tokens,
            vocab_size=self.subject.model.config.vocab_size,
            stop=[until] if isinstance(until, str) else [one for one in until if one],
            redraws_last=False,
        )
        room = self.max_length - max_new_tokens
        if room > 0:
            completion.row.context = completion.row.context[-room:]
        return completion

    def _likelihoods(self, pairs: list[Pair]) -> Any:
        return likelihoods(
            self.subject.model,
            pairs,
            batch_size=self.subject.batch_size,
            autocast_dtype=self.subject.autocast_dtype,
        )
