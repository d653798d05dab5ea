"""``mulligan VERB key=value ...``: find the verb's file and run it."""

import sys
from importlib import import_module

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
    "inspect": "what was done to a run, and the samples around a spike",
    "report": "a run as one page: curves, interventions, samples, next tokens",
    "drill": "faults on purpose, and what the guard makes of them",
}
# A file inspect.py would hide Python's own from the ranks that Lightning starts by the path of a verb's file; import.py
# no statement could name.
FILES = {"inspect": "inspection", "import": "importing"}
FLAGS = {"-h", "--help", "--hydra-help", "-m", "--multirun", "-c", "--cfg", "--resolve", "-i", "--info", "--config-dir"}
USAGE = "\n".join(
    [
        f"mulligan {__version__}",
        "usage: mulligan VERB [key=value ...]      for example: mulligan train model=tiny optimizer.lr=1e-3",
        *(f"  {verb:<10}{what}" for verb, what in VERBS.items()),
        "`mulligan VERB --help` shows the verb's config; -m sweeps over comma-separated values.",
    ]
)


def main() -> int:
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in ("", "-h", "--help"):
        print(USAGE)
        return 0 if verb else 2
    if verb not in VERBS:
        print(f"mulligan: {verb!r} is not a verb; it takes one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    for word in sys.argv[2:]:
        if word.startswith("-") and word.split("=")[0] not in FLAGS:  # Hydra would print its usage, eight lines
            print(f"mulligan {verb}: {word} is not an option; keys are set as key=value", file=sys.stderr)
            return 2
    module = import_module(f"mulligan.cli.{FILES.get(verb, verb)}")
    # Lightning starts the other ranks by this path and these arguments, so both must lead straight to the verb.
    # Hydra takes no option between two overrides.
    overrides = [word for word in sys.argv[2:] if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    options = [word for word in sys.argv[2:] if word not in overrides]
    sys.argv = [str(module.__file__), *options, *overrides]
    sys.modules["__main__"].__spec__ = None
    return module.main()
