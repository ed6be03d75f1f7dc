"""Each of pytest-xdist's processes computes with one thread, and the longest files come first, so that none is alone at
the end."""

from __future__ import annotations

import os

import pytest

from utils.system.memory import collect_garbage_rarely

GPUS = "TESTS_GPUS"  # keeps what CUDA_VISIBLE_DEVICES was
LONGEST = ("test_golden", "test_survival", "test_golden_ijcv", "test_training_command", "test_distributed_training")

# What is compared to the bit is compared on the CPU, also where there is a GPU (tests/gpu.py checks that): two
# processes may take different kernels there.
if "PYTEST_XDIST_WORKER" not in os.environ and "CUDA_VISIBLE_DEVICES" in os.environ:  # else it is this file's own
    os.environ[GPUS] = os.environ["CUDA_VISIBLE_DEVICES"]
os.environ["CUDA_VISIBLE_DEVICES"] = ""
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests that ask for two threads of their own share the cores with the others: a thread that waits must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
collect_garbage_rarely()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))  # stable: all others stay in order
