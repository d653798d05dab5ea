"""``python -m mulligan`` is ``mulligan``."""

import sys

from mulligan.cli.main import main

sys.exit(main())
