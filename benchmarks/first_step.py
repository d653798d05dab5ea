"""``mulligan`` in this process with its imports timed apart, to end at a run's first step; see benchmarks/startup.py.

The standard library alone, so that what is imported is imported by mulligan.
"""

import json
import os
import sys
import time
from importlib import import_module
from typing import Any

from mulligan.cli import main

BEGUN = time.perf_counter()
# A callback as an override: it ends the process when the first step is done.
END = (
    "+callbacks.end={_target_: lightning.pytorch.callbacks.LambdaCallback, on_train_batch_end: "
    "{_target_: hydra.utils.get_method, path: benchmarks.first_step.end}}"
)
taken = {"imports": 0.0, "imports_cpu": 0.0}


def begin() -> None:
    main.import_module = timed_import  # by which it reaches Hydra, and the verb with all that is beneath it
    sys.exit(main.main())


def timed_import(name: str) -> Any:
    seconds, cpu_seconds = time.perf_counter(), time.process_time()
    module = import_module(name)
    taken["imports"] += time.perf_counter() - seconds
    taken["imports_cpu"] += time.process_time() - cpu_seconds
    return module


def end(*_: Any) -> None:
    """Print what the imports have taken, and what everything else has, as the last line."""
    beyond = time.perf_counter() - BEGUN - taken["imports"]
    beyond_cpu = time.process_time() - taken["imports_cpu"]
    print(json.dumps(taken | {"beyond": beyond, "beyond_cpu": beyond_cpu}), flush=True)
    os._exit(0)
