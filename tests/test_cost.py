"""Nothing is computed that nobody reads: the work per picture at 224 px, counted exactly."""

from __future__ import annotations

import pytest
import torch

import CUB.Model
from tests.benchmark import count_gflop, count_memory
from tests.reference_weights import PAIRS
from utils.models.bas import BAS

# The most GFLOP per picture; MobileNetV1's training bound is a twentieth above what was counted.
TRAINING = {"CUB": (126, 79, 130, 132), "ILSVRC": (128, 81, 132, 134)}
INFERENCE = {"CUB": (364, 110, 322, 328), "ILSVRC": (368, 112, 322, 329)}
ARCHS = ("vgg", "mobilenet", "resnet", "inception")


@pytest.mark.parametrize(("dataset", "arch"), PAIRS)
def test_work_stays_within_bounds(dataset: str, arch: str) -> None:
    """A training step and inference with ten crops do not grow by an oversight."""
    index = ARCHS.index(arch)
    assert 0.8 * TRAINING[dataset][index] < count_gflop(dataset, arch, "train") <= TRAINING[dataset][index]
    assert 0.8 * INFERENCE[dataset][index] < count_gflop(dataset, arch, "inference") <= INFERENCE[dataset][index]


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_only_the_read_generator_channels_are_computed(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 1000 channels on ResNet50 would cost 14.5 GFLOP forward a picture: the chosen one costs a thousandth."""
    chosen = count_gflop("ILSVRC", "resnet", mode)

    def dense(self: BAS, features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return self.classifier_loc(features)[torch.arange(len(features))[:, None], classes]

    monkeypatch.setattr(BAS, "foreground_maps", dense)
    full_forward = 2 * 1024 * 9 * 1000 * 28 * 28 / 1e9
    passes = 3 if mode == "train" else 1  # backwards: once to the weights, once to the features
    assert count_gflop("ILSVRC", "resnet", mode) - chosen == pytest.approx(passes * full_forward * 0.999, rel=1e-6)


def test_frozen_branch_computes_no_weight_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freezing f2 saves its weight gradients: one forward's worth of work for each convolution of f2."""
    frozen = count_gflop("CUB", "vgg", "train")
    monkeypatch.setattr(BAS, "frozen_f2", lambda model, features, _: model.f2(features))
    # conv5_1 to conv5_3, then the head's three convolutions, on 14 x 14.
    weights = 3 * 512 * 512 * 9 + 512 * 1024 * 9 + 1024 * 1024 * 9 + 1024 * 200
    assert count_gflop("CUB", "vgg", "train") - frozen == pytest.approx(2 * weights * 14 * 14 / 1e9, rel=1e-6)


def test_inference_leaves_the_training_branches_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the masked scores nor the frozen branch belong to inference."""

    def forbidden(*_: object) -> None:
        raise AssertionError("a training branch was computed at inference")

    monkeypatch.setattr(BAS, "frozen_f2", forbidden)
    monkeypatch.setattr(BAS, "masked_logits", forbidden)
    model = CUB.Model.build("mobilenet", num_classes=3).eval()
    logits, foreground_map = model.localize(torch.zeros(1, 3, 64, 64), top_k=2)
    assert logits.shape == (1, 3) and foreground_map.shape == (1, 1, 8, 8)


def test_memory_is_counted_tensor_by_tensor() -> None:
    """Protects the README's table: weights, gradients and momenta by hand; activations as the picture's area grows.

    Under bf16 most activations are halved; what stays in float32 is small.
    """
    small, large, half = (count_memory("CUB", "mobilenet", *more) for more in ((64,), (128,), (128, True)))
    weights = sum(parameter.numel() for parameter in CUB.Model.build("mobilenet").parameters())
    assert small["fixed"] == large["fixed"] == pytest.approx(3 * 4 * weights / 2**20)
    assert large["picture"] == pytest.approx(4 * small["picture"], rel=0.1)
    assert 0.5 * large["picture"] < half["picture"] < 0.6 * large["picture"]
    # The stem's output, 32 x 64 x 64 floats, is kept by the convolution or the norm that made it and by the next one.
    assert large["picture"] > 2 * 32 * 64 * 64 * 4 / 2**20
