"""From map to box, against a literal transcription in pure Python and against maps made by hand."""

import math

import cv2
import numpy as np
import pytest
import torch

from tests.oracles import largest_component_box
from utils.localization.maps import map_to_box, normalize_map, upsample_map


def literal_normalized(rows):
    """Min-max normalisation of a list of rows."""
    lowest, highest = min(map(min, rows)), max(map(max, rows))
    return [[(value - lowest) / (highest - lowest) for value in row] for row in rows]


def literal_neighbours(position, scale, n):
    """The two source pixels around an output pixel and the share of the second; centres sit at half positions."""
    source = (position + 0.5) * scale - 0.5
    first = math.floor(source)
    return min(max(first, 0), n - 1), min(max(first + 1, 0), n - 1), source - first


def literal_upsampled(rows, height, width):
    """Bilinear interpolation, one output pixel after another."""
    h, w = len(rows), len(rows[0])
    columns = [literal_neighbours(x, w / width, w) for x in range(width)]
    result = []
    for y in range(height):
        above, below, dy = literal_neighbours(y, h / height, h)
        upper, lower = rows[above], rows[below]
        result.append(
            [
                (1 - dy) * ((1 - dx) * upper[left] + dx * upper[right])
                + dy * ((1 - dx) * lower[left] + dx * lower[right])
                for left, right, dx in columns
            ]
        )
    return result


def literal_component_box(mask):
    """Flood fill from each pixel in reading order; the first component that no later one exceeds wins."""
    height, width = len(mask), len(mask[0])
    seen, largest = set(), []
    for y in range(height):
        for x in range(width):
            if not mask[y][x] or (y, x) in seen:
                continue
            seen.add((y, x))
            component = [(y, x)]
            for row, column in component:  # grows while it is walked
                for r in range(max(row - 1, 0), min(row + 2, height)):
                    for c in range(max(column - 1, 0), min(column + 2, width)):
                        if mask[r][c] and (r, c) not in seen:
                            seen.add((r, c))
                            component.append((r, c))
            if len(component) > len(largest):
                largest = component
    if not largest:
        return None
    ys, xs = zip(*largest, strict=True)
    return [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def clear_threshold(values, wished):
    """The threshold near `wished` that lies farthest from every pixel, and that distance."""
    near = sorted({wished - 0.02, wished + 0.02, *(v for v in values if abs(v - wished) < 0.02)})
    gap, start = max((b - a, a) for a, b in zip(near, near[1:], strict=False))
    return start + gap / 2, gap / 2


def random_map(rng, kind, shape):
    if kind == "noise":
        return rng.random(shape)
    if kind == "few values":
        return rng.integers(0, 4, shape) / 3 * rng.uniform(0.5, 9)
    if kind == "sparse":  # many small regions, many ties
        return (rng.random(shape) < 0.12) * rng.choice([0.6, 1.0], shape) + rng.normal(0, 0.01, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    blobs = np.zeros(shape)
    for _ in range(rng.integers(1, 6)):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        blobs += rng.uniform(0.3, 1) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / rng.uniform(2, 40))
    return blobs * rng.uniform(-3, 3)  # negative: a hole, or all but a hole, is the object


@pytest.mark.parametrize("kind", ["blobs", "noise", "few values", "sparse"])
def test_boxes_match_literal_chain(kind):
    """Protects the whole chain, map to box: the order of its steps, half-pixel centres, strictness, components."""
    rng = np.random.default_rng(sum(map(ord, kind)))
    sizes = [(56, 56)] * 30 + [(64, 40), (31, 77), (28, 28), (90, 17)] * 8 + [(224, 224)] * 3
    discarded = whole = 0
    for size in sizes:
        shape = (28, 28) if size == (224, 224) else tuple(rng.choice([7, 14, 20, 28], 2))
        spatial_map = random_map(rng, kind, shape).astype(np.float32)
        upsampled = literal_upsampled(literal_normalized(spatial_map.tolist()), *size)
        threshold, distance = clear_threshold((v for row in upsampled for v in row), rng.uniform(0.05, 0.95))
        if distance < 1e-5:  # there the last bit of a float32 would decide
            discarded += 1
            continue
        whole_crop = [0, 0, size[1], size[0]]
        expected = literal_component_box([[value > threshold for value in row] for row in upsampled]) or whole_crop
        box = map_to_box(spatial_map, threshold, size)
        assert box.tolist() == expected, (shape, size, threshold)
        whole += expected == whole_crop
    assert discarded <= 3
    assert whole < len(sizes) * 0.6  # most cases tell boxes apart


def test_upsampling_matches_literal():
    """Protects values, not only boxes: bilinear with half-pixel centres for growing, odd and shrinking sizes."""
    rng = np.random.default_rng(5)
    for shape, size in [((28, 28), (224, 224)), ((7, 9), (50, 31)), ((1, 4), (6, 6)), ((28, 28), (14, 20))]:
        spatial_map = rng.random(shape).astype(np.float32)
        upsampled = upsample_map(spatial_map, size)
        assert upsampled.shape == size and upsampled.dtype == np.float32
        np.testing.assert_allclose(upsampled, literal_upsampled(spatial_map.tolist(), *size), atol=2e-6)


def test_map_is_normalised_before_it_is_upsampled():
    """Protects the order of the steps: upsampling first would lower the peak and move the threshold."""
    spatial_map = np.zeros((4, 4))
    spatial_map[0, 0] = spatial_map[3, 3] = 1.0
    spatial_map[3, 2] = spatial_map[2, 3] = 0.9
    spatial_map[1, 0] = -1.0  # reaches the upsampled map only in part at an odd factor
    size, threshold = (10, 10), 0.62
    upsampled = np.array(literal_upsampled(literal_normalized(spatial_map.tolist()), *size))
    other_order = np.array(literal_normalized(literal_upsampled(spatial_map.tolist(), *size)))
    boxes = [literal_component_box((values > threshold).tolist()) for values in (upsampled, other_order)]
    assert boxes[0] != boxes[1]
    assert map_to_box(spatial_map, threshold, size).tolist() == boxes[0]


def test_largest_component_matches_literal_on_tied_masks():
    """Protects the tie rule: OpenCV numbers components by 2x2 blocks, we promise reading order of the first pixel."""
    rng = np.random.default_rng(6)
    ties = 0
    for _ in range(1500):
        mask = rng.random(rng.integers(1, 15, 2)) < rng.choice([0.1, 0.15, 0.2, 0.5])
        expected = literal_component_box(mask.tolist())
        box = largest_component_box(mask)
        assert expected == (None if box is None else box.tolist()), mask.astype(int)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        ties += len(areas) > 1 and (areas == areas.max()).sum() > 1
    assert ties > 200


def test_tie_goes_to_the_first_pixel_in_reading_order():
    """Protects the rule on a mask that a reader can check: the right region starts a row higher, within one block."""
    mask = np.array([[0, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0]])
    assert largest_component_box(mask).tolist() == [3, 0, 4, 2]
    assert largest_component_box(mask[:, ::-1]).tolist() == [0, 0, 1, 2]


HAND_MADE = {
    "diagonal neighbours are one component": (
        [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]],
        [0, 0, 4, 4],
    ),
    "an anti-diagonal too": ([[0, 0, 1], [0, 1, 0], [1, 0, 0]], [0, 0, 3, 3]),
    "pixels count, not the box: the ring loses to the block": (
        [
            [1, 1, 1, 1, 0, 0, 0, 0],
            [1, 0, 0, 1, 0, 1, 1, 1],
            [1, 0, 0, 1, 0, 1, 1, 1],
            [1, 0, 0, 1, 0, 1, 1, 1],
            [1, 1, 1, 1, 0, 1, 1, 1],
            [0, 0, 0, 0, 0, 1, 1, 1],
        ],
        [5, 1, 8, 6],
    ),
    "a region in a hole is another component": (
        [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]],
        [0, 0, 5, 5],
    ),
    "a tie goes to the first": ([[0, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0]], [2, 0, 3, 2]),
    "one pixel has width and height 1": ([[0, 0, 0], [0, 0, 1]], [2, 1, 3, 2]),
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_maps(name):
    """Protects connectivity, holes, ties and the +1 of right and bottom, on maps that are not resized."""
    rows, expected = HAND_MADE[name]
    assert map_to_box(rows, 0.5, (len(rows), len(rows[0]))).tolist() == expected
    assert largest_component_box(np.array(rows)).tolist() == expected


@pytest.mark.parametrize(
    "spatial_map",
    [
        np.zeros((28, 28)),
        np.full((28, 28), 0.7, np.float32),
        np.full((28, 28), np.nan),
        np.where(np.eye(28) > 0, np.nan, 0.5),
        np.where(np.eye(28) > 0, np.inf, np.eye(28, k=1)),
        np.where(np.eye(28) > 0, -np.inf, 0.5),
        np.full((28, 28), np.inf),
        np.where(np.eye(28) > 0, 3e38, -3e38).astype(np.float32),  # the span itself overflows
    ],
    ids=["zeros", "constant", "all NaN", "some NaN", "some inf", "some -inf", "all inf", "overflow"],
)
@pytest.mark.filterwarnings("error")
def test_maps_without_an_answer_give_the_whole_crop(spatial_map):
    """Protects the defined box of constant and non-finite maps, at every threshold and without warnings."""
    assert normalize_map(spatial_map).tolist() == np.zeros((28, 28)).tolist()
    for threshold in (0, 0.15, 1):
        assert map_to_box(spatial_map, threshold, 224).tolist() == [0, 0, 224, 224]
        assert map_to_box(spatial_map, threshold, (120, 96)).tolist() == [0, 0, 96, 120]


def test_threshold_is_strict():
    """Protects `>`: a pixel equal to the threshold is background, also where float32 rounds the threshold."""
    spatial_map = [[0, 0.5, 0.5, 1]]
    assert map_to_box(spatial_map, 0.5, (1, 4)).tolist() == [3, 0, 4, 1]
    assert map_to_box(spatial_map, 0.49, (1, 4)).tolist() == [1, 0, 4, 1]
    assert map_to_box(spatial_map, 0, (1, 4)).tolist() == [1, 0, 4, 1]
    assert map_to_box(spatial_map, 1, (1, 4)).tolist() == [0, 0, 4, 1]  # empty mask
    in_float32 = np.array([[0, 0.1, 0.15, 1]], np.float32)
    assert map_to_box(in_float32, 0.15, (1, 4)).tolist() == [3, 0, 4, 1]
    # The float32 nearest to 0.1 is larger than 0.1 in double precision.
    for threshold in (0.1, np.float64(0.1)):
        assert map_to_box(in_float32, threshold, (1, 4)).tolist() == [2, 0, 4, 1]


def test_normalize_map_spans_zero_to_one():
    """Protects min-max normalisation for any range, integers, and the shape of the result."""
    for spatial_map in (np.array([[-3.0, 1.0], [5.0, 0.0]]), np.array([[-3, 1], [5, 0]])):
        assert normalize_map(spatial_map).tolist() == [[0, 0.5], [1, 0.375]]
    assert normalize_map(np.array([[7, 250]], np.uint8)).tolist() == [[0, 1]]


def test_kinds_of_input_give_the_same_box():
    """Protects callers: tensors with gradients, half precision, strided views and lists give the array's box."""
    rng = np.random.default_rng(7)
    spatial_map = (rng.integers(0, 9, (14, 10)) / 8).astype(np.float32)  # exact in every precision
    expected = map_to_box(spatial_map, 0.8, (28, 30)).tolist()
    assert expected != [0, 0, 30, 28]
    tensor = torch.tensor(spatial_map)
    for same in (
        tensor,
        tensor.clone().requires_grad_(),
        tensor.double(),
        tensor.half(),
        tensor.bfloat16(),
        spatial_map.astype(np.float16),
        spatial_map.tolist(),
        spatial_map.T.copy().T,
        np.repeat(spatial_map, 2, axis=1)[:, ::2],
    ):
        assert map_to_box(same, 0.8, (28, 30)).tolist() == expected
    mask = rng.random((9, 12)) < 0.3
    assert largest_component_box(mask.T).tolist() == literal_component_box(mask.T.tolist())
    assert largest_component_box(mask * 0.25).tolist() == literal_component_box(mask.tolist())


def test_inputs_are_left_as_they_were():
    """Protects the caller's arrays: no function writes into its argument."""
    spatial_map = np.random.default_rng(8).random((14, 14)).astype(np.float32)
    before = spatial_map.copy()
    map_to_box(spatial_map, 0.3, 14)
    mask = spatial_map > 0.5
    largest_component_box(mask)
    assert (spatial_map == before).all() and (mask == (before > 0.5)).all()


@pytest.mark.parametrize("threshold", [-0.01, 1.01, math.nan, math.inf])
def test_threshold_out_of_range_is_refused(threshold):
    """Protects against thresholds meant for another range (0 to 255, percent), which would empty every mask."""
    with pytest.raises(ValueError, match="threshold"):
        map_to_box(np.eye(4), threshold, 8)


def test_axes_of_length_one_do_not_matter():
    """A picture's map as the model returns it, (1, h, w), gives the box of its (h, w)."""
    spatial_map = np.eye(7) + np.eye(7, k=1)
    expected = map_to_box(spatial_map, 0.3, 28)
    for leading in ((1,), (1, 1)):
        np.testing.assert_array_equal(map_to_box(spatial_map.reshape(*leading, 7, 7), 0.3, 28), expected)


def test_wrong_shapes_are_refused():
    """Protects against several maps at once, empty maps and sizes that are not positive."""
    for bad in (np.zeros((2, 28, 28)), np.zeros(28), np.zeros((0, 28))):
        for function in (normalize_map, lambda m: map_to_box(m, 0.5, 8), lambda m: upsample_map(m, 8)):
            with pytest.raises(ValueError, match="map"):
                function(bad)
    with pytest.raises(ValueError, match="mask"):
        largest_component_box(np.zeros((2, 2, 1)))
    for size in (0, (8, 0), (-1, 8)):
        with pytest.raises(ValueError, match="size"):
            upsample_map(np.eye(4), size)
