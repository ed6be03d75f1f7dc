"""The three protocols against literal re-readings of the code that each stands for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.boxes import iou
from utils.errors import UsageError
from utils.evaluation.protocols import PROTOCOLS, find_protocol
from utils.localization import map_to_box

SIZES = (256, 224)


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


def test_ijcv_protocol_has_whole_pixels_up_to_223() -> None:
    """Protects the IJCV figures: no box reaches 224, fractions are cut off, an IoU of 0.5 is enough."""
    protocol = find_protocol("ijcv")
    assert protocol.mean == "image_mean" and protocol.sizes(*SIZES) == SIZES
    assert protocol.boxes(np.zeros((224, 224), np.float32), (0.5,)).tolist() == [[0, 0, 223, 223]]
    true = protocol.true_boxes([[101, 51, 300, 128]], (512, 128), *SIZES)
    assert true.tolist() == [[34, 86, 134, 223]]
    assert protocol.is_right([0.49, 0.5]).tolist() == [False, True]
    authors = find_protocol("authors")
    for spatial_map in random_maps(20):
        score_map = protocol.score_map(spatial_map, 224)
        expected = np.minimum(authors.boxes(score_map, (0.3, 0.6)), 223)
        assert protocol.boxes(score_map, (0.3, 0.6)).tolist() == expected.tolist()


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
        resized = cv2.resize(spatial_map, (224, 224), interpolation=cv2.INTER_CUBIC)
        resized -= resized.min()
        resized /= resized.max()
        score_map = protocol.score_map(spatial_map, 224)
        np.testing.assert_allclose(score_map, resized, atol=1e-6)
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
    for value in (0.0, 1.0, 0.3):
        boxes = protocol.boxes(protocol.score_map(np.full((28, 28), value, np.float32), 224), (0.0, 0.5))
        assert boxes.shape == (2, 4)
        assert np.isfinite(
            iou(boxes, protocol.true_boxes([[10, 10, 50, 50]], (100, 100), *protocol.sizes(*SIZES)))
        ).all()


def test_unknown_protocol() -> None:
    """Protects a typing mistake from silence."""
    with pytest.raises(UsageError, match="authors, ijcv, wsolevaluation"):
        find_protocol("imagenet")
