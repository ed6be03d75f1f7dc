"""Calibration: offsets that are known are found, by the maps of pictures and of their mirror images alone."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import CUB.Model
from utils.data.split import Split
from utils.evaluation.calibration import (
    TOO_LITTLE,
    Calibration,
    calibrate,
    estimate,
    kinds_to_calibrate,
    read_calibration,
    with_offsets,
)
from utils.evaluation.kinds import MapKind
from utils.evaluation.spec import build_spec
from utils.models.bas import BAS
from utils.models.registry import build
from utils.models.taps import Grid, Offset

CPU = torch.device("cpu")
SIDE = 224


def blurred_noise(count: int, side: int, blur: float = 10) -> np.ndarray:
    """(count, side, side) float32 smooth random pictures."""
    noise = np.random.default_rng(0).standard_normal((count, side, side)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(picture, (0, 0), blur) for picture in noise])


def look(pictures: np.ndarray, grid: Grid, cells: int, offset: Offset, margin: int) -> np.ndarray:
    """What a network without kernels would see: the pictures at its cells, `offset` from where the grid says."""
    x, y = (np.float32(grid.first + offset[axis] + margin) + grid.stride * np.arange(cells) for axis in (0, 1))
    across, down = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return np.stack([cv2.remap(picture, across, down, cv2.INTER_LINEAR) for picture in pictures])


@pytest.mark.parametrize(("grid", "cells"), [(Grid(0, 8), 28), (Grid(3.5, 8), 28), (Grid(0, 16), 14)])
@pytest.mark.parametrize("offset", [Offset(0, 0), Offset(-6.5, -5.5), Offset(3, -10), Offset(8.3, 2.2)])
def test_planted_offsets_are_found(grid: Grid, cells: int, offset: Offset) -> None:
    """Protects the estimate: within half a pixel of the truth at 224 pixels, and the agreement grows."""
    margin = 40
    pictures = blurred_noise(30, SIDE + 2 * margin)
    views = (pictures, pictures[:, :, ::-1].copy(), pictures[:, ::-1].copy())
    found = estimate(*(look(view, grid, cells, offset, margin) for view in views), grid, SIDE)
    assert found.offset == pytest.approx(offset, abs=0.5)
    assert found.pictures == 30 and max(found.error) < 0.2
    assert found.agreement > 0.98 and found.agreement >= found.agreement_before - 1e-3
    assert TOO_LITTLE not in found.line("BAS")
    if max(map(abs, offset)) > 2:
        assert found.agreement_before < 0.9


def test_maps_that_tell_little() -> None:
    """Protects from trust in a place that maps of anything would give: of other pictures in each view it is said."""
    maps = look(blurred_noise(30, SIDE), Grid(0, 8), 28, Offset(), 0)
    assert TOO_LITTLE in estimate(maps[:10], maps[10:20], maps[20:], Grid(0, 8), SIDE).line("BAS")


def test_maps_that_tell_nothing() -> None:
    """Protects from an offset out of nothing, and a run from ending over a dead network: constant maps and maps that
    are not finite are passed over, and all of them together leave the geometry as it is."""
    maps = look(blurred_noise(6, SIDE), Grid(0, 8), 28, Offset(), 0)
    nothing = estimate(np.ones_like(maps), maps, maps, Grid(0, 8), SIDE)
    assert (nothing.offset, nothing.pictures) == (Offset(), 0)
    assert "drawn by its layers' geometry" in nothing.line("BAS") and read_calibration(nothing.record()) == nothing
    views = [maps.copy(), maps[:, :, ::-1].copy(), maps[:, ::-1].copy()]
    views[0][0], views[1][1] = 0.5, np.nan
    assert estimate(*views, Grid(3.5, 8), SIDE).pictures == 4
    same = [np.repeat(view[:1], 6, axis=0) for view in (maps, maps[:, :, ::-1], maps[:, ::-1])]
    nothing = estimate(*same, Grid(0, 8), SIDE)  # whatever a picture shows, the map is this
    assert (nothing.offset, nothing.pictures) == (Offset(), 0)
    assert estimate(*(view[2:3] for view in views), Grid(3.5, 8), SIDE).pictures == 1


def make_smooth(model: BAS) -> BAS:
    """Kernels that average, the middle most, no non-linearity: a network that looks where its layers say."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            rows = [torch.tensor([1.0]) if size == 1 else torch.tensor([1.0, 2, 1]) for size in module.kernel_size]
            kernel = rows[0][:, None] * rows[1]
            with torch.no_grad():
                module.weight.copy_((kernel / kernel.sum()).expand_as(module.weight) / module.weight.shape[1])
                if module.bias is not None:
                    module.bias.zero_()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU | nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    return model.eval()


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Pictures without boxes."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for index, picture in enumerate(blurred_noise(8, 256, blur=16)):
        paths.append(folder / f"{index}.png")
        scaled = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        Image.fromarray(scaled).convert("RGB").save(paths[-1])
    ids = tuple(path.stem for path in paths)
    labels = np.zeros(len(paths), dtype=np.int64)
    return Split(
        "train", paths=tuple(paths), ids=ids, labels=labels, boxes={}, class_names=("a", "b"), layout="", masks={}
    )


def offsets_of(model: BAS, split: Split) -> dict[str, Calibration]:
    spec = build_spec(CUB.Model.recipe("mobilenet"), kinds=("bas", "cam", "center"), ten_crops=False)
    kinds = kinds_to_calibrate(model, spec)
    assert [kind.kind for kind in kinds] == ["bas", "cam"]
    return {kind.kind: one for kind, one in calibrate(model, split, spec, kinds, CPU, 4, 0).items()}


def test_networks_with_a_known_place(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects calibration end to end: a network that looks where its layers say, one whose input is moved, one with
    another padding than its grid knows of, and the same with the grid that does."""
    torch.manual_seed(0)
    model = make_smooth(CUB.Model.build("mobilenet", 2, False))
    straight = offsets_of(model, split)
    for one in straight.values():
        assert one.offset == pytest.approx((0, 0), abs=1)
    f1 = model.f1
    monkeypatch.setattr(model, "f1", lambda images: f1(images.roll((5, -6), dims=(2, 3))))
    for kind, one in offsets_of(model, split).items():  # what was at x + 6 is now at x: a cell looks 6 to the right
        difference = np.subtract(one.offset, straight[kind].offset)
        assert difference == pytest.approx((6, -5), abs=1), kind
    recipe = replace(CUB.Model.recipe("mobilenet"), num_classes=2, final_relu=False, same_padding=True)
    same = make_smooth(build(recipe))
    for one in offsets_of(same, split).values():
        assert one.offset == pytest.approx((0, 0), abs=1)
    plain = CUB.Model.build("mobilenet", 2, False)
    same.same_padding, same.class_grid = False, plain.class_grid
    found = offsets_of(same, split)
    assert found["bas"].offset == pytest.approx((7, 7), abs=1)
    assert found["cam"].offset == pytest.approx((15, 15), abs=1.5)


def test_offsets_draw_the_maps(split: Split) -> None:
    """Protects the drawing: a spot is drawn at its offset, each kind at its own; the other k of BAS at BAS's."""
    model = CUB.Model.build("mobilenet", 2)
    spec = build_spec(replace(CUB.Model.recipe("mobilenet"), align_maps="calibrated"), kinds=("bas", "cam", "center"))
    bas, cam, center = spec.thresholds
    place = Calibration(Offset(-6, 4), Offset(0.1, 0.1), 0.9, 0.7, 200)
    spec = with_offsets(spec, {bas: place, cam: place._replace(offset=Offset(2, 0))})
    spot = np.zeros((28, 28), np.float32)
    spot[10, 12] = 1
    for kind in (bas, MapKind("bas", 1)):
        drawn = spec.score_map(model, kind, spot)
        assert np.unravel_index(drawn.argmax(), drawn.shape) == (84, 90)
    drawn = spec.score_map(model, cam, spot[::2, ::2])
    assert np.unravel_index(drawn.argmax(), drawn.shape) == (80, 98)
    assert spec.placement(model, center) is None


def test_record_is_read_back() -> None:
    """Protects the settings file: what is kept comes back, and nonsense is refused."""
    one = Calibration(Offset(-6.5, 5.25), Offset(0.1, 0.2), 0.95, 0.7, 200)
    record = json.loads(json.dumps(one.record()))
    assert read_calibration(record) == one
    for changes in ({"offset": [1]}, {"offset": [float("nan"), 0]}, {"offset": [999, 0]}, {"agreement": None}):
        with pytest.raises((ValueError, TypeError)):
            read_calibration(record | changes)
    with pytest.raises(KeyError):
        read_calibration({})
    assert "6.5 px left" in one.line("BAS") and "5.2 down" in one.line("BAS")
