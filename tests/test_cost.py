"""Nothing is computed that nobody reads: the work per picture stays within what the method needs."""

from __future__ import annotations

import pytest

from tests.benchmark import count_gflop

# GFLOP per picture at 224 px. All K generator channels, a masked branch at inference or weight gradients of the frozen
# f2 would each exceed these by far.
TRAINING = {("CUB", "vgg"): 126, ("CUB", "resnet"): 130, ("CUB", "inception"): 132}
TRAINING |= {("ILSVRC", "vgg"): 128, ("ILSVRC", "resnet"): 132, ("ILSVRC", "inception"): 134}
INFERENCE = {("CUB", "vgg"): 366, ("CUB", "resnet"): 322, ("CUB", "inception"): 328, ("CUB", "mobilenet"): 110}
INFERENCE |= {
    ("ILSVRC", "vgg"): 368,
    ("ILSVRC", "resnet"): 322,
    ("ILSVRC", "inception"): 329,
    ("ILSVRC", "mobilenet"): 112,
}


@pytest.mark.parametrize(("pair", "most"), TRAINING.items(), ids=str)
def test_training_step(pair: tuple[str, str], most: float) -> None:
    """A training step computes one generator channel a picture and no weight gradients of the frozen f2."""
    assert 0.5 * most < count_gflop(*pair, "train") <= most


@pytest.mark.parametrize(("pair", "most"), INFERENCE.items(), ids=str)
def test_inference(pair: tuple[str, str], most: float) -> None:
    """Ten crops and the fused maps of one of them, without any masked branch."""
    assert 0.5 * most < count_gflop(*pair, "inference") <= most
