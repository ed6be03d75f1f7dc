"""Scores against literal loops over images and classes, and against figures worked out by hand."""

import numpy as np
import pytest
import torch

from utils.localization.boxes import best_ious
from utils.metrics import METRICS, LocalizationScores


def literal_summary(images, num_classes):
    """The five scores from (label, top5, IoU) per image, with None for an image that gave no prediction."""
    hits = {metric: {c: [] for c in range(num_classes)} for metric in METRICS}
    for label, top5, image_iou in images:
        missed = top5 is None
        known = not missed and image_iou > 0.5
        top1 = not missed and top5[0] == label
        among5 = not missed and label in list(top5)[:5]
        hits["gt_known_loc"][label].append(known)
        hits["top1_cls"][label].append(top1)
        hits["top5_cls"][label].append(among5)
        hits["top1_loc"][label].append(known and top1)
        hits["top5_loc"][label].append(known and among5)
    summary = {}
    for metric, by_class in hits.items():
        accuracies = [sum(of_class) / len(of_class) for of_class in by_class.values() if of_class]
        right, total = sum(map(sum, by_class.values())), sum(map(len, by_class.values()))
        summary[metric] = {"class_mean": 100 * sum(accuracies) / len(accuracies), "image_mean": 100 * right / total}
    summary["images"] = summary["boxed"] = len(images)
    summary["missed"] = sum(top5 is None for _, top5, _ in images)
    return summary


def assert_same_summary(summary, expected):
    assert summary.keys() == expected.keys()
    for count in ("images", "boxed", "missed"):
        assert summary[count] == expected[count]
    for metric in METRICS:
        assert summary[metric] == pytest.approx(expected[metric], abs=1e-9), metric


def random_predictions(rng, n, num_classes):
    """Uneven classes (one without images), labels often but not always among the top 5, IoUs often exactly 0.5."""
    shares = rng.dirichlet(np.ones(num_classes - 1))
    labels = rng.choice(num_classes - 1, n, p=shares)
    top5 = np.stack([rng.permutation(num_classes)[:5] for _ in range(n)])
    for label, row in zip(labels, top5, strict=True):
        if label not in row and rng.random() < 0.6:
            row[rng.integers(len(row))] = label
    ious = rng.choice([0, 0.25, 0.5, np.nextafter(0.5, 1), 0.75, 1], n)
    return labels, top5, ious


@pytest.mark.parametrize(("n", "num_classes"), [(1, 3), (400, 12), (1500, 200), (60, 4)])
def test_scores_match_literal_loops(n, num_classes):
    """Protects all five figures, class mean and image mean: uneven and empty classes, batches, missed images, K < 5."""
    rng = np.random.default_rng(n)
    labels, top5, ious = random_predictions(rng, n, num_classes)
    missed = rng.random(n) < 0.1
    scores = LocalizationScores(num_classes)
    for batch in np.array_split(np.arange(n), max(1, n // 32)):
        seen = batch[~missed[batch]]
        scores.update(torch.from_numpy(labels[seen]), torch.from_numpy(top5[seen]), ious[seen])
        scores.update_missed(labels[batch[missed[batch]]])
    images = [
        (label, None if gone else row, image_iou)
        for label, row, image_iou, gone in zip(labels.tolist(), top5.tolist(), ious.tolist(), missed, strict=True)
    ]
    assert_same_summary(scores.summary(), literal_summary(images, num_classes))


def test_the_random_predictions_tell_the_means_apart():
    """Protects the test above: on its data all five figures and both means differ, so a mix-up would show."""
    labels, top5, ious = random_predictions(np.random.default_rng(400), 400, 12)
    expected = literal_summary(list(zip(labels.tolist(), top5.tolist(), ious.tolist(), strict=True)), 12)
    figures = [round(value, 6) for metric in METRICS for value in expected[metric].values()]
    assert len(set(figures)) == 10


def test_scores_by_hand():
    """Protects the definitions: three images of class 0, one of class 1, each right in another way."""
    scores = LocalizationScores(num_classes=6)
    scores.update([0, 0, 0, 1], [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]], [1, 1, 1, 0.5])
    summary = scores.summary()
    third = 100 / 3
    expected = {
        "top1_loc": (third / 2, 25),
        "top5_loc": (third, 50),
        "gt_known_loc": (50, 75),
        "top1_cls": ((third + 100) / 2, 50),
        "top5_cls": ((2 * third + 100) / 2, 75),
    }
    for metric, (class_mean, image_mean) in expected.items():
        assert summary[metric] == pytest.approx({"class_mean": class_mean, "image_mean": image_mean})
    assert (summary["images"], summary["missed"]) == (4, 0)


def test_boxes_to_scores_by_counting_pixels():
    """Protects boxes and scores together: IoU as a count of shared pixels, many of exactly one half, several boxes."""
    rng = np.random.default_rng(10)
    scores, images, exactly_half = LocalizationScores(5), [], 0

    def pixels(box):
        return {(x, y) for x in range(box[0], box[2] + 1) for y in range(box[1], box[3] + 1)}

    for _ in range(600):
        boxes = np.sort(rng.integers(0, 4, (rng.integers(2, 5), 2, 2)), axis=1).reshape(-1, 4)
        pred, *true = (pixels(box) for box in boxes.tolist())
        # Whole numbers decide: more than half means twice the shared pixels exceed all pixels.
        known = any(2 * len(pred & one) > len(pred | one) for one in true)
        exactly_half += not known and any(2 * len(pred & one) == len(pred | one) for one in true)
        label, top5 = int(rng.integers(0, 5)), rng.permutation(5)
        scores.update([label], [top5], best_ious(boxes[:1], boxes[1:]))
        images.append((label, top5.tolist(), 1.0 if known else 0.0))
    assert exactly_half > 20
    assert_same_summary(scores.summary(), literal_summary(images, 5))


def test_best_iou_takes_the_nearest_true_box():
    """Protects images with several true boxes, boxes outside the crop among them, and a lone box."""
    true_boxes = [[230, 10, 224, 40], [3, 1, 4, 5], [100, 100, 120, 120]]
    assert best_ious([[1, 2, 5, 6]], true_boxes) == pytest.approx(8 / 27)
    assert best_ious([[1, 2, 5, 6]], [3, 1, 4, 5]) == pytest.approx(8 / 27)
    assert best_ious([[1, 2, 5, 6]], true_boxes[:1]) == 0
    with pytest.raises(ValueError, match="true box"):
        best_ious([[0, 0, 1, 1]], np.empty((0, 4)))


def test_iou_threshold_is_an_argument_and_strict():
    """Protects scores at other thresholds: an IoU equal to the threshold is wrong."""
    scores = LocalizationScores(2, iou_threshold=0.7)
    scores.update([0, 0, 1, 1], [[0, 1]] * 4, [0.7, 0.71, 0.6, 0.9])
    assert scores.summary()["gt_known_loc"] == {"class_mean": 50, "image_mean": 50}


def test_iou_comparison_can_let_an_equal_iou_count():
    """Protects the other protocols: not strict, an IoU of exactly 0.5 is right, one float below is not, in Loc too."""
    strict, not_strict = LocalizationScores(2), LocalizationScores(2, strict=False)
    for scores in (strict, not_strict):
        scores.update([0] * 4, [[0, 1]] * 4, [np.nextafter(0.5, 0), 0.5, 0.5, np.nextafter(0.5, 1)])
    for metric in ("gt_known_loc", "top1_loc", "top5_loc"):
        assert strict.summary()[metric]["image_mean"] == 25
        assert not_strict.summary()[metric]["image_mean"] == 75
    assert strict.summary()["top1_cls"] == not_strict.summary()["top1_cls"]


@pytest.mark.parametrize(
    ("labels", "top5", "ious", "named"),
    [
        ([0, 6], np.zeros((2, 5), int), [0, 0], "between 0 and 5"),
        ([-1, 0], np.zeros((2, 5), int), [0, 0], "between 0 and 5"),
        ([0.0, 1.0], np.zeros((2, 5), int), [0, 0], "integers"),
        ([0, 1], np.zeros((2, 6), int), [0, 0], "top5"),
        ([0, 1], np.zeros((2, 1), int), [0, 0], "top5"),
        ([0, 1], np.zeros((1, 5), int), [0, 0], "top5"),
        ([0, 1], np.zeros((2, 5), int), [0], "best_iou"),
        ([0, 1], np.zeros((2, 5), int), [0, np.nan], "NaN"),
    ],
)
def test_predictions_that_do_not_fit_are_refused_whole(labels, top5, ious, named):
    """Protects the counts: wrong shapes, labels or NaN raise, and nothing of the batch is counted."""
    scores = LocalizationScores(6)
    with pytest.raises(ValueError, match=named):
        scores.update(labels, top5, ious)
    assert scores.images.sum() == 0 and scores.correct.sum() == 0
    if named in ("between 0 and 5", "integers"):
        with pytest.raises(ValueError, match=named):
            scores.update_missed(labels)
        assert scores.images.sum() == 0


def test_no_images_give_no_score():
    """Protects against a score of an empty test set; empty batches are fine."""
    scores = LocalizationScores(6)
    scores.update([], np.empty((0, 5)), [])
    scores.update_missed([])
    with pytest.raises(ValueError, match="without images"):
        scores.summary()
    scores.update_missed([5])
    assert scores.summary() == {metric: {"class_mean": 0, "image_mean": 0} for metric in METRICS} | {
        "images": 1,
        "boxed": 1,
        "missed": 1,
    }


def test_images_without_true_boxes_count_in_the_classification_alone():
    """Protects data sets with boxes for some images: Loc is a share of the boxed ones, None where there are none."""
    rng = np.random.default_rng(12)
    labels, top5, ious = random_predictions(rng, 300, 9)
    boxed, missed = rng.random(300) < 0.6, rng.random(300) < 0.1
    some, with_boxes, whole = LocalizationScores(9), LocalizationScores(9), LocalizationScores(9)
    for scores, rows in ((some, boxed & ~missed), (with_boxes, boxed & ~missed), (whole, ~missed)):
        scores.update(labels[rows], top5[rows], ious[rows])
    some.update_unboxed(labels[~boxed & ~missed], top5[~boxed & ~missed])
    some.update_missed(labels[boxed & missed])
    some.update_missed(labels[~boxed & missed], boxed=False)
    with_boxes.update_missed(labels[boxed & missed])
    whole.update_missed(labels[missed])
    summary = some.summary()
    assert (summary["images"], summary["boxed"], summary["missed"]) == (300, boxed.sum(), missed.sum())
    for metric in METRICS:
        expected = whole if metric.endswith("cls") else with_boxes
        assert summary[metric] == expected.summary()[metric]
    alone = LocalizationScores(9)
    alone.update_unboxed([0, 1], top5[:2])
    assert alone.summary()["gt_known_loc"] == {"class_mean": None, "image_mean": None}
    with pytest.raises(ValueError, match="top5"):
        alone.update_unboxed([0], top5[:2])
