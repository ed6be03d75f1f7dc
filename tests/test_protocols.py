"""The three protocols against literal re-readings of the code that each stands for."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.evaluation.protocols import PROTOCOLS, find_protocol
from utils.localization.boxes import iou
from utils.localization.maps import map_to_box
from utils.metrics import PixelScores
from utils.models.bas import Grid
from utils.system.errors import UsageError

SIZES = (256, 224)
GOLDEN = Path(__file__).with_name("reference") / "golden"


def random_maps(count: int = 60) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.random((count, 28, 28), dtype=np.float32)
    return [cv2.GaussianBlur(one, (0, 0), 0.6 + index / 20) for index, one in enumerate(noise)]


def test_authors_protocol_is_map_to_box() -> None:
    """Protects the default figures: normalise, upsample, threshold, largest component, true boxes in the crop."""
    protocol = find_protocol("authors")
    assert protocol.sizes(*SIZES) == SIZES and protocol.strict and protocol.ten_crops
    thresholds = (0.0, 0.15, 0.4, 0.7, 0.99)
    for spatial_map in random_maps():
        boxes = protocol.boxes(protocol.score_map(spatial_map, 224), thresholds)
        expected = [map_to_box(spatial_map, threshold, 224) for threshold in thresholds]
        assert boxes.tolist() == np.array(expected).tolist()
    # 256 / 512 and 256 / 128 of the original pixels, less 16, held in [0, 224].
    true = protocol.true_boxes([[100, 50, 300, 128]], (512, 128), *SIZES)
    assert true.tolist() == [[34, 84, 134, 224]]
    assert protocol.is_right([0.5, 0.500001]).tolist() == [False, True]


def test_ijcv_protocol_is_the_authors_code() -> None:
    """Protects the IJCV figures: every box, IoU and accuracy of their code, on the maps that it was given."""
    golden = json.loads((GOLDEN / "WSOL_protocol.json").read_text())
    draw, protocol = np.random.RandomState(golden["seed"]), find_protocol("ijcv")
    assert protocol.mean == "image_mean" and protocol.sizes(*SIZES) == SIZES
    assert protocol.is_right([0.49, 0.5]).tolist() == [False, True]
    maps = 0.8 * np.kron(draw.random_sample((12, 7, 7)), np.ones((4, 4))) + 0.2 * draw.random_sample((12, 28, 28))
    maps = maps.astype(np.float32)
    maps[0] = 0.5
    maps[1] = 0
    maps[1, 20:, 20:] = 1
    score_maps = [protocol.score_map(one, 224) for one in maps]
    truth = [
        protocol.true_boxes(np.reshape(boxes, (-1, 4)), size, *SIZES)
        for boxes, size in zip(golden["boxes_original"], golden["sizes_wh"], strict=True)
    ]
    assert [boxes.tolist() for boxes in truth] == golden["boxes_scaled"]
    for row in golden["per_threshold"]:
        boxes = [protocol.boxes(one, [row["threshold"]])[0] for one in score_maps]
        assert np.array(boxes).tolist() == row["boxes"]
        ious = [iou(box, true).max() for box, true in zip(boxes, truth, strict=True)]
        np.testing.assert_allclose(ious, row["best_iou"], rtol=0, atol=1e-12)
        assert 100 * protocol.is_right(ious).mean() == pytest.approx(row["gt_known"], abs=1e-12)


def test_count_pxap_is_the_authors_code() -> None:
    """Protects the IJCV figures of masks: PxAP and pIoU of their count_pxap.py, which are of the same maps."""
    golden = json.loads((GOLDEN / "WSOL_protocol.json").read_text())
    protocol = find_protocol("ijcv").for_masks()
    assert protocol is find_protocol("count_pxap") and protocol.any_level and not protocol.ten_crops
    assert protocol.sizes(*SIZES) == (224, 224)
    assert all(find_protocol(name).for_masks() is find_protocol(name) for name in PROTOCOLS if name != "ijcv")
    draw = np.random.RandomState(golden["seed"])
    maps = 0.8 * np.kron(draw.random_sample((12, 7, 7)), np.ones((4, 4))) + 0.2 * draw.random_sample((12, 28, 28))
    maps = maps.astype(np.float32)
    maps[0] = 0.5
    maps[1] = 0
    maps[1, 20:, 20:] = 1
    draw.randint(120, 600, 12), draw.randint(120, 600, 12)  # widths and heights
    draw.randint(0, 2**32, 144, dtype=np.uint32)  # the words that the boxes took
    draw.standard_normal((12, 20))
    assert draw.randint(0, 20, 12).tolist() == golden["labels"]
    objects = np.kron(draw.random_sample((12, 7, 7)) > 0.7, np.ones((32, 32))) > 0
    ignored = (np.kron(draw.random_sample((12, 7, 7)) > 0.9, np.ones((32, 32))) > 0) & ~objects
    assert (objects.sum(), ignored.sum()) == (golden["pxap"]["object"], golden["pxap"]["ignored"])
    pixels = PixelScores()
    for one, object_mask, ignore_mask in zip(maps, objects, ignored, strict=True):
        mask = np.where(object_mask, 1, np.where(ignore_mask, 255, 0)).astype(np.uint8)
        pixels.update(protocol.score_map(one, 224), mask)
    found = pixels.summary()
    assert found["px_ap"] == pytest.approx(golden["pxap"]["PxAP"], abs=1e-9)
    assert found["peak_iou"] == pytest.approx(golden["pxap"]["pIoU"], abs=1e-9)


def wsolevaluation_box(score_map: np.ndarray, threshold: float) -> list[int]:
    """wsolevaluation's `compute_bboxes_from_scoremaps`, largest contour, in our words."""
    image = np.expand_dims((score_map * 255).astype(np.uint8), 2)
    _, mask = cv2.threshold(image, int(threshold * np.max(image)), 255, cv2.THRESH_BINARY)
    contours = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
    if not contours:
        return [0, 0, 0, 0]
    x, y, width, height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    return [x, y, min(x + width, image.shape[1] - 1), min(y + height, image.shape[0] - 1)]


def test_wsolevaluation_protocol() -> None:
    """Protects figures that are compared with wsolevaluation's: sizes, order of resize and normalisation, contours."""
    protocol = find_protocol("wsolevaluation")
    assert protocol.sizes(*SIZES) == (224, 224) and not protocol.ten_crops and not protocol.strict
    thresholds = (0.0, 0.1, 0.33, 0.5, 0.9)
    for spatial_map in random_maps():
        # Maps are float32; wsolevaluation's `t2n` makes them float64 first.
        resized = cv2.resize(spatial_map.astype(np.float64), (224, 224), interpolation=cv2.INTER_CUBIC)
        resized -= resized.min()
        resized /= resized.max()
        score_map = protocol.score_map(spatial_map, 224)
        assert score_map.tolist() == resized.tolist()
        boxes = protocol.boxes(score_map, thresholds)
        assert boxes.tolist() == [wsolevaluation_box(score_map, threshold) for threshold in thresholds]
    assert protocol.true_boxes([[101, 51, 520, 128]], (512, 128), 224, 224).tolist() == [[44, 89, 227, 224]]
    # wsolevaluation's `resize_bbox`, on whole numbers, which must not fall below the next one by rounding.
    for width in range(50, 600, 7):
        for x in range(0, width + 1, 3):
            (box,) = protocol.true_boxes([[x, 0, width, width]], (width, width), 224, 224)
            assert box.tolist() == [x * 224 // width, 0, 224, 224]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_maps_without_contrast_have_a_defined_box(protocol) -> None:
    """Protects evaluations from dead maps: a constant one gives one box, whose IoU can be computed."""
    for value in (0.0, 1.0, 0.3, 1e-5, 7.7):
        for grid in (None, Grid(0, 8)):
            assert not protocol.score_map(np.full((28, 28), value, np.float32), 224, grid).any()
        boxes = protocol.boxes(protocol.score_map(np.full((28, 28), value, np.float32), 224), (0.0, 0.5))
        assert boxes.shape == (2, 4)
        assert np.isfinite(
            iou(boxes, protocol.true_boxes([[10, 10, 50, 50]], (100, 100), *protocol.sizes(*SIZES)))
        ).all()


def test_unknown_protocol() -> None:
    """Protects a typing mistake from silence."""
    with pytest.raises(UsageError, match="authors, ijcv, count_pxap, wsolevaluation"):
        find_protocol("imagenet")


def test_ijcv_boxes_outside_the_crop() -> None:
    """Protects objects that the crop has lost: bounds hold the left and top from below and the right and bottom from
    above, as their code has it, so that such a box is inverted, and right for nobody."""
    protocol = find_protocol("ijcv")
    true = protocol.true_boxes([[480, 0, 500, 500], [0, 480, 500, 500], [0, 0, 500, 500]], (500, 500), *SIZES)
    assert true.tolist() == [[229, 0, 223, 223], [0, 229, 223, 223], [0, 0, 223, 223]]
