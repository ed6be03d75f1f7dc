"""Boxes against a literal transcription of the definitions and against figures worked out by hand."""

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import center_crop

from utils.localization.boxes import crop_boxes_to_image, iou, scale_boxes_to_crop


def literal_iou(a, b):
    """The IoU with the +1 convention for two boxes, one line a definition."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    union = area_a + area_b - width * height
    return 0 if union == 0 else width * height / union


def literal_crop_box(box, image_size, resize_size, crop_size):
    """A box through resize and centre crop, number by number."""
    (x0, y0, x1, y1), (width, height) = box, image_size
    offset = int(round((resize_size - crop_size) / 2))
    return [
        max(0, x0 * resize_size / width - offset),
        max(0, y0 * resize_size / height - offset),
        min(crop_size, x1 * resize_size / width - offset),
        min(crop_size, y1 * resize_size / height - offset),
    ]


def random_boxes(rng, n, low=-20, high=240):
    corners = np.sort(rng.uniform(low, high, (n, 2, 2)), axis=1)
    return corners.reshape(n, 4)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 5, 6], [3, 1, 4, 5], 8 / 27),
        ([0, 0, 0, 0], [0, 0, 0, 0], 1),
        ([0, 0, 9, 9], [10, 0, 19, 9], 0),  # neighbours share no pixel
        ([0, 0, 9, 9], [9, 0, 18, 9], 10 / 190),  # the last column counts
        ([0, 0, 9, 9], [20, 20, 29, 29], 0),  # apart on both axes: two negatives make no overlap
        ([0, 0, 224, 224], [0, 0, 224, 224], 1),
        ([3, 3, 2, 2], [3, 3, 2, 2], 0),  # zero union
        ([0, 0, 9, 9], [230, 10, 224, 40], 0),  # a true box outside the crop
    ],
)
def test_iou_fixed_points(a, b, expected):
    """Protects the +1 convention, disjoint and touching boxes, and the zero union."""
    assert iou(a, b) == pytest.approx(expected, abs=1e-15)
    assert iou(b, a) == pytest.approx(expected, abs=1e-15)


def test_iou_matches_literal_pairs_inverted_included():
    """Protects the vectorised matrix: every pair of ordinary and inverted boxes, integers and floats."""
    rng = np.random.default_rng(0)
    ordinary = random_boxes(rng, 60)
    unordered = rng.integers(-3, 12, (60, 4))  # mostly inverted, many with an area or a union of 0
    boxes = np.concatenate([ordinary, unordered, rng.integers(0, 12, (40, 4))])
    expected = [[literal_iou(a, b) for b in boxes.tolist()] for a in boxes[::-1].tolist()]
    assert np.count_nonzero(expected) > 1000
    np.testing.assert_allclose(iou(boxes[::-1], boxes), expected, rtol=1e-12, atol=0)


def test_iou_shapes():
    """Protects the contract that a single box drops its axis, and that lists, tensors and no boxes are accepted."""
    boxes = random_boxes(np.random.default_rng(1), 5)
    table = iou(boxes, boxes[:3])
    assert table.shape == (5, 3)
    assert iou(boxes[2], boxes[:3]).tolist() == table[2].tolist()
    assert iou(boxes, boxes[1]).tolist() == table[:, 1].tolist()
    assert np.ndim(iou(boxes[2], boxes[1])) == 0 and iou(boxes[2], boxes[1]) == table[2, 1]
    assert iou(torch.from_numpy(boxes), boxes[:3].tolist()).tolist() == table.tolist()
    assert iou(np.empty((0, 4)), boxes).shape == (0, 5)
    assert iou(boxes[0], np.empty((0, 4))).shape == (0,)


@pytest.mark.parametrize("bad", [[1, 2, 3], np.zeros((2, 5)), np.zeros((2, 2, 4)), 7.0, []])
def test_wrong_shapes_are_refused(bad):
    """Protects against silent broadcasting: a box that is not four numbers is named by its shape."""
    shape = str(np.shape(bad))
    for call in (
        lambda: iou(bad, [0, 0, 1, 1]),
        lambda: iou([0, 0, 1, 1], bad),
        lambda: scale_boxes_to_crop(bad, (500, 375), 256, 224),
        lambda: crop_boxes_to_image(bad, (500, 375), 256, 224),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert shape in str(error.value)


@pytest.mark.parametrize(("resize_size", "crop_size"), [(256, 224), (257, 224), (255, 224), (64, 64), (96, 56)])
def test_scaled_boxes_match_literal(resize_size, crop_size):
    """Protects true boxes on their way into the crop: scale of each axis, offset, one-sided clipping, outside boxes."""
    rng = np.random.default_rng(2)
    inverted = 0
    for image_size in [(500, 375), (33, 480), (224, 224)]:
        # Larger than the picture by a tenth, since some true boxes reach past its edge.
        boxes = random_boxes(rng, 100, -0.1, 1.1) * np.tile(image_size, 2)
        narrow = boxes.copy()
        narrow[:, 2:] = narrow[:, :2] + 0.01 * np.array(image_size)  # some lie wholly in the border that is cut off
        boxes = np.concatenate([boxes, narrow])
        scaled = scale_boxes_to_crop(boxes, image_size, resize_size, crop_size)
        expected = [literal_crop_box(box, image_size, resize_size, crop_size) for box in boxes.tolist()]
        np.testing.assert_allclose(scaled, expected, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(scale_boxes_to_crop(boxes[7], image_size, resize_size, crop_size), expected[7])
        inverted += (scaled[:, :2] > scaled[:, 2:]).any(axis=1).sum()
    assert inverted > 10


def test_scaled_box_by_hand():
    """Protects the figures a reader can check: 256/224 shifts by 16, and a box in the cut-off border is inverted."""
    assert scale_boxes_to_crop([50, 30, 450, 300], (500, 375), 256, 224).tolist() == pytest.approx(
        [50 * 0.512 - 16, 30 * 256 / 375 - 16, 450 * 0.512 - 16, 300 * 256 / 375 - 16]
    )
    assert scale_boxes_to_crop([0, 0, 256, 256], (256, 256), 256, 224).tolist() == [0, 0, 224, 224]
    assert scale_boxes_to_crop([0, 100, 6, 110], (256, 256), 256, 224).tolist() == [0, 84, -10, 94]
    assert scale_boxes_to_crop([245, 100, 256, 110], (256, 256), 256, 224).tolist() == [229, 84, 224, 94]


def test_scale_takes_a_size_for_each_box():
    """Protects the vectorised form: boxes of pictures of different sizes in one call."""
    boxes = random_boxes(np.random.default_rng(3), 3, 20, 200)
    sizes = [(500, 375), (320, 240), (256, 300)]
    together = scale_boxes_to_crop(boxes, sizes, 256, 224)
    for box, size, row in zip(boxes, sizes, together, strict=True):
        assert row.tolist() == scale_boxes_to_crop(box, size, 256, 224).tolist()


def test_crop_boxes_return_to_the_image():
    """Protects drawn boxes: the inverse undoes the scaling for boxes inside the crop, and the whole crop is centred."""
    boxes = random_boxes(np.random.default_rng(4), 50, 0, 224)
    for image_size in [(500, 375), (33, 480)]:
        in_image = crop_boxes_to_image(boxes, image_size, 256, 224)
        np.testing.assert_allclose(scale_boxes_to_crop(in_image, image_size, 256, 224), boxes, atol=1e-9)
    assert crop_boxes_to_image([0, 0, 224, 224], (512, 256), 256, 224).tolist() == [32, 16, 480, 240]


@pytest.mark.parametrize(("resize_size", "crop_size"), [(256, 224), (257, 224), (259, 224), (12, 7), (10, 7)])
def test_offset_is_that_of_torchvision(resize_size, crop_size):
    """Protects boxes against drifting from the pixels: the same rounding as the centre crop, odd margins included."""
    columns = torch.arange(resize_size).repeat(1, resize_size, 1)
    first_column = int(center_crop(columns, [crop_size, crop_size])[0, 0, 0])
    box = crop_boxes_to_image([0, 0, 1, 1], (resize_size, resize_size), resize_size, crop_size)
    assert box.tolist() == [first_column, first_column, first_column + 1, first_column + 1]


@pytest.mark.parametrize(
    ("image_size", "resize_size", "crop_size", "named"),
    [((0, 10), 256, 224, "image_size"), ((5, 5, 3), 256, 224, "image_size"), ((5, 5), 200, 224, "crop_size")],
)
def test_impossible_transforms_are_refused(image_size, resize_size, crop_size, named):
    """Protects against infinite or shifted boxes from an empty picture or a crop larger than the picture."""
    for function in (scale_boxes_to_crop, crop_boxes_to_image):
        with pytest.raises(ValueError, match=named):
            function([0, 0, 1, 1], image_size, resize_size, crop_size)
