"""``mulligan VERB key=value ...``: find the verb, and its file once its config is composed.

What is imported late is imported here: a mistaken verb need not wait for Hydra, nor help for torch and Lightning.
"""

import gc
import io
import os
import signal
import sys
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any

from mulligan import __version__

VERBS = {
    "plan": "what a run takes and is worth, before it is begun",
    "prepare": "text to a tokenizer and token shards",
    "train": "train, or go on with the run of the same name",
    "evaluate": "a model by suites: held-out bits, text, LAMBADA, exposure bias, lm-eval",
    "generate": "text from a model",
    "export": "the weights of a run in one file, or a folder for transformers",
    "import": "a model of transformers or llama.cpp, in our form",
    "replay": "a run again, with its interventions in force; are the bits the same?",
    "backtest": "what detectors make of a recorded loss curve",
    "runs": "a table of all runs below a folder",
    "inspect": "what was done to a run, and the samples around a spike",
    "report": "a run as one page: curves, interventions, samples, next tokens",
    "drill": "faults on purpose, and what the guard makes of them",
}
# A file inspect.py would hide Python's own from the ranks that Lightning starts by the path of this file; import.py no
# statement could name.
FILES = {"inspect": "inspection", "import": "importing"}
FLAGS = {"-h", "--help", "--hydra-help", "-m", "--multirun", "-c", "--cfg", "--resolve", "-i", "--info", "--config-dir"}
FLAGS_WITH_VALUE = {"-c", "--cfg", "-i", "--info", "--config-dir"}
USAGE = "\n".join(
    [
        f"mulligan {__version__}",
        "usage: mulligan VERB [key=value ...]      for example: mulligan train model=tiny optimizer.lr=1e-3",
        *(f"  {verb:<10}{what}" for verb, what in VERBS.items()),
        "`mulligan VERB --help` shows the verb's config; -m sweeps over comma-separated values.",
    ]
)


def main() -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a text that a model writes may hold what a terminal cannot show
    called_as = " ".join(["mulligan", *sys.argv[1:2]])
    try:
        code = _run()
        sys.stdout.flush()
    except KeyboardInterrupt:  # a run that trains hears it otherwise, and is saved
        print(f"{called_as}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the interpreter has yet to write
        return 128 + signal.SIGPIPE
    return code


def _run() -> int:
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in ("", "-h", "--help"):
        print(USAGE)
        return 0 if verb else 2
    if verb == "--version":
        print(f"mulligan {__version__}")
        return 0
    if verb not in VERBS:
        print(f"mulligan: {verb!r} is not a verb; it takes one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    for before, word in pairwise(sys.argv[1:]):
        is_option, is_key = word.startswith("-"), "=" in word or word.startswith("~")
        if word.split("=")[0] not in FLAGS if is_option else not is_key and before not in FLAGS_WITH_VALUE:
            # Hydra would print its usage, eight lines, or speak of its grammar.
            kind = "an option" if is_option else "an override"
            print(f"mulligan {verb}: {word} is not {kind}; keys are set as key=value", file=sys.stderr)
            return 2
    # Lightning starts the other ranks by these arguments, and by this path or, as this process was, by `-m mulligan`:
    # that finds what lies in the working directory.
    command, first = [__file__, *sys.argv[1:]], sys.modules["__main__"]
    if first.__spec__ is not None and first.__spec__.name != "mulligan.__main__":
        first.__spec__ = None  # a profiler's, say
    # Hydra reads what is not the verb, and takes no option between two overrides.
    overrides = [word for word in sys.argv[2:] if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    options = [word for word in sys.argv[2:] if word not in overrides]
    sys.argv = [__file__, *options, *overrides]
    return import_module("mulligan.cli.verb").run_verb(verb, partial(_work, verb, command))


def _work(verb: str, command: list[str], config: Any) -> None:
    sys.argv = command
    gc.disable()  # what an import makes stays: looking through it for garbage takes a fifth of its time
    module = import_module(f"mulligan.cli.{FILES.get(verb, verb)}")
    gc.enable()
    module.work(config)


if __name__ == "__main__":  # another rank
    sys.exit(main())
