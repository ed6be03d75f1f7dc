"""MaxBoxAcc and MaxBoxAccV2 against loops in wsolevaluation's way, and the distribution of IoUs."""

import json

import numpy as np
import pytest

from utils.localization.boxes import best_ious
from utils.localization.sweep import best_contour_ious, contour_boxes
from utils.metrics import MaxBoxAcc, iou_distribution

THRESHOLDS = np.arange(50) / 50
FIELDS = ("images", "missed", "correct_largest", "correct_any")


def random_ious(rng, n, num_thresholds=50):
    """IoUs that often equal one of the thresholds; any contour is at least as good as the largest."""
    largest = rng.choice([0, 0.1, 0.3, 0.5, np.nextafter(0.5, 0), 0.6, 0.7, 1], (n, num_thresholds))
    return largest, np.maximum(largest, rng.choice([0, 0.3, np.nextafter(0.7, 0), 0.7], largest.shape))


def literal_scores(largest, best, missed):
    """MaxBoxAcc, and MaxBoxAccV2 with its three parts, counted image by image."""
    images = len(largest) + missed

    def max_accuracy(ious, reached):
        curve = [100 * sum(row[t] >= reached for row in ious.tolist()) / images for t in range(ious.shape[1])]
        return max(curve), THRESHOLDS[curve.index(max(curve))]

    return max_accuracy(largest, 0.5), [max_accuracy(best, reached) for reached in (0.3, 0.5, 0.7)]


def test_scores_match_literal_loops():
    """Protects both scores and their thresholds: >=, each IoU at its own best threshold, missed images as wrong."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        missed = int(rng.integers(0, 3))
        largest, best = random_ious(rng, int(rng.integers(1, 40)))
        scores = MaxBoxAcc(THRESHOLDS)
        for rows in np.array_split(np.arange(len(largest)), 3):
            scores.update(largest[rows], best[rows])
        scores.update_missed(missed)
        (value, threshold), parts = literal_scores(largest, best, missed)
        summary = scores.summary()
        assert summary["max_box_acc"] == {"value": pytest.approx(value), "threshold": threshold}
        at_iou = summary["max_box_acc_v2"]["at_iou"]
        assert [one["iou"] for one in at_iou] == [0.3, 0.5, 0.7]
        assert [(one["value"], one["threshold"]) for one in at_iou] == [
            (pytest.approx(value), threshold) for value, threshold in parts
        ]
        assert summary["max_box_acc_v2"]["value"] == pytest.approx(sum(value for value, _ in parts) / 3)
        assert (summary["images"], summary["missed"]) == (len(largest) + missed, missed)


def test_scores_by_hand():
    """Protects the definitions on two images and three thresholds that a reader can check."""
    scores = MaxBoxAcc([0.1, 0.2, 0.3])
    scores.update([[0.4, 0.5, 0.2], [0.1, 0.5, 0.9]], [[0.4, 0.5, 0.7], [0.3, 0.5, 0.9]])
    assert scores.summary() == {
        "max_box_acc": {"value": 100, "threshold": 0.2},
        "max_box_acc_v2": {
            "value": 100,
            "at_iou": [
                {"iou": 0.3, "value": 100, "threshold": 0.1},
                {"iou": 0.5, "value": 100, "threshold": 0.2},
                {"iou": 0.7, "value": 100, "threshold": 0.3},
            ],
        },
        "images": 2,
        "missed": 0,
    }
    scores.update_missed(2)
    curves = scores.curves()
    assert curves["threshold"].tolist() == [0.1, 0.2, 0.3]
    assert curves["largest"].tolist() == [0, 50, 25]
    assert curves["any"].tolist() == [[50, 50, 50], [0, 50, 50], [0, 0, 50]]
    assert json.loads(json.dumps(scores.summary())) == scores.summary()


def test_from_map_to_score():
    """Protects the way from map to figure: the small blob is the object, so only another contour finds it."""
    values = np.zeros((60, 60), np.float32)
    values[5:35, 5:35] = 0.8
    values[40:50, 40:50] = 1
    contours = contour_boxes(values, [0, 0.9])
    largest, best = best_contour_ious(contours, [40, 40, 50, 50])
    assert (largest.tolist(), best.tolist()) == ([0, 1], [1, 1])
    scores = MaxBoxAcc([0, 0.9])
    scores.update(largest[None], best[None])
    summary = scores.summary()
    assert summary["max_box_acc"] == {"value": 100, "threshold": 0.9}
    assert [one["threshold"] for one in summary["max_box_acc_v2"]["at_iou"]] == [0, 0, 0]


def test_merge_adds_exactly_in_any_order():
    """Protects evaluations on several processes: parts give the whole's counts and figures, and stay as they were."""
    rng = np.random.default_rng(1)
    largest, best = random_ious(rng, 101)
    whole = MaxBoxAcc(THRESHOLDS)
    whole.update(largest, best)
    whole.update_missed(3)
    parts = [MaxBoxAcc(THRESHOLDS) for _ in range(3)]
    for part, rows in zip(parts, np.array_split(rng.permutation(101), 3), strict=True):
        part.update(largest[rows], best[rows])
        part.update_missed(1)
    merged = MaxBoxAcc(THRESHOLDS)
    for part in parts[::-1]:
        before = part.summary()
        merged.merge(part)
        assert part.summary() == before
    assert merged.summary() == whole.summary()
    for name in FIELDS:
        assert np.array_equal(getattr(merged, name), getattr(whole, name)), name
    for other in (MaxBoxAcc(THRESHOLDS[:-1]), MaxBoxAcc(THRESHOLDS / 2), MaxBoxAcc(THRESHOLDS, (0.5,))):
        with pytest.raises(ValueError, match="cannot merge"):
            merged.merge(other)


@pytest.mark.parametrize(
    ("largest", "best", "named"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), "largest_ious"),
        (np.zeros(2), np.zeros((1, 2)), "largest_ious"),
        (np.zeros((2, 2)), np.zeros((1, 2)), "best_ious"),
        ([[0, np.nan]], [[0, 0]], "NaN"),
        ([[0, 0.5]], [[0, np.nan]], "NaN"),
        ([[0, 50]], [[0, 1]], "between 0 and 1"),
    ],
)
def test_ious_that_do_not_fit_are_refused_whole(largest, best, named):
    """Protects the counts: nothing of a bad batch is counted, and no score comes from nothing."""
    scores = MaxBoxAcc([0, 0.5])
    with pytest.raises(ValueError, match=named):
        scores.update(largest, best)
    with pytest.raises(ValueError, match="negative"):
        scores.update_missed(-1)
    assert scores.images == 0 and scores.correct_largest.sum() == scores.correct_any.sum() == 0
    scores.update(np.empty((0, 2)), np.empty((0, 2)))
    with pytest.raises(ValueError, match="without images"):
        scores.summary()
    for thresholds, iou_thresholds in (([], [0.5]), ([0.5], []), ([50], [0.5]), ([0.5], [50]), ([np.nan], [0.5])):
        with pytest.raises(ValueError, match="thresholds must"):
            MaxBoxAcc(thresholds, iou_thresholds)


def test_distribution_matches_loops():
    """Protects the distribution: half-open bins of 0.05, 1 in the last, a mean that no order changes."""
    rng = np.random.default_rng(2)
    ious = np.concatenate([rng.random(300), np.arange(21) / 20, np.nextafter(np.arange(1, 21) / 20, 0)])
    expected = [sum(k / 20 <= value < (k + 1) / 20 or k == 19 and value == 1 for value in ious) for k in range(20)]
    summary = iou_distribution(ious)
    assert summary["counts"] == expected and summary["images"] == len(ious) == sum(expected)
    assert summary["mean"] == pytest.approx(ious.mean(), abs=1e-12)
    assert summary["edges"] == [k / 20 for k in range(21)]
    assert iou_distribution(rng.permutation(ious)) == summary
    assert json.loads(json.dumps(summary)) == summary
    for bad in ([0.5, np.nan], [1.5], [-0.1], [[0.5]], 0.5):
        with pytest.raises(ValueError, match="ious"):
            iou_distribution(bad)
    with pytest.raises(ValueError, match="without images"):
        iou_distribution([])


def test_best_ious_take_the_nearest_true_box_of_each():
    """Protects sweeps of boxes: one IoU for each box, the field's fixed points among them."""
    true_boxes = [[3, 1, 4, 5], [0, 0, 0, 0], [230, 10, 224, 40]]
    assert best_ious([[1, 2, 5, 6], [0, 0, 0, 0], [50, 50, 60, 60]], true_boxes).tolist() == [8 / 27, 1, 0]
    assert best_ious(np.empty((0, 4)), true_boxes).shape == (0,)
    for pred, true in (([1, 2, 5, 6], true_boxes), ([[1, 2, 5, 6]], np.empty((0, 4)))):
        with pytest.raises(ValueError, match="true box"):
            best_ious(pred, true)
