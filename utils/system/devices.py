"""The choice of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.system.errors import UsageError

if TYPE_CHECKING:
    import torch


def choose_device(name: str | None) -> torch.device:
    """The device called `name`, or the best one there is; of several processes on a machine each gets its own GPU.

    Raises:
        UsageError: there is no such device; says which there are.
    """
    import torch  # here: help needs no PyTorch

    from utils.system.processes import is_launched, local_rank

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and is_launched():
        name = f"cuda:{local_rank()}"
    elif name.startswith("cuda:") and is_launched():
        raise UsageError(f"--device {name} would put all processes onto one GPU; give --device cuda, or leave it out")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # reading back unmasks devices that compute nothing
    except (RuntimeError, AssertionError, ImportError, NotImplementedError, AttributeError) as error:
        cuda = torch.cuda.device_count()
        there_are = "cpu" + (f", cuda:0 to cuda:{cuda - 1}" if cuda else "")
        raise UsageError(f"--device {name} is not available on this machine; there are: {there_are}") from error
    return device
