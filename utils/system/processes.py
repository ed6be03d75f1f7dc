"""The processes of one run: started by `torchrun`, one a device, on torch.distributed; a single process needs none."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy  # noqa: F401  # before PyTorch, which goes on with a warning where it is missing
import torch
import torch.distributed as dist
from torch import nn

from utils.system.errors import UsageError, UserError, is_out_of_memory

LARGEST_COUNT = 10**6  # of processes and restarts
_NCCL_REASON = re.compile(r"Last error:\s*(.+)")


def is_launched() -> bool:
    """Whether this process was started as one of several, by `torchrun` or anything else that sets its variables."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def process_count() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that prints and writes files."""
    return rank() == 0


def local_rank() -> int:
    """This process's number on its machine, which is that of its GPU; UsageError if the launcher gave none."""
    return _variable("LOCAL_RANK", 0, LARGEST_COUNT) if is_launched() else 0


def restart_count() -> int:
    """How often torchrun's elastic agent has started the run's processes anew; UsageError if it gave no number."""
    return _variable("TORCHELASTIC_RESTART_COUNT", 0, LARGEST_COUNT) if is_launched() else 0


def _variable(name: str, low: int, high: int) -> int:
    """A whole number that the launcher has put into the environment; 0 where it has not."""
    text = os.environ.get(name, "0")
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise UsageError(
            f"the environment variable {name} is {text[:40]!r}, and not a number from {low} to {high}; start the "
            "processes with torchrun, or a single one without this variable"
        )
    return value


def _check_launch() -> None:
    """UsageError, before anything is waited for, if what the launcher has put into the environment cannot be right."""
    _variable("RANK", 0, _variable("WORLD_SIZE", 1, LARGEST_COUNT) - 1)
    _variable("MASTER_PORT", 0, 2**16 - 1)
    local_rank()
    restart_count()


_host_group: dist.ProcessGroup | None = None


def host_group() -> dist.ProcessGroup | None:
    """The group through which host values travel without waiting for a device; None is the default group."""
    return _host_group


@contextmanager
def process_group(device: torch.device, timeout: float = 600.0, hint: str = "start them anew") -> Iterator[None]:
    """Joins the run's processes for the duration of a block; does nothing in a process that was started alone.

    In every process but the first, standard output is closed: what a run says, it says once.

    Args:
        device: this process's; NCCL connects CUDA devices, gloo all others.
        timeout: seconds that a process waits for the others before it gives up.
        hint: what to do when one is lost, for the message.

    Raises:
        UsageError: the launcher's environment variables cannot be right.
        UserError: the processes do not find one another, or one of them is lost on the way.
    """
    global _host_group
    if not is_launched():
        yield
        return
    _check_launch()
    on_cuda = device.type == "cuda"
    wait = timedelta(seconds=timeout)
    try:
        dist.init_process_group("nccl" if on_cuda else "gloo", timeout=wait, **_own_store(wait))
        # torch's -100 is for processes outside the group, and all are in it.
        _host_group = dist.new_group(backend="gloo", timeout=wait) if on_cuda else None  # type: ignore[assignment]
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes did not find one another ({_first_line(error)}); {hint}") from error
    spoken = sys.stdout
    with open(os.devnull, "w", encoding="utf-8") as silence:
        if not is_main():
            sys.stdout = silence
        ended_well = False
        try:
            yield
            ended_well = True
        except RuntimeError as error:
            if is_out_of_memory(error) or not is_lost_contact(error):
                raise
            # Which can be as much as a shared memory that is full; where another process is gone, its end says nothing.
            if (said := _NCCL_REASON.search(str(error))) and "ncclRemoteError" not in str(error):
                raise UserError(f"process {rank()}: NCCL failed: {said[1].strip()}; then {hint}") from error
            raise UserError(
                f"process {rank()} lost the other {process_count() - 1} ({_first_line(error)}): one of them ended, or "
                f"was silent for {timeout:g} s; see its message, then {hint}"
            ) from error
        finally:
            sys.stdout = spoken
            _host_group = None
            # NCCL's end waits for what the others owe; after a failure the process ends next, with its message.
            if ended_well or not on_cuda:
                dist.destroy_process_group()


def _own_store(timeout: timedelta) -> dict[str, Any]:
    """On a single machine, a place of their own for what restarted processes tell each other.

    An agent that was started without a rendezvous backend keeps its store, and in it the addresses of the processes
    that are gone. With several machines the backend must be c10d, which opens a new store; their agents also count
    restarts apart.
    """
    environment = os.environ
    is_kept = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and environment.get("GROUP_WORLD_SIZE") == "1"
    if not (is_kept and restart_count()):
        return {}
    address, port = environment["MASTER_ADDR"], _variable("MASTER_PORT", 0, 2**16 - 1)
    store = dist.TCPStore(address, port, is_master=False, timeout=timeout)
    apart = dist.PrefixStore(f"restart_{restart_count()}", store)
    count = _variable("WORLD_SIZE", 1, LARGEST_COUNT)
    return {"store": apart, "rank": _variable("RANK", 0, count - 1), "world_size": count}


def is_lost_contact(error: RuntimeError) -> bool:
    """Whether an error says that another process of the run is gone or silent."""
    return isinstance(error, dist.DistError) or any(
        word in str(error) for word in ("Connection closed", "Connection reset", "Timed out", "Broken pipe", "gloo")
    )


def _first_line(error: Exception) -> str:
    # "[.../pair.cc:123] Connection closed by peer. Some advice": the source file and the advice are for others.
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return line.rpartition("] ")[2].partition(". ")[0]


def gather_everywhere(value: Any) -> list[Any]:
    """Every process's `value`, in the order of their ranks, in every process; any value that can be pickled."""
    if process_count() == 1:
        return [value]
    values: list[Any] = [None] * process_count()
    dist.all_gather_object(values, value, group=host_group())
    return values


def broadcast_value(value: Any) -> Any:
    """The first process's `value`, in every process."""
    if process_count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=host_group())
    return values[0]


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if process_count() > 1:
        dist.barrier(group=host_group())


def broadcast_buffers(model: nn.Module) -> None:
    """Gives every process the first one's buffers, batch normalisation's running statistics among them."""
    if process_count() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


@contextmanager
def first_on_each_machine() -> Iterator[None]:
    """Lets one process of each machine through a block before the others, which find what it fetched."""
    if local_rank() > 0:
        wait_for_all()
    yield
    if local_rank() == 0:
        wait_for_all()
