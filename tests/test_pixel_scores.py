"""PxAP and peak pixel IoU against wsolevaluation's formula and against pixels counted one by one."""

import json

import numpy as np
import pytest

from utils.metrics import PixelScores
from utils.metrics.pixels import pixel_iou


def wsolevaluation_px_ap(images, step):
    """Its evaluator with np.histogram: (values, mask) of each image -> PxAP in percent."""
    edges = np.append(np.arange(0, 1, step), [1.0, 2.0, 3.0])
    true_hist, false_hist = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for values, mask in images:
        true_hist += np.histogram(values[mask == 1], bins=edges)[0]
        false_hist += np.histogram(values[mask == 0], bins=edges)[0]
    tp, fp = true_hist[::-1].cumsum(), false_hist[::-1].cumsum()
    auc = 0.0
    for i in range(1, len(tp)):
        if tp[i] + fp[i] != 0:
            auc += tp[i] / (tp[i] + fp[i]) * (tp[i] - tp[i - 1]) / true_hist.sum()
    return 100 * auc


def literal_peak_iou(images, step):
    """The best IoU over thresholds, all pixels of all images counted together."""
    best, at = -1.0, None
    for threshold in [*np.arange(0, 1, step).tolist(), 1.0]:
        intersection = union = 0
        for values, mask in images:
            positive, true = (values.astype(np.float64) >= threshold) & (mask != 255), mask == 1
            intersection += (positive & true).sum()
            union += (positive | true).sum()
        if intersection / union > best:
            best, at = intersection / union, threshold
    return 100 * best, at


def random_image(rng, edges):
    """Noise, values exactly on edges and one float beside them; masks with ignored pixels."""
    shape = tuple(rng.integers(1, 40, 2))
    on_edges = rng.choice(edges, shape)
    beside = np.clip(np.nextafter(on_edges.astype(np.float32), np.float32(rng.choice([-1, 2]))), 0, 1)
    values = np.choose(rng.integers(0, 3, shape), [rng.random(shape), on_edges, beside])
    values = values.astype(rng.choice([np.float32, np.float64]))
    mask = rng.choice(np.array([0, 1, 255], np.uint8), shape, p=[0.5, 0.4, 0.1])
    mask.flat[0] = 1
    return values, mask


@pytest.mark.parametrize("step", [0.001, 0.01, 0.25, 1])
def test_scores_match_wsolevaluation(step):
    """Protects PxAP and peak IoU over several images, values on the edges of the bins, and ignored pixels."""
    rng = np.random.default_rng(round(step * 1000))
    edges = np.append(np.arange(0, 1, step), 1.0)
    for _ in range(100 if step > 0.001 else 20):
        images = [random_image(rng, edges) for _ in range(3)]
        scores = PixelScores(step)
        for values, mask in images:
            scores.update(values, mask)
        summary = scores.summary()
        assert summary["px_ap"] == pytest.approx(wsolevaluation_px_ap(images, step), abs=1e-9)
        peak, threshold = literal_peak_iou(images, step)
        assert summary["peak_iou"] == pytest.approx(peak, abs=1e-9)
        assert summary["peak_iou_threshold"] == threshold
        assert summary["images"] == 3


@pytest.mark.parametrize("step", [0.001, 0.01, 0.1, 1 / 3, 1 / 49, 0.0001])
def test_bins_match_a_search_among_the_edges(step):
    """Protects the fast binning, to the last float on and beside every edge, in float32 and float64."""
    edges = step * np.arange(round(1 / step))
    for kind in (np.float32, np.float64):
        on_edges = np.append(edges, 1.0).astype(kind)
        values = np.concatenate([np.nextafter(on_edges, kind(side)) for side in (-1, 2)] + [on_edges])
        values = values.clip(0, 1 + 1e-6)[None].astype(kind)
        scores = PixelScores(step)
        scores.update(values, np.ones(values.shape, bool))
        assert scores.foreground.tolist() == np.histogram(values, np.append(edges, [1.0, 2, 3]))[0].tolist()
        assert scores.background.sum() == 0


def test_fixed_points_of_the_field():
    """Protects the scale: a constant map scores the share of foreground, a perfect one 100, its inverse the least."""
    rng = np.random.default_rng(5)
    mask = (rng.random((30, 20)) < 0.3).astype(np.uint8)
    share = 100 * mask.mean()
    for constant in (0, 0.4, 1):
        scores = PixelScores()
        scores.update(np.full(mask.shape, constant, np.float32), mask)
        summary = scores.summary()
        assert summary["px_ap"] == pytest.approx(share)
        assert (summary["peak_iou"], summary["peak_iou_threshold"]) == (pytest.approx(share), 0)
    perfect, inverse = PixelScores(), PixelScores()
    perfect.update(mask.astype(np.float32), mask)
    inverse.update(1 - mask.astype(np.float32), mask)
    assert perfect.summary() == {"px_ap": 100, "peak_iou": 100, "peak_iou_threshold": 0.001, "images": 1}
    assert inverse.summary()["px_ap"] == pytest.approx(share)
    assert json.loads(json.dumps(inverse.summary())) == inverse.summary()


def test_scores_by_hand():
    """Protects the sum under the curve and the curves themselves on five pixels, one of them ignored."""
    scores = PixelScores(0.5)
    scores.update(np.array([[1, 0.6, 0.5, 0.2, 1]]), np.array([[1, 0, 1, 1, 255]], np.uint8))
    third = 100 / 3
    curves = scores.curves()
    assert curves["threshold"].tolist() == [0, 0.5, 1, 2]
    assert curves["precision"] == pytest.approx([75, 2 * third, 100, 0])
    assert curves["recall"] == pytest.approx([100, 2 * third, third, 0])
    assert curves["iou"] == pytest.approx([75, 50, third, 0])
    assert scores.summary()["px_ap"] == pytest.approx(third * (1 + 2 / 3 + 0.75))


def test_merge_adds_exactly_in_any_order():
    """Protects evaluations on several processes: parts give the whole's counts and figures."""
    rng = np.random.default_rng(6)
    images = [random_image(rng, np.arange(11) / 10) for _ in range(12)]
    whole, parts = PixelScores(), [PixelScores() for _ in range(3)]
    for index, (values, mask) in enumerate(images):
        whole.update(values, mask)
        parts[index % 3].update(values, mask)
    merged = PixelScores()
    for part in parts[::-1]:
        merged.merge(part)
    assert merged.summary() == whole.summary()
    assert (merged.foreground == whole.foreground).all() and (merged.background == whole.background).all()
    with pytest.raises(ValueError, match="cannot merge"):
        merged.merge(PixelScores(0.01))


def test_an_image_without_a_map_is_found_at_no_threshold():
    """Protects comparisons: maps of some of the pictures alone must not score as if there were no others."""
    rng = np.random.default_rng(6)
    values, mask = random_image(rng, np.arange(11) / 10)
    whole, some = PixelScores(), PixelScores()
    for scores in (whole, some):
        scores.update(values, mask)
    lost = PixelScores()
    lost.update_missed(mask)
    lost.update_missed(np.full((3, 3), 255, np.uint8))  # a picture without a mask
    whole.merge(lost)
    assert (whole.images, some.images) == (2, 1)
    found, alone = whole.curves(), some.curves()
    assert found["precision"] == pytest.approx(alone["precision"])
    assert found["recall"] == pytest.approx(alone["recall"] / 2)
    assert found["iou"][0] == pytest.approx(100 * (mask == 1).sum() / ((mask != 255).sum() + (mask == 1).sum()))
    assert whole.summary()["px_ap"] == pytest.approx(some.summary()["px_ap"] / 2)


def test_input_that_does_not_fit_is_refused_whole():
    """Protects the counts: bad maps and masks raise and leave nothing behind; no object, no score; odd steps."""
    scores = PixelScores()
    values, mask = np.full((4, 5), 0.5, np.float32), np.eye(4, 5, dtype=np.uint8)
    for bad in (values * np.nan, values * 3, -values, values[0], np.where(mask, np.nan, values)):
        with pytest.raises(ValueError, match="map must"):
            scores.update(bad, mask)
    for bad in (mask.T, mask.astype(float), mask * 2, mask * 254, mask[None]):
        with pytest.raises(ValueError, match="mask must"):
            scores.update(values, bad)
    assert scores.images == 0 and scores.foreground.sum() + scores.background.sum() == 0
    scores.update(values, 0 * mask)
    scores.update(values, 0 * mask + 255)
    assert scores.images == 2 and scores.background.sum() == 20
    with pytest.raises(ValueError, match="without foreground pixels"):
        scores.summary()
    for step in (0, -0.1, 0.3, 2, np.nan):
        with pytest.raises(ValueError, match="step"):
            PixelScores(step)


def test_one_picture_has_the_figure_of_its_set():
    """Protects levels that lie on a threshold, as of 8-bit maps: the picture's IoU is that of a set of this picture."""
    rng = np.random.default_rng(0)
    for kind in (np.float32, np.float64):
        values = (rng.integers(0, 11, (20, 20)) / 10).astype(kind)
        mask = rng.integers(0, 2, (20, 20)).astype(np.uint8)
        scores = PixelScores()
        scores.update(values, mask)
        for threshold in (0.0, 0.1, 0.3, 0.6, 0.7, 1.0):
            assert 100 * pixel_iou(values, threshold, mask) == pytest.approx(scores.iou_at(threshold), abs=1e-9)
