"""Protects the ends of commands that are nobody's fault: too little memory, and a launcher's odd environment."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from tests.commands import assert_one_sentence, run_inference, run_training
from tests.processes import free_port
from utils.system.errors import UsageError, is_out_of_memory, run_command
from utils.system.processes import local_rank, process_group, restart_count


def allocate() -> None:
    torch.empty(2**50)


def say(words: str) -> Callable[[], None]:
    """A command that ends as torch's libraries do where they have no error class."""

    def raise_it() -> None:
        raise RuntimeError(words)

    return raise_it


def exhaust_python() -> None:
    raise MemoryError


def exhaust_device() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    "command",
    [
        allocate,
        exhaust_python,
        exhaust_device,
        say("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."),
        say("[enforce fail at alloc_cpu.cpp:83] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
        say("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"),
        say("MPS backend out of memory (MPS allocated: 1.00 GB)"),
        say("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        say("std::bad_alloc"),
    ],
)
def test_too_little_memory(capsys, command: Callable[[], None]) -> None:
    """The same sentence from every allocator, with the two options that help; exit code 1."""
    assert run_command(command) == 1
    assert_one_sentence(capsys.readouterr().err, "out of memory; lower --batch_size or --crop_size")


def test_a_step_that_cannot_be_compiled(capsys) -> None:
    """One sentence, as from PyTorch's compiler where there is no C++ compiler, or it fails."""
    kind = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})

    def fail() -> None:
        raise kind("SyntaxError: unterminated\n\nSet TORCHDYNAMO_VERBOSE=1 for the internal stack trace")

    assert run_command(fail) == 1
    assert_one_sentence(capsys.readouterr().err, "(SyntaxError: unterminated); leave --compile out")


NCCL = "NCCL error in: NCCLUtils.cpp:94, unhandled system error (run with NCCL_DEBUG=INFO for details)\n"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("Last error:\nError while creating shared memory: No space left on device (28)", "No space left on device"),
        ("Last error:\nCuda failure 2 'out of memory'", "out of memory; lower --batch_size"),
        ("", "lost the other 0"),
        ("ncclRemoteError: ...\nLast error:\nsocketProgress: Connection closed by remote peer", "lost the other 0"),
    ],
)
def test_what_nccl_says(capsys, monkeypatch: pytest.MonkeyPatch, reason: str, told: str) -> None:
    """Its reason, which stands in another line than its error, and not that another process was lost."""
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")

    def fail() -> None:
        with process_group(torch.device("cpu")):
            raise torch.distributed.DistBackendError(NCCL + reason)

    assert run_command(fail) == 1
    assert_one_sentence(capsys.readouterr().err, told)


def test_other_errors_are_not_hidden() -> None:
    """A fault of the program stays one: nobody is told to buy memory for it."""
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_command(say("shape mismatch"))


GOOD = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
VARIABLES = [
    ("RANK", value) for value in ("abc", "", "-1", "1", "0.5", "1e3", "9" * 50)
] + [
    ("WORLD_SIZE", value) for value in ("abc", "", "0", "-4", "9" * 50)
] + [
    ("LOCAL_RANK", value) for value in ("abc", "-1", "", "9" * 5000)
] + [
    ("MASTER_PORT", value) for value in ("abc", "-1", "65536")
] + [
    ("TORCHELASTIC_RESTART_COUNT", value) for value in ("abc", "-1")
]  # fmt: skip


@pytest.mark.parametrize("run", [run_training, lambda *argv: run_inference("CUB", *argv)], ids=["train", "evaluate"])
@pytest.mark.parametrize(("name", "value"), VARIABLES)
def test_variables_of_a_launcher(monkeypatch, capsys, name: str, value: str, run: Callable[..., int]) -> None:
    """Protects from tracebacks and from waiting for processes that never come: the variable and its range, code 2."""
    for variable, good in (GOOD | {name: value}).items():
        monkeypatch.setenv(variable, value if variable == name else good)
    assert run("--device", "cpu") == 2
    err = capsys.readouterr().err
    assert re.match(rf"error( in process .*)?: the environment variable {name} is .*, and not a number from \d", err)
    assert "start the processes with torchrun" in err and err.count("\n") == 1 and len(err) < 400


def test_variables_without_a_launch_do_not_matter(monkeypatch) -> None:
    """Protects single processes: a variable that another program has left behind is not even read."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "abc")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "abc")
    assert (local_rank(), restart_count()) == (0, 0)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="TORCHELASTIC_RESTART_COUNT is 'abc'"):
        restart_count()
