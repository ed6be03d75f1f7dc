"""Error types against TS-CAM's tests in its order, by counting pixels, and their totals."""

import json

import numpy as np
import pytest

from utils.metrics import ERROR_TYPES, error_breakdown, error_type


def pixels(box):
    """The pixels of a box of whole numbers, both corners included."""
    return {(x, y) for x in range(box[0], box[2] + 1) for y in range(box[1], box[3] + 1)}


def literal_error_type(is_right_class, predicted, true_boxes):
    """TS-CAM's tests one after another; whole numbers decide, so no rounding does."""
    predicted, true_boxes = pixels(predicted), [pixels(box) for box in true_boxes]
    if not is_right_class:
        return "wrong class"
    nearest = max(true_boxes, key=lambda true: len(predicted & true) / len(predicted | true))
    shared = len(predicted & nearest)
    if 2 * shared > len(predicted | nearest):
        return "right"
    if sum(10 * len(predicted & true) > 3 * len(true) for true in true_boxes) >= 2:
        return "multi-instance"
    if 2 * shared > len(predicted):
        return "part"
    if 10 * shared >= 7 * len(nearest):
        return "more"
    return "other"


def test_types_match_counted_pixels():
    """Protects all six tests and their order on thousands of small boxes, many exactly on a limit."""
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(4000):
        boxes = np.sort(rng.integers(0, 10, (rng.integers(2, 5), 2, 2)), axis=1).reshape(-1, 4)
        is_right_class = bool(rng.random() < 0.9)
        expected = literal_error_type(is_right_class, boxes[0].tolist(), boxes[1:].tolist())
        assert error_type(is_right_class, boxes[0], boxes[1:]) == expected, boxes
        seen.append(expected)
    assert min(seen.count(name) for name in ERROR_TYPES if name != "missed") > 100


@pytest.mark.parametrize(
    ("predicted", "true_boxes", "expected"),
    [
        ([0, 0, 9, 9], [[0, 0, 9, 9]], "right"),
        ([0, 0, 9, 4], [[0, 0, 9, 9]], "part"),  # an IoU of exactly 0.5 is not right
        ([0, 0, 3, 3], [[0, 0, 9, 9]], "part"),
        ([0, 0, 19, 9], [[0, 0, 6, 9], [13, 0, 19, 9]], "multi-instance"),
        ([0, 0, 19, 9], [[0, 0, 6, 9], [18, 0, 27, 9]], "more"),  # only 0.2 of the second
        ([0, 0, 19, 19], [[0, 0, 9, 9]], "more"),
        ([3, 0, 32, 9], [[0, 0, 9, 9]], "more"),  # exactly 0.7
        ([4, 0, 33, 9], [[0, 0, 9, 9]], "other"),
        ([0, 0, 9, 9], [[5, 0, 24, 9]], "other"),  # exactly half of the predicted box
        ([0, 0, 9, 9], [[50, 50, 59, 59]], "other"),
        ([0, 0, 9, 9], [230, 10, 224, 40], "other"),  # a true box outside the crop comes inverted
    ],
)
def test_types_by_hand(predicted, true_boxes, expected):
    """Protects the limits, strict or not, on boxes that a reader can check; a wrong class goes before all."""
    assert error_type(True, predicted, true_boxes) == expected
    assert error_type(False, predicted, true_boxes) == "wrong class"


@pytest.mark.filterwarnings("error")
def test_inverted_boxes_never_divide_by_nothing():
    """Protects the 482 ILSVRC boxes outside the crop, inverted or without area: a type, no warning."""
    inverted = [[225, 10, 224, 40], [300, 300, 224, 224], [230, 240, 224, 224]]
    assert error_type(True, [100, 0, 224, 224], inverted) == "other"
    assert error_type(True, [100, 0, 224, 224], [[110, 0, 224, 224], *inverted]) == "right"


def test_boxes_that_do_not_fit_are_refused():
    """Protects against several predictions at once, no true box and NaN, whatever the class."""
    for is_right_class in (True, False):
        for predicted, true_boxes in (
            ([[0, 0, 1, 1]], [[0, 0, 1, 1]]),
            ([0, 0, 1, 1], np.empty((0, 4))),
            ([0, 0, 1], [[0, 0, 1, 1]]),
            ([0, 0, 1, 1], [[0, 0, 1]]),
        ):
            with pytest.raises(ValueError, match="true box"):
                error_type(is_right_class, predicted, true_boxes)
        for predicted, true_boxes in (([0, 0, np.nan, 1], [[0, 0, 1, 1]]), ([0, 0, 1, 1], [[0, np.nan, 1, 1]])):
            with pytest.raises(ValueError, match="NaN"):
                error_type(is_right_class, predicted, true_boxes)


def test_breakdown_counts():
    """Protects the totals: order of the types, percentages of all images, unknown names."""
    assert ERROR_TYPES == ("wrong class", "right", "multi-instance", "part", "more", "other", "missed")
    rng = np.random.default_rng(1)
    names = rng.choice(ERROR_TYPES[:-1], 200).tolist() + ["missed"] * 2
    summary = error_breakdown(names)
    assert list(summary) == [*ERROR_TYPES, "images"]
    for name in ERROR_TYPES:
        assert summary[name] == {"count": names.count(name), "percent": pytest.approx(100 * names.count(name) / 202)}
    assert summary["images"] == 202 and summary["missed"]["count"] == 2
    assert json.loads(json.dumps(summary)) == summary
    with pytest.raises(ValueError, match="wrong box"):
        error_breakdown(["right", "wrong box"])
    with pytest.raises(ValueError, match="without images"):
        error_breakdown([])
