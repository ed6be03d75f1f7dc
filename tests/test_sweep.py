"""Boxes of whole sweeps against one mask at a time: the slow rule for components, wsolevaluation's for contours."""

import cv2
import numpy as np
import pytest

from tests.oracles import largest_component_box
from utils.localization.boxes import iou
from utils.localization.maps import normalize_map, upsample_map
from utils.localization.sweep import best_contour_ious, component_boxes, contour_boxes

GRID = np.arange(100) / 100


def slow_component_boxes(values, thresholds):
    """One mask after another, each with its own labelling."""
    height, width = values.shape
    boxes = [largest_component_box(values > float(threshold)) for threshold in thresholds]
    return [[0, 0, width, height] if box is None else box.tolist() for box in boxes]


def slow_contour_boxes(values, thresholds):
    """wsolevaluation, one threshold after another: the box of the largest contour, and the boxes of all."""
    height, width = values.shape
    image = (values * 255).astype(np.uint8)
    largest, groups = [], []
    for threshold in thresholds:
        _, mask = cv2.threshold(image, int(threshold * np.max(image)), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)

        def box(contour):
            x, y, w, h = cv2.boundingRect(contour)
            return [x, y, min(x + w, width - 1), min(y + h, height - 1)]

        largest.append(box(max(contours, key=cv2.contourArea)) if contours else [0, 0, 0, 0])
        groups.append([box(contour) for contour in contours] or [[0, 0, 0, 0]])
    return largest, groups


def random_map(rng, kind):
    """Maps in [0, 1], H != W, whose masks touch the edges, nest, tie, and end in single pixels and diagonals."""
    shape = tuple(rng.integers(1, 40, 2))
    y, x = np.mgrid[: shape[0], : shape[1]]
    if kind == "noise":
        values = rng.random(shape)
    elif kind == "plateaus":
        values = rng.integers(0, 5, shape) / 4
    elif kind == "sparse":  # many small regions of equal size
        values = (rng.random(shape) < 0.15) * rng.choice([0.25, 0.5, 1], shape)
    elif kind == "stripes":  # lines of one pixel, straight and diagonal, that cross or run in parallel
        values = np.maximum((x + rng.choice([-1, 0, 1]) * y) % rng.integers(2, 5) == 0, y % rng.integers(2, 7) == 0)
        values = values * rng.choice([0.3, 0.6, 1], shape)
    elif kind == "rings":  # regions within holes within regions
        radius = np.maximum(abs(y - shape[0] // 2), abs(x - shape[1] // 2))
        values = (radius % 4 < 2) * (1 + radius % 7) / 7 * (rng.random(shape) < 0.95)
    else:
        small = rng.random(tuple(rng.integers(1, 7, 2))).astype(np.float32)
        values = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return normalize_map(values.astype(np.float32))


KINDS = ["noise", "plateaus", "sparse", "stripes", "rings", "smooth"]


@pytest.mark.parametrize("kind", KINDS)
def test_component_boxes_match_one_mask_at_a_time(kind):
    """Protects every box of a sweep: counts by Pick's theorem, holes, nesting, ties, edges and thin lines."""
    rng = np.random.default_rng(KINDS.index(kind))
    distinct = 0
    for _ in range(80):
        values = random_map(rng, kind)
        # On values of the map itself the strictness decides; the order of the thresholds must not.
        thresholds = rng.permutation(np.concatenate([rng.random(20), rng.choice(values.ravel(), 10), [0, 1, 0.15]]))
        boxes = component_boxes(values, thresholds)
        assert boxes.dtype == np.int64 and boxes.shape == (33, 4)
        assert boxes.tolist() == slow_component_boxes(values, thresholds)
        distinct += len(np.unique(boxes, axis=0))
    assert distinct > 200


def test_ties_go_to_the_first_component_at_every_threshold():
    """Protects the tie rule with enough ties: equal components, of which reading order chooses one."""
    rng = np.random.default_rng(20)
    ties = 0
    for _ in range(800):
        values = (rng.random(rng.integers(2, 14, 2)) < 0.2).astype(np.float32)
        values[rng.random(values.shape) < 0.3] *= 0.5
        assert component_boxes(values, [0.2, 0.7]).tolist() == slow_component_boxes(values, [0.2, 0.7])
        areas = cv2.connectedComponentsWithStats((values > 0.2).astype(np.uint8), connectivity=8)[2][1:, -1]
        ties += len(areas) > 1 and (areas == areas.max()).sum() > 1
    assert ties > 100


def test_sweeps_at_the_network_size():
    """Protects real sizes: 28 x 28 maps at 224 x 224, steps of 0.01 and 0.001, smooth and noisy."""
    rng = np.random.default_rng(21)
    for sigma in (0, 1, 3):
        spatial_map = rng.random((28, 28)).astype(np.float32)
        spatial_map = cv2.GaussianBlur(spatial_map, (0, 0), sigma) if sigma else spatial_map
        values = upsample_map(normalize_map(spatial_map), 224)
        assert component_boxes(values, GRID).tolist() == slow_component_boxes(values, GRID)
        thresholds = np.arange(0, 1, 0.001)
        contours = contour_boxes(values, thresholds)
        largest, groups = slow_contour_boxes(values, thresholds)
        assert contours.largest.tolist() == largest
        assert contours.boxes.tolist() == sum(groups, [])


@pytest.mark.parametrize("kind", KINDS)
def test_contour_boxes_match_wsolevaluation(kind):
    """Protects MaxBoxAcc's boxes: the 8-bit map, thresholds relative to its maximum, holes, ties by OpenCV's order."""
    rng = np.random.default_rng(30 + KINDS.index(kind))
    contours_found = 0
    for _ in range(80):
        values = random_map(rng, kind) * np.float32(rng.choice([1, 0.5, 0.01]))  # a maximum below 1 is allowed
        thresholds = rng.permutation(np.concatenate([rng.random(20), [0, 1, 0.5]]))
        contours = contour_boxes(values, thresholds)
        largest, groups = slow_contour_boxes(values, thresholds)
        assert contours.largest.dtype == contours.boxes.dtype == contours.starts.dtype == np.int64
        assert contours.largest.tolist() == largest
        assert [group.tolist() for group in np.split(contours.boxes, contours.starts[1:])] == groups
        contours_found += len(contours.boxes)
    assert contours_found > 80 * 23


def test_best_contour_ious_match_loops():
    """Protects both accuracies' IoUs: the largest contour's and any contour's, over all true boxes."""
    rng = np.random.default_rng(40)
    for _ in range(60):
        values = random_map(rng, rng.choice(KINDS))
        true_boxes = np.sort(rng.uniform(0, 40, (rng.integers(1, 4), 2, 2)), axis=1).reshape(-1, 4)
        largest_boxes, groups = slow_contour_boxes(values, GRID[::9])
        largest, best = best_contour_ious(contour_boxes(values, GRID[::9]), true_boxes)
        assert largest.tolist() == [iou(box, true_boxes).max() for box in largest_boxes]
        assert best.tolist() == [max(iou(box, true_boxes).max() for box in group) for group in groups]


def test_fixed_points_of_the_field():
    """Protects against a shared misunderstanding: a ring and its hole, a diagonal touch, and a sweep by hand."""
    ring = np.zeros((10, 10), np.float32)
    ring[1:8, 1:8] = 1
    ring[3:6, 3:6] = 0
    contours = contour_boxes(ring, [0.5])
    assert sorted(contours.boxes.tolist()) == [[1, 1, 8, 8], [2, 2, 7, 7]]
    assert contours.largest.tolist() == [[1, 1, 8, 8]]
    diagonal = np.zeros((8, 8), np.float32)
    diagonal[1:3, 1:3] = diagonal[3:5, 3:5] = 1
    assert contour_boxes(diagonal, [0.5]).boxes.tolist() == [[1, 1, 5, 5]]
    assert component_boxes(diagonal, [0.5]).tolist() == [[1, 1, 5, 5]]
    steps = np.array(
        [[0, 0, 0, 0, 0], [0, 0.4, 0.4, 0.4, 0.6], [0, 0.4, 1, 0.8, 0.6], [0, 0.4, 0.4, 0.4, 0.6]], np.float32
    )
    by_hand = [[1, 1, 4, 3], [1, 1, 4, 3], [2, 1, 4, 3], [2, 2, 4, 3], [2, 2, 3, 3]]
    assert contour_boxes(steps, [0, 0.2, 0.4, 0.6, 0.8]).largest.tolist() == by_hand


def test_pixels_count_and_not_the_box_or_the_outline():
    """Protects the size of a component by hand: a wide ring loses to a small block, a hole's region is its own."""
    values = np.zeros((9, 12), np.float32)
    values[0:7, 0:7] = 1
    values[1:6, 1:6] = 0  # a ring of 24 pixels
    values[2:5, 8:12] = 1
    values[5:8, 8:12] = 1
    values[8, 8] = 1  # 25 pixels
    assert component_boxes(values, [0.5]).tolist() == [[8, 2, 12, 9]]
    values[8, 8] = 0  # 24: a tie, and the ring starts higher
    assert component_boxes(values, [0.5]).tolist() == [[0, 0, 7, 7]]
    values[3, 3] = 1  # a region of its own within the ring
    assert component_boxes(values, [0.5]).tolist() == [[0, 0, 7, 7]]
    values[3, 2] = values[3, 1] = 1  # that now grows from the ring into its hole
    values[8, 8:11] = 1  # 27 pixels each
    assert component_boxes(values, [0.5]).tolist() == [[0, 0, 7, 7]]
    values[8, 11] = 1
    assert component_boxes(values, [0.5]).tolist() == [[8, 2, 12, 9]]


def test_thresholds_are_rounded_to_the_maps_type():
    """Protects strictness: a float32 pixel equal to the rounded threshold is background, in float64 it may not be."""
    values = np.array([[0, 0.1, 0.15, 1]], np.float32)
    assert component_boxes(values, [0.1, 0.15]).tolist() == [[2, 0, 4, 1], [3, 0, 4, 1]]
    in_float64 = values.astype(np.float64)
    assert component_boxes(in_float64, [0.1, 0.15]).tolist() == slow_component_boxes(in_float64, [0.1, 0.15])
    assert component_boxes(in_float64, [0.1]).tolist() == [[1, 0, 4, 1]]


def test_nothing_above_a_threshold_has_a_defined_box():
    """Protects empty masks: the whole map for components, the zero box for contours, at every threshold or none."""
    for shape in ((5, 7), (1, 1)):
        height, width = shape
        zeros = np.zeros(shape, np.float32)
        assert component_boxes(zeros, [0, 0.5, 1]).tolist() == [[0, 0, width, height]] * 3
        contours = contour_boxes(zeros, [0, 0.5, 1])
        assert contours.largest.tolist() == contours.boxes.tolist() == [[0, 0, 0, 0]] * 3
        assert contours.starts.tolist() == [0, 1, 2]
        assert component_boxes(zeros, []).shape == (0, 4)
        empty = contour_boxes(zeros, [])
        assert empty.largest.shape == empty.boxes.shape == (0, 4) and empty.starts.shape == (0,)
        assert [array.shape for array in best_contour_ious(empty, [0, 0, 1, 1])] == [(0,), (0,)]
    assert component_boxes(np.ones((5, 7)), [0.5, 1]).tolist() == [[0, 0, 7, 5]] * 2


@pytest.mark.parametrize("sweep", [component_boxes, contour_boxes])
def test_maps_and_thresholds_that_do_not_fit_are_refused(sweep):
    """Protects against maps that were not normalised, NaN, wrong shapes and thresholds in percent or 8 bits."""
    good = np.eye(4, dtype=np.float32)
    for bad in (good * 2, good - 0.5, good * np.nan, np.where(good > 0, np.nan, good), good[0], good[None], good[:0]):
        with pytest.raises(ValueError, match="map must"):
            sweep(bad, [0.5])
    for thresholds in ([50], [-0.1], [0.2, np.nan], 0.5, [[0.5]]):
        with pytest.raises(ValueError, match="thresholds"):
            sweep(good, thresholds)
    for true_boxes in (np.empty((0, 4)), np.zeros((2, 3))):
        with pytest.raises(ValueError, match="box"):
            best_contour_ious(contour_boxes(good, [0.5]), true_boxes)


def test_rounding_of_upsampling_is_accepted():
    """Protects maps at sizes where bilinear weights add up to just over 1; the caller's map stays as it was."""
    values = np.full((3, 3), np.nextafter(np.float32(1), np.float32(2)))
    values[0] = 0
    before = values.copy()
    assert component_boxes(values, [0.5]).tolist() == [[0, 1, 3, 3]]
    assert contour_boxes(values, [0.5]).largest.tolist() == [[0, 1, 2, 2]]
    assert (values == before).all()
