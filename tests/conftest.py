"""Each of pytest-xdist's processes computes with one thread, and so do the commands that it starts."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
