"""``mulligan generate run=runs/NAME "prompt='def '"``: text, as it is made."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mulligan.cli.compose import build, plain
from mulligan.cli.generation_view import show_completion, show_explanations
from mulligan.cli.inspection_view import make_console
from mulligan.cli.output import output_path
from mulligan.cli.saved_model import open_model
from mulligan.data.tokens import Tokenizer
from mulligan.evaluation.explanation import Explanation, explain
from mulligan.evaluation.generation import Completion, complete
from mulligan.evaluation.sampler import Sampler
from mulligan.files import atomic_write, finite
from mulligan.model.transformer import Transformer


class Generation:
    """The schema of conf/generate.yaml."""

    def __init__(
        self,
        *,
        run: str,
        prompt: str | None,
        prompts: list[str] | None,
        prompts_file: str | None,
        max_new_tokens: int,
        stop: list[str],
        sampler: Sampler,
        batch_size: int,
        explain: bool,
        output: str | None,
    ) -> None:
        for key, number in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
            if number < 1:
                raise ValueError(f"{key}={number} must be at least 1")
        if "" in stop:
            raise ValueError(f"stop={stop} holds an empty string, with which every text begins: leave it out")
        if output is not None and not output.endswith(".jsonl"):
            raise ValueError(f"output={output} must name a .jsonl file")
        self.output = output_path(output)
        self.prompts = _prompts(prompt, prompts, prompts_file)
        self.run, self.max_new_tokens, self.stop, self.sampler = open_model(Path(run)), max_new_tokens, stop, sampler
        self.batch_size, self.explain = batch_size, explain

    def completions(self, model: Transformer, tokenizer: Tokenizer) -> list[Completion]:
        return [
            Completion(
                tokenizer,
                prompt,
                self.sampler,
                max_new_tokens=self.max_new_tokens,
                vocab_size=model.config.vocab_size,
                stop=self.stop,
            )
            for prompt in self.prompts
        ]


def _prompts(prompt: str | None, prompts: list[str] | None, prompts_file: str | None) -> list[str]:
    given = [key for key, value in (("prompt", prompt), ("prompts", prompts), ("prompts_file", prompts_file)) if value]
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]} both name prompts: give one of them")
    if prompts_file is not None:
        if not Path(prompts_file).is_file():
            raise ValueError(f"prompts_file={prompts_file} is not a file")
        lines = Path(prompts_file).read_text(errors="replace").split("\n")  # not at form feeds
        prompts = [line for line in lines if line.strip()]
        if not prompts:
            raise ValueError(f"prompts_file={prompts_file} holds no prompt: give it one a line")
    if prompts is not None and not prompts:
        raise ValueError("prompts=[] names none: give a list such as [def,class]")
    return [prompt or ""] if prompts is None else prompts


def work(config: DictConfig) -> None:
    generation: Generation = build(plain(config))
    model, tokenizer = generation.run.model(), generation.run.tokenizer()
    completions = generation.completions(model, tokenizer)
    if len(completions) == 1 and not generation.explain:
        _stream(model, completions[0])
    else:
        _show(generation, model, tokenizer, completions)
    if generation.output is not None:
        with atomic_write(generation.output) as file:
            file.writelines(
                json.dumps(finite(_as_json(one)), ensure_ascii=False).encode() + b"\n" for one in completions
            )


def _stream(model: Transformer, completion: Completion) -> None:
    print(completion.prompt, end="", flush=True)
    complete(model, [completion], batch_size=1, watch=lambda _, fresh: print(fresh, end="", flush=True))
    print()


def _show(generation: Generation, model: Transformer, tokenizer: Tokenizer, completions: list[Completion]) -> None:
    explanations: dict[int, list[Explanation]] = {id(one): [] for one in completions}
    complete(
        model,
        completions,
        batch_size=generation.batch_size,
        watch=lambda one, _: explanations[id(one)].append(explain(one.row)),
    )
    console = make_console()
    for number, one in enumerate(completions, start=1):
        show_completion(console, one, number=number, total=len(completions))
        if generation.explain:
            show_explanations(console, explanations[id(one)], tokenizer)


def _as_json(completion: Completion) -> dict[str, Any]:
    return {
        "prompt": completion.prompt,
        "text": completion.text,
        "tokens": completion.row.new,
        "log_probabilities": completion.row.log_probabilities,
        "ended_by": completion.ended_by,
    }
