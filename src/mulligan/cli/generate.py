"""``mulligan generate run=runs/NAME prompt='def '``: text, as it is made."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from mulligan.cli.compose import build, plain, run_verb
from mulligan.cli.saved_model import open_model
from mulligan.evaluation.generation import Sampler, generate_text


class Generation:
    """The schema of conf/generate.yaml."""

    def __init__(self, *, run: str, prompt: str, max_new_tokens: int, sampler: Sampler) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
        self.run, self.prompt, self.max_new_tokens, self.sampler = (
            open_model(Path(run)),
            prompt,
            max_new_tokens,
            sampler,
        )


def main() -> int:
    return run_verb("generate", generate)


def generate(config: DictConfig) -> None:
    generation: Generation = build(plain(config))
    model, tokenizer = generation.run.model(), generation.run.tokenizer()
    print(generation.prompt, end="", flush=True)
    for piece in generate_text(
        model,
        tokenizer,
        generation.prompt,
        generation.sampler,
        max_new_tokens=generation.max_new_tokens,
    ):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    sys.exit(main())
