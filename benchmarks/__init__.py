"""Measurements beside their aims. Each module runs from the repository's root as ``python -m benchmarks.NAME``."""

import os

# Set before torch loads OpenMP: on a shared machine a descheduled thread that spins makes a 2-thread step 2 to 6 times
# slower, and the benchmark would measure the neighbours.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
