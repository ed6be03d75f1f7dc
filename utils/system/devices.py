"""The choice of a device, and of how exactly it computes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from utils.system.errors import UsageError, is_out_of_memory

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
    elif name.startswith("cuda:") and is_launched() and name != f"cuda:{local_rank()}":
        raise UsageError(f"--device {name} would put all processes onto one GPU; give --device cuda, or leave it out")
    try:
        probe = torch.zeros(1, device=torch.device(name))
        probe.item()  # unmasks devices that compute nothing
    except (RuntimeError, AssertionError, ImportError, NotImplementedError, AttributeError) as error:
        if is_out_of_memory(error):
            raise UsageError(
                f"--device {name} has no memory left; wait for its other users or choose another"
            ) from error
        cuda = torch.cuda.device_count()
        there_are = "cpu" + (f", cuda:0 to cuda:{cuda - 1}" if cuda else "")
        raise UsageError(f"--device {name} is not available on this machine; there are: {there_are}") from error
    device = probe.device  # "cuda" has got its number, which set_device insists on
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what allocates without a device's name, such as NCCL, means this one
    return device


def set_numerics(tf32: bool | None, deterministic: bool) -> None:
    """Settles, before anything is computed, how far results may depend on the choice of kernels.

    Args:
        tf32: whether float32 may round to TF32 on CUDA devices that have it, in matrix products and convolutions
            alike; PyTorch's own choice where None.
        deterministic: whether the same run on the same CUDA device must give the same bits. Kernels that add up in any
            order are replaced by slower ones, or refused where there are none.
    """
    import torch  # here: help needs no PyTorch

    if tf32 is not None:
        # By torch's older names, which move the newer ones along; once a newer one was set, torch's own code that still
        # reads the older ones (its compiler, `cudnn.flags`) would raise.
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.backends.cudnn.benchmark = False
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # with what nobody reads
