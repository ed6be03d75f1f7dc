"""Pictures through masks: a network whose answers are known by hand, and a naive loop over pictures and masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.test_amc import TinyBAS
from utils.exploratory.masks import cell_weights, mask_family
from utils.exploratory.measure import PLACES, Curve, measure_masks
from utils.exploratory.summary import summarize, verdict
from utils.models.taps import Grid, Placement

SIDE, GAIN = 20, 30.0


class Counter(nn.Module):
    """Class 1's logit is the share of the picture in which mask and object meet, times a gain; class 0's is 0."""

    feature_grid = class_grid = Grid(0, 1)

    def f1(self, images: Tensor) -> Tensor:
        return images[:, :1]

    def f2(self, features: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(features), GAIN * features], dim=1)


def place_of(model: nn.Module, at: str, align: bool) -> Placement | None:
    grid = model.feature_grid if at == "features" else model.class_grid
    return Placement((grid.first, grid.first), grid.stride) if align else None


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_a_network_that_counts_pixels(at: str, align: bool, chunk: int) -> None:
    """Protects the measures: activation is the intersection's area, the background's the rest of the object's."""
    objects = [square(0, 3, 10), square(8, 8, 5), np.ones((SIDE, SIDE), dtype=bool)]
    families = [mask_family(one) for one in objects]
    images = torch.from_numpy(np.stack(objects)).float()[:, None].expand(-1, 3, -1, -1)
    labels = torch.tensor([1, 1, 0])
    values, correct = measure_masks(
        Counter(), images, labels, families, at=at, place=place_of(Counter(), at, align), chunk=chunk
    )
    assert correct == [True, True, False]
    for one, family, label, (entropy, activation, background) in zip(objects, families, labels, values, strict=True):
        met = GAIN * (family & one).mean(axis=(1, 2))
        left_out = GAIN * (~family & one).mean(axis=(1, 2))
        assert activation == pytest.approx(met * int(label), rel=1e-5)
        assert background == pytest.approx(left_out * int(label), rel=1e-5, abs=1e-6)
        wrong = [math.log1p(math.exp(-logit if label else logit)) for logit in met]
        assert entropy == pytest.approx(wrong, rel=1e-4, abs=1e-6)


def count_pixels(name: str, mask: np.ndarray, label: int) -> Curve:
    """What :class:`Counter` says to the masks of a bright object, which is of class 1."""
    family = mask_family(mask)
    image = 100 * torch.from_numpy(mask).float().expand(1, 3, -1, -1)
    (values,), (correct,) = measure_masks(
        Counter(), image, torch.tensor([label]), [family], at="features", place=None, chunk=8
    )
    areas = family.mean(axis=(1, 2))
    ious = np.minimum(areas, mask.mean()) / np.maximum(areas, mask.mean())
    return Curve(name, "square", correct, areas, ious, *values)


def test_in_such_a_world_the_claim_holds() -> None:
    """Protects the verdict: where the activation is the area of the intersection, all is as the paper says, of the
    pictures that are classified correctly; the entropy of the others only rises, and is no evidence."""
    right = [count_pixels(f"{side}.jpg", square(2, 2, side), 1) for side in (10, 12, 14)]
    wrong = [count_pixels(f"wrong {side}.jpg", square(2, 2, side), 0) for side in range(5, 12)]
    summary = summarize([*right, *wrong])
    found = summary["correct"]["done_at"]
    assert found["entropy"]["median"] < 0.5
    assert found["activation"]["median"] == pytest.approx(0.95, abs=1e-3)
    assert found["background_activation"]["median"] == pytest.approx(0.95, abs=1e-3)
    assert verdict(summary).startswith("The paper's claim holds here (medians, correctly classified pictures: 3)")
    every = summary["every"]
    assert (every["done_at"]["entropy"]["count"], every["done_at"]["entropy"]["left_out"]) == (3, 7)
    assert every["done_at"]["entropy"]["median"] == found["entropy"]["median"]
    assert every["short"]["entropy"] == every["before"]["activation"] == 0.3  # what never falls counts against it


def test_entropy_of_a_sure_network_is_not_nothing() -> None:
    """Protects correlations: leads of 17 and more, which round to nothing in single precision, keep their order."""

    class Sure(Counter):
        def f2(self, features: Tensor) -> Tensor:
            return 10 * super().f2(features)

    family = mask_family(square(2, 2, 14))
    image = torch.ones(1, 3, SIDE, SIDE)
    (values,), _ = measure_masks(Sure(), image, torch.tensor([1]), [family], at="features", place=None, chunk=8)
    leads = 10 * GAIN * family.mean(axis=(1, 2))
    assert (leads > 40).sum() >= 3
    assert values[0] == pytest.approx([math.log1p(math.exp(-lead)) for lead in leads], rel=1e-3, abs=0)
    assert (np.diff(values[0]) < 0).all()


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("align", [False, True])
def test_agrees_with_a_naive_loop(at: str, align: bool) -> None:
    """Protects the batches: the same numbers as one picture and one mask at a time, through the layers by name."""
    torch.manual_seed(0)
    model = TinyBAS(final_relu=False).double().eval()
    model.class_grid = Grid(1, 4)
    random = np.random.RandomState(0)
    images, labels = torch.randn(3, 3, SIDE, SIDE, dtype=torch.float64), torch.tensor([4, 0, 2])
    families = [mask_family(square(*random.randint(0, 9, 2), side)) for side in (3, 7, 11)]
    found, correct = measure_masks(model, images, labels, families, at=at, place=place_of(model, at, align), chunk=4)

    with torch.no_grad():
        for image, label, family, values, is_correct in zip(images, labels, families, found, correct, strict=True):
            features = model.stem(image[None])
            whole = model.head(model.tail(features)).mean(dim=(2, 3))
            assert is_correct == (whole.argmax() == label)
            for mask, (entropy, activation, background) in zip(family, values.T, strict=True):
                kept, removed = (
                    naive_logits(model, features, part, at, align) for part in (mask, np.logical_not(mask))
                )
                assert entropy == pytest.approx(-kept.log_softmax(0)[label].item(), rel=1e-6)
                assert activation == pytest.approx(kept[label].item(), rel=1e-6, abs=1e-9)
                assert background == pytest.approx(removed[label].item(), rel=1e-6, abs=1e-9)


def naive_logits(model: TinyBAS, features: Tensor, mask: np.ndarray, at: str, align: bool) -> Tensor:
    """(K,) the logits of one picture through one mask."""
    maps = features if at == "features" else model.head(model.tail(features))
    grid = (model.feature_grid if at == "features" else model.class_grid) if align else None
    weights = torch.from_numpy(cell_weights(SIDE, maps.shape[-1], grid)).double()
    masked = maps * (weights @ torch.from_numpy(mask).double() @ weights.T)
    return (model.head(model.tail(masked)) if at == "features" else masked).mean(dim=(2, 3))[0]
