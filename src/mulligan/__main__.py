"""``python -m mulligan`` is ``mulligan``."""

import sys

from mulligan.cli.main import main

if __name__ == "__main__":  # a worker process imports this file too
    sys.exit(main())
