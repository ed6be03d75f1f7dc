"""Real processes for tests, connected by gloo on this machine."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def run_processes(function: Callable[..., None], count: int, *arguments: Any) -> None:
    """Calls `function(number, count, *arguments)` in `count` processes at once and waits for all.

    Each finds torchrun's variables, unless it is alone. A server imports the function's module once for all of them; it
    computes nothing that a fork could upset.

    Raises:
        torch.multiprocessing.ProcessException: one of them failed.
    """
    multiprocessing.set_forkserver_preload([function.__module__])
    everyones = (function, count, free_port(), arguments)
    torch.multiprocessing.start_processes(_one, everyones, nprocs=count, start_method="forkserver")


def _one(number: int, function: Callable[..., None], count: int, port: int, arguments: tuple) -> None:
    torch.set_num_threads(1)
    if count > 1:
        more = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in more.items()}, MASTER_ADDR="127.0.0.1")
    function(number, count, *arguments)
