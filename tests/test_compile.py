"""Protects --compile: torch.compile's translation of the training step computes what eager execution computes."""

from __future__ import annotations

import shutil
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.test_amc import TinyBAS
from tests.test_distributed_training import Case, make_split, make_trainer
from utils.runs.settings import Engine
from utils.training.engine import train_one_epoch


def test_compiled_steps_equal_eager_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects --compile: losses within 1e-5 and weights within 1e-6 of eager ones after two steps; one translation."""
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # more are processes of their own
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        # Without a compiler for inductor's code, the translation alone: the same graphs, of PyTorch's own kernels.
        monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    split = make_split(tmp_path)
    trainers, figures = {}, {}
    counters.clear()
    for compiled in (False, True):
        trainer = trainers[compiled] = make_trainer(split, Case(build=TinyBAS, engine=Engine(compile=compiled)))
        figures[compiled] = train_one_epoch(trainer, show_step=1)
        assert counters["stats"]["unique_graphs"] == int(compiled)
    assert not counters["graph_break"]
    for name in ("cls", "frg", "bas", "area", "total", "accuracy"):
        assert figures[True][name] == pytest.approx(figures[False][name], rel=1e-5), name
    ours, expected = (trainers[compiled].model.state_dict() for compiled in (True, False))
    assert ours.keys() == expected.keys()  # no names of the compiler's own in what is saved
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-6, msg=key)
