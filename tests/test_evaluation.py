"""One pass over a split against picture-by-picture evaluations that share nothing but the model."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import CUB.Model
from tests.test_amc import TinyBAS
from utils.data.images import read_image
from utils.data.masks import MaskFiles
from utils.data.split import Split
from utils.data.transforms import centre_crop, evaluation_transform, ten_crop
from utils.evaluation.kinds import KINDS, MapKind
from utils.evaluation.maps import centred_gaussian, grad_cam, make_maps
from utils.evaluation.protocols import PROTOCOLS
from utils.evaluation.records import Evaluation, MapResult
from utils.evaluation.run import _Output, build_loader, evaluate
from utils.evaluation.scoring import Scorers
from utils.evaluation.selection import choose_thresholds, with_thresholds
from utils.evaluation.spec import EvaluationSpec, build_spec, threshold_grid
from utils.evaluation.summary import cautions, curves, summarize_map, sweep
from utils.localization.boxes import iou, scale_boxes_to_crop
from utils.localization.maps import map_to_box
from utils.metrics import DeadMaps, MaxBoxAcc, PixelScores
from utils.models.pooling import area_weights, block_weights
from utils.models.taps import Placement
from utils.results.tables import caution_lines
from utils.system.errors import UserError
from utils.system.options import settle

CPU = torch.device("cpu")
RECIPE = settle(CUB.Model.recipe("vgg"), {"resize_size": 40, "crop_size": 32, "top_k": 2, "threshold": 0.4})
BAS = MapKind("bas", 2)


def save_picture(path: Path, seed: int, size: tuple[int, int]) -> None:
    pixels = np.random.RandomState(seed).randint(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.BICUBIC).save(path)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Eleven pictures of five classes with one or two boxes; every second one with a mask of its first box."""
    rng = np.random.default_rng(3)
    ids, boxes, masks = [], {}, {}
    for index in range(11):
        size = (60 + 7 * index, 90 - 4 * index)
        ids.append(f"{index}.png")
        save_picture(tmp_path / ids[-1], index, size)
        corners = np.sort(rng.uniform(0, 1, (1 + index % 2, 2, 2)), axis=1) * size
        boxes[ids[-1]] = corners.reshape(-1, 4)
        if index % 2:
            mask = np.zeros(size[::-1], np.uint8)
            left, top, right, bottom = boxes[ids[-1]][0].astype(int)
            mask[top : bottom + 1, left : right + 1] = 255
            Image.fromarray(mask).save(tmp_path / f"mask_{index}.png")
            masks[ids[-1]] = MaskFiles((tmp_path / f"mask_{index}.png",))
    return Split(
        name="test",
        layout="made by a test",
        ids=tuple(ids),
        paths=tuple(tmp_path / name for name in ids),
        labels=rng.integers(0, 5, 11),
        boxes=boxes,
        class_names=tuple("abcde"),
        masks=masks,
    )


@pytest.fixture(scope="module")
def model() -> TinyBAS:
    torch.manual_seed(5)
    return TinyBAS(final_relu=False).eval()


def ask(kinds: Sequence[str] = ("bas",), **more) -> EvaluationSpec:
    return build_spec(RECIPE, kinds=kinds, **more)


def run(model: TinyBAS, split: Split, spec: EvaluationSpec, batch_size: int = 4, **more) -> Evaluation:
    return evaluate(model, build_loader(split, spec, batch_size, 0, CPU), split, spec, CPU, **more)


def test_pass_equals_pictures_one_by_one(model: TinyBAS, split: Split) -> None:
    """Protects the default evaluation: ten-crop classes, the fused map's box and its best IoU, picture by picture."""
    evaluation = run(model, split, ask())
    for index, path in enumerate(split.paths):
        picture = read_image(path)
        image = evaluation_transform(40)(picture).unsqueeze(0)
        crops = ten_crop(image, 32)[0]
        with torch.no_grad():
            probabilities = model.classify(crops).softmax(1).mean(0)
            _, foreground_map = model.localize(centre_crop(image, 32), top_k=2)
        box = map_to_box(foreground_map, 0.4, 32)
        truth = scale_boxes_to_crop(split.boxes[split.ids[index]], picture.size, 40, 32)
        assert evaluation.top5[index].tolist() == probabilities.argsort(descending=True).tolist()
        np.testing.assert_allclose(evaluation.probabilities[index], np.sort(probabilities)[::-1], rtol=1e-5)
        assert evaluation.maps[BAS].boxes[index].tolist() == box.tolist()
        assert evaluation.maps[BAS].ious[index].tolist() == [iou(box, truth).max()]
        assert evaluation.sizes[index].tolist() == list(picture.size)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_many_questions_in_one_pass_equal_one_at_a_time(model: TinyBAS, split: Split, protocol) -> None:
    """Protects --compare and --sweep: every map, threshold and k gives what a pass of its own gives."""
    grid, kinds = threshold_grid(0.1), KINDS
    whole = ask(kinds, protocol=protocol, top_k=2, grid=grid, contour_grid=threshold_grid(0.05), with_masks=True)
    whole = replace(whole, swept={MapKind("bas", k): 0.4 for k in (1, 3, 5)}, swept_grid=(0.0, 0.9))
    together = run(model, split, whole)
    for kind in together.maps:
        for threshold in (0.0, 0.4, 0.9):
            alone = replace(whole, grid=(), contour_grid=(), with_masks=False, swept={}, thresholds={kind: threshold})
            expected = run(model, split, alone, batch_size=3)
            assert together.scores(kind, threshold).summary() == expected.scores().summary(), (kind, threshold)
        if kind in whole.thresholds:
            alone = replace(whole, grid=(), swept={}, thresholds={kind: whole.thresholds[kind]})
            one, other = summarize_map(together, kind), summarize_map(run(model, split, alone), kind)
            # Maps of float32 that were summed in another order may fall into the bin beside.
            assert one.pop("pixels") == pytest.approx(other.pop("pixels"), abs=1e-3)
            assert one == other


def test_what_may_mislead(model: TinyBAS, split: Split) -> None:
    """Protects the words beside the scores: dead maps of the label's own class whatever k, and whole-crop boxes."""
    split = replace(split, labels=np.arange(11) % 5)
    for bias, empty, full in ((0.0, (), ()), (-30.0, (1,), ()), (30.0, (), (1,))):
        broken = copy.deepcopy(model)
        with torch.no_grad():
            broken.classifier_loc[0].bias[1] += bias  # of the class "b"
        for top_k in (1, 2, 5):
            spec = build_spec(replace(RECIPE, top_k=top_k), kinds=("bas", "cam"))
            evaluation = run(broken, split, spec)
            assert evaluation.dead_maps() == DeadMaps(5, empty, full), (bias, top_k)
        told = cautions(evaluation, split.class_names)
        assert told["dead_maps"] == evaluation.dead_maps().summary("abcde")
        assert told["whole_crop_boxes"].keys() == {kind.title for kind in evaluation.maps}
        assert told["absent_classes"] == []
    assert run(model, split, ask(("cam", "center"))).dead_maps() is None
    flat = copy.deepcopy(model)
    with torch.no_grad():
        flat.classifier_loc[0].weight.zero_()
    evaluation = run(flat, split, ask(("bas", "center")))
    counted = cautions(evaluation, split.class_names)
    for name in ("constant_maps", "whole_crop_boxes"):
        assert [one["count"] for one in counted[name].values()] == [11, 0], name
    lines = caution_lines(counted)
    assert lines[:2] == [
        f"{title}: {BAS.title} 11 (100.0 %)" for title in ("boxes that are the whole crop", "constant maps")
    ]
    whole = run(model, split, replace(ask(), thresholds={BAS: 0.0}))
    assert (whole.maps[BAS].boxes == [0, 0, 32, 32]).all(axis=1).sum() == whole.whole_crop_boxes(BAS) > 0
    assert run(model, split, replace(ask(), thresholds={BAS: 0.7})).whole_crop_boxes(BAS) == 0
    empty = run(model, split, replace(ask(), thresholds={BAS: 0.999}))  # an empty mask's box is the whole crop
    assert empty.whole_crop_boxes(BAS) == 11
    some = cautions(run(model, replace(split, labels=np.arange(11) % 3), ask()), "abcde")
    assert some["absent_classes"] == ["d", "e"]
    assert "classes without a picture, over which no mean is taken: 2, d, e" in caution_lines(some)


def test_figures_need_boxes_or_masks(model: TinyBAS, split: Split) -> None:
    """Protects data sets where some pictures lack boxes: their class counts, their missing boxes are no misses."""
    whole = run(model, split, ask(with_masks=True, contour_grid=(0.2, 0.5)))
    kept = {image_id: boxes for image_id, boxes in split.boxes.items() if image_id not in ("0.png", "4.png")}
    some = run(model, replace(split, boxes=kept), ask(with_masks=True, contour_grid=(0.2, 0.5)))
    boxed = np.array([image_id in kept for image_id in split.ids])
    assert some.boxed.tolist() == boxed.tolist()
    summary, ious = some.scores().summary(), whole.maps[BAS].ious[:, 0]
    assert summary["gt_known_loc"]["image_mean"] == pytest.approx(100 * (ious[boxed] > 0.5).mean())
    assert summary["top1_cls"] == whole.scores().summary()["top1_cls"]
    assert (summary["images"], summary["boxed"]) == (11, 9)
    assert summarize_map(some, BAS)["max_box_acc"]["images"] == summarize_map(some, BAS)["errors"]["images"] == 9
    assert summarize_map(some, BAS)["pixels"] == summarize_map(whole, BAS)["pixels"]
    none = run(model, replace(split, boxes={}, masks={}), ask(with_masks=True, contour_grid=(0.2, 0.5)))
    figures = summarize_map(none, BAS)
    assert [figures[name] for name in ("errors", "iou", "max_box_acc", "pixels")] == [None] * 4
    assert figures["scores"]["top1_cls"] == summary["top1_cls"]
    assert figures["scores"]["gt_known_loc"] == {"class_mean": None, "image_mean": None}


def test_broken_pictures_and_masks_are_counted_and_named(model: TinyBAS, split: Split) -> None:
    """Protects long evaluations: an unreadable picture is a miss, an unusable mask is left out, both are named."""
    split.paths[2].write_bytes(b"no picture")
    Image.new("L", (5, 9)).save(split.masks["3.png"].objects[0])
    seen = []
    spec = ask(with_masks=True, contour_grid=(0.2,))
    evaluation = run(model, split, spec, observe=lambda _, observation: seen.append(observation))
    assert np.flatnonzero(evaluation.failed).tolist() == [2]
    assert len(evaluation.failures) == 2
    assert "2.png" in evaluation.failures[0] and "mask_3.png" in evaluation.failures[1]
    summary = summarize_map(evaluation, BAS)
    assert summary["scores"]["missed"] == summary["errors"]["missed"]["count"] == summary["max_box_acc"]["missed"] == 1
    assert summary["pixels"]["images"] == 4
    assert [one.index for one in seen] == list(range(11))
    assert (
        [one.picture is None for one in seen] == [one.main_map is None for one in seen] == [i == 2 for i in range(11)]
    )
    assert "2.png" in seen[2].failure and "mask_3.png" in seen[3].failure


def test_outputs_that_are_not_finite_are_misses(model: TinyBAS, split: Split) -> None:
    """Protects the figures from NaN: one map of a batch is broken, the other pictures and kinds count."""

    class Broken(TinyBAS):
        def fuse_top_k(self, features, logits, top_k, labels=None):
            maps = super().fuse_top_k(features, logits, top_k, labels)
            maps[1, 0, 3, 3] = float("nan")
            return maps

    broken = Broken(final_relu=False)
    broken.load_state_dict(model.state_dict())
    evaluation, whole = run(broken, split, ask(), batch_size=11), run(model, split, ask())
    assert np.flatnonzero(evaluation.maps[BAS].missed).tolist() == [1] and not evaluation.failed.any()
    (failure,) = evaluation.failures
    assert "1.png" in failure and "the map of BAS, k = 2 is not finite" in failure
    assert evaluation.scores().summary()["missed"] == evaluation.breakdown(BAS)["missed"]["count"] == 1
    compared = run(broken, split, ask(("cam", "bas")), batch_size=11)
    expected = run(model, split, ask(("cam",)))
    assert compared.scores(MapKind("cam")).summary() == expected.scores().summary()
    keep = np.arange(11) != 1
    assert (evaluation.maps[BAS].ious[keep] == whole.maps[BAS].ious[keep]).all()


@pytest.mark.parametrize("protocol", [PROTOCOLS["authors"], PROTOCOLS["ijcv"]], ids=["class mean", "image mean"])
def test_thresholds_are_chosen_on_the_given_split(model: TinyBAS, split: Split, protocol) -> None:
    """Protects honest comparisons: the choice is the argmax of GT-known Loc, and boxes are required."""
    spec = ask(("bas", "cam"), protocol=protocol)
    chosen = choose_thresholds(model, split, spec, CPU, 4, 0)
    for kind, threshold in chosen.items():
        found = {}
        for candidate in threshold_grid():
            alone = replace(spec, ten_crops=False, thresholds={kind: candidate})
            found[candidate] = run(model, split, alone, 11).scores().summary()["gt_known_loc"][spec.protocol.mean]
        assert found[threshold] == max(found.values())
        assert all(found[lower] < found[threshold] for lower in found if lower < threshold)
    assert with_thresholds(spec, chosen).thresholds == chosen
    by_masks = choose_thresholds(model, replace(split, boxes={}), replace(spec, align="stretched"), CPU, 4, 0)
    of_masks = run(model, split, replace(spec, ten_crops=False, with_masks=True), 11)
    for kind, threshold in by_masks.items():
        curve = of_masks.maps[kind].pixels.curves()
        assert threshold == curve["threshold"][curve["iou"].argmax()]
    with pytest.raises(UserError, match="neither boxes nor masks to choose"):
        choose_thresholds(model, replace(split, boxes={}, masks={}), spec, CPU, 4, 0)


def test_sweep_and_curves_repeat_the_scores(model: TinyBAS, split: Split) -> None:
    """Protects what --sweep prints and draws: the values are the scores at those thresholds and k."""
    swept = {MapKind("bas", 1): 0.4, MapKind("bas", 5): 0.4}
    spec = replace(ask(grid=threshold_grid(0.1)), swept=swept, swept_grid=threshold_grid(0.1))
    evaluation = run(model, split, spec)
    rows = {row["map"]: row for row in sweep(evaluation)}
    assert list(rows) == ["BAS, k = 2", "BAS, k = 1", "BAS, k = 5"]
    for kind in evaluation.maps:
        row = rows[kind.title]
        every = {t: evaluation.scores(kind, t).summary()["gt_known_loc"]["class_mean"] for t in threshold_grid(0.1)}
        assert every[row["best_threshold"]] == max(every.values())
        assert row["best_scores"] == evaluation.scores(kind, row["best_threshold"]).summary()
    by_threshold, by_k = curves(evaluation)
    assert by_threshold["x"] == list(threshold_grid(0.1)) and by_threshold["mark"] == 0.4
    shown = by_threshold["series"]["GT-known Loc"]
    assert shown == [evaluation.scores(BAS, t).summary()["gt_known_loc"]["class_mean"] for t in by_threshold["x"]]
    assert (by_k["x"], by_k["mark"]) == ([1, 2, 5], 2)
    assert by_k["series"]["Top-1 Loc"] == [
        evaluation.scores(MapKind("bas", k)).summary()["top1_loc"]["class_mean"] for k in (1, 2, 5)
    ]


def test_parts_of_a_test_set_add_up(model: TinyBAS, split: Split) -> None:
    """Protects evaluations on several processes: merged parts give the whole's figures to the last bit."""
    spec = ask(with_masks=True, contour_grid=threshold_grid(0.1))
    whole = run(model, split, spec)
    parts = []
    for rows in (range(0, 3), range(7, 11), range(3, 7)):
        ids = [split.ids[i] for i in rows]
        part = replace(
            split, ids=tuple(ids), paths=tuple(split.paths[i] for i in rows), labels=split.labels[list(rows)]
        )
        parts.append(run(model, part, spec))
        if len(parts) > 1:
            parts[0].maps[BAS].max_box_acc.merge(parts[-1].maps[BAS].max_box_acc)
            parts[0].maps[BAS].pixels.merge(parts[-1].maps[BAS].pixels)
    assert parts[0].maps[BAS].max_box_acc.summary() == whole.maps[BAS].max_box_acc.summary()
    assert parts[0].maps[BAS].pixels.summary() == whole.maps[BAS].pixels.summary()


@pytest.mark.parametrize("place", [None, Placement((2.5, -1.0), 8)])
def test_scorers_change_nothing(
    model: TinyBAS, split: Split, monkeypatch: pytest.MonkeyPatch, place: Placement | None
) -> None:
    """Protects --scorers: every record, sentence and map, and the order of what is observed, are one process's."""
    split.paths[6].write_bytes(b"no picture")
    split.paths[3].with_name("mask_3.png").write_bytes(b"no mask")
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.classifier_loc[0].weight[2] = torch.nan  # the maps of one class, the logits of none
    grids = {"grid": threshold_grid(0.1), "contour_grid": threshold_grid(0.05), "swept_grid": (0.1, 0.5)}
    spec = ask(("bas", "cam", "center"), with_masks=True, swept={MapKind("bas", 1): 0.4}, **grids)
    monkeypatch.setattr(EvaluationSpec, "placement", lambda *_: place)
    passes = []
    for scorers in (0, 1, 2):
        seen: list = []

        def observe(_, observation, seen=seen):
            seen.append((observation.index, observation.main_map, observation.failure))

        evaluation = run(broken, split, spec, batch_size=2, observe=observe, scorers=scorers)
        passes.append((evaluation, seen))
    assert [index for index, *_ in passes[0][1]] == list(range(11))
    assert any(part.missed.any() for part in passes[0][0].maps.values()) and len(passes[0][0].failure_of) > 2
    for found in passes[1:]:
        assert_same(found, passes[0])


def assert_same(found: object, expected: object) -> None:
    """Equal to the last bit, whatever is nested in what."""
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected, strict=True)
    elif isinstance(expected, MaxBoxAcc | PixelScores | Evaluation | MapResult):
        assert_same(vars(found), vars(expected))
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        assert_same(list(found.values()), list(expected.values()))
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    else:
        assert found == expected


@pytest.mark.parametrize("dying", [0, 1])
@pytest.mark.parametrize("moment", ["before it has work", "after some"])
def test_a_scorer_that_dies_is_told(model: TinyBAS, split: Split, moment: str, dying: int) -> None:
    """Protects a whole night's evaluation: one sentence at once, whichever of two dies, and no process that is left."""
    cv2.GaussianBlur(np.zeros((512, 512)), (31, 31), 5)  # wakes OpenCV's threads, which a forked process would miss

    killed: list[int] = []
    others = set(multiprocessing.active_children())

    def kill(*_):
        if not killed:
            scorers = set(multiprocessing.active_children()) - others
            killed.append(sorted(process.pid for process in scorers)[dying])
            os.kill(killed[0], signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        if moment == "before it has work":
            begin = Scorers.__enter__
            patch.setattr(Scorers, "__enter__", lambda pool: kill() or begin(pool))
        with pytest.raises(UserError, match="a process that scores maps died.*--scorers"):
            run(model, split, ask(), batch_size=1, observe=kill, scorers=2)
    assert set(multiprocessing.active_children()) <= others


def test_seconds_are_each_batchs_own(model: TinyBAS, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the times in images.csv: a batch pays for itself, whenever it is launched, the observer for none."""
    clock = [0.0]
    launch, score = _Output.__init__, MapResult.add

    def slow_launch(self, model, batch, *rest):
        launch(self, model, batch, *rest)
        self.seconds = 1.0

    def slow_score(self, *arguments):
        score(self, *arguments)
        clock[0] += 0.5

    def observe(_, observation):
        seen.append(observation.seconds)
        clock[0] += 100

    monkeypatch.setattr(_Output, "__init__", slow_launch)
    monkeypatch.setattr(MapResult, "add", slow_score)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    seen: list[float] = []
    run(model, split, ask(), batch_size=4, observe=observe)
    assert seen == [(1 + 4 * 0.5) / 4] * 8 + [(1 + 3 * 0.5) / 3] * 3


# --- maps


def test_grad_cam_is_its_formula(model: TinyBAS) -> None:
    """Protects Grad-CAM: the gradient of each picture's own logit, taken by finite differences in float64."""
    double = TinyBAS(final_relu=False).double().eval()
    torch.manual_seed(0)
    features, classes = torch.rand(2, 6, 4, 4, dtype=torch.float64), torch.tensor([1, 4])
    found = grad_cam(double, features, classes)
    for row, label in enumerate(classes):
        one = features[row : row + 1]

        def logit(values: torch.Tensor, label=label) -> torch.Tensor:
            with torch.no_grad():
                return double.f2(values).mean((2, 3))[0, label]

        gradient, step = torch.zeros_like(one), 1e-6
        for position in np.ndindex(*one.shape):
            up, down = one.clone(), one.clone()
            up[position] += step
            down[position] -= step
            gradient[position] = (logit(up) - logit(down)) / (2 * step)
        expected = F.relu((gradient.mean((2, 3), keepdim=True) * one).sum(1))
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-8)
    assert all(parameter.grad is None for parameter in double.parameters())


def test_several_k_share_one_convolution(model: TinyBAS) -> None:
    """Protects the sweep over k: each map equals the fusion of that k alone, with and without labels."""
    torch.manual_seed(1)
    crops, labels = torch.randn(3, 1, 3, 16, 16), torch.tensor([4, 0, 2])
    encoding = model.encode_crops(crops, 0)
    for top_ks in ((1, 2, 4), (1, 3, 5, 9)):
        for given in (labels, None):
            maps = make_maps(model, encoding, [MapKind("bas", k) for k in top_ks], given)
            for k in top_ks:
                expected = model.fuse_top_k(encoding.features, encoding.scores, k, given)
                torch.testing.assert_close(maps[MapKind("bas", k)], expected)


def test_unread_maps_are_not_computed(model: TinyBAS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the cost of baselines: without BAS among the kinds, the generator does not run."""
    encoding = model.encode_crops(torch.randn(2, 1, 3, 16, 16), 0)

    def fail(*_: object) -> None:
        raise AssertionError("the generator ran")

    monkeypatch.setattr(TinyBAS, "foreground_maps", fail)
    monkeypatch.setattr(model.classifier_loc, "forward", fail)
    maps = make_maps(model, encoding, [MapKind("cam"), MapKind("gradcam"), MapKind("center")], None)
    assert all(len(values) == 2 for values in maps.values())
    with pytest.raises(AssertionError, match="generator ran"):
        make_maps(model, encoding, [MapKind("bas", 2)], None)


def test_gaussian_draws_centred_squares() -> None:
    """Protects the baseline: its boxes are centred, square, and shrink as the threshold rises."""
    gaussian = centred_gaussian(torch.zeros(2, 3, 28, 28))
    assert gaussian.shape == (2, 1, 28, 28) and gaussian.min() > 0 and gaussian.max() <= 1
    sides = []
    for threshold in (0.05, 0.3, 0.6, 0.9):
        left, top, right, bottom = map_to_box(gaussian[0], threshold, 224)
        assert (left, top) == (224 - right, 224 - bottom) == (top, left)
        sides.append(right - left)
    assert sides == sorted(sides, reverse=True) and 100 < sides[2] < 124


@pytest.mark.parametrize(("name", "last"), [("authors", 32), ("ijcv", 32), ("wsolevaluation", 31)])
def test_edges_that_boxes_reach(model: TinyBAS, split: Split, name: str, last: int) -> None:
    """Protects the figures of edges and of whole crops by each other: boxes of contours end in the last pixel, those of
    components behind it."""
    spec = replace(build_spec(RECIPE, PROTOCOLS[name]), thresholds={BAS: 0.4})
    evaluation = run(model, split, spec)
    boxes = evaluation.maps[BAS].boxes
    boxes[:] = [[0, 0, last - 1, last]]
    boxes[:3] = [0, 0, last, last]
    assert evaluation.whole_crop_boxes(BAS) == 3
    found = summarize_map(evaluation, BAS)["edges"]
    assert found == {"left": 100, "top": 100, "right": pytest.approx(300 / 11), "bottom": 100}


def test_in_inference_mode(model: TinyBAS) -> None:
    """Protects notebooks that compute in PyTorch's inference mode: Grad-CAM is the same there, and what is left in
    caches serves a step that trains."""
    torch.manual_seed(0)
    features, classes = torch.rand(2, 6, 4, 4), torch.tensor([1, 4])
    expected = grad_cam(model, features, classes)
    with torch.inference_mode():
        torch.testing.assert_close(grad_cam(model, features.clone(), classes.clone()), expected)
    for weights, arguments in ((block_weights, (28, 7, CPU)), (area_weights, (28, 7, 1.5, 4.0, CPU))):
        weights.cache_clear()
        with torch.inference_mode():
            weights(*arguments)
        assert not weights(*arguments).is_inference()  # else no step could derive through it
