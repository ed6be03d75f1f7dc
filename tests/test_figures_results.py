"""The sheet of test pictures, CAM beside BAS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import CUB
from Img.results import choose_pictures, draw_results
from tests.commands import make_cub, write_random_net
from utils.data.split import Split
from utils.evaluation import gallery
from utils.evaluation.gallery import Found, Subject, build_key, draw_group, localize_pictures
from utils.evaluation.kinds import MapKind
from utils.evaluation.protocols import PROTOCOLS
from utils.evaluation.spec import EvaluationSpec, build_spec
from utils.inference.loading import Loaded, load
from utils.results.drawing import PREDICTED_COLOUR, TRUE_COLOUR
from utils.results.sheet import SIDE, Cell
from utils.system.errors import UserError

TRUTH = np.array([[0.0, 12.0, 24.0, 48.0]])
HALF = np.array([0, 12, 24, 29])  # IoU with the truth: (25 * 18) / (25 * 37) = 0.486...
MORE = np.array([0, 12, 24, 30])  # (25 * 19) / (25 * 37) = 0.513...
CAM_KIND, BAS_KIND = MapKind("cam"), MapKind("bas", 200)
QUESTION = EvaluationSpec(PROTOCOLS["authors"], 64, 48, False, {CAM_KIND: 0.2, BAS_KIND: 0.1})


def make_split(labels: list[int], boxed: list[int]) -> Split:
    ids = tuple(f"{number}.jpg" for number in range(len(labels)))
    boxes = {ids[number]: np.array([[1.0, 2.0, 3.0, 4.0]]) for number in boxed}
    names = tuple(f"class {number}" for number in range(max(labels) + 1))
    return Split("test", "made up", ids, tuple(map(Path, ids)), np.array(labels), boxes, names, {})


def make_group(
    true_boxes: np.ndarray = TRUTH, boxes: Sequence[np.ndarray] = (HALF, MORE), spec: EvaluationSpec = QUESTION
) -> list[Cell]:
    """A picture of 48 x 48 pixels, a CAM that misses and a BAS map that hits."""
    subject = Subject(np.full((48, 48, 3), 128, np.uint8), "Laysan Albatross", true_boxes)
    score_map = np.outer(np.linspace(0, 1, 48), np.ones(48))
    return draw_group(
        subject, {kind: Found(score_map, box) for kind, box in zip((CAM_KIND, BAS_KIND), boxes, strict=True)}, spec
    )


@pytest.mark.parametrize(
    ("labels", "boxed", "count", "expected"),
    [
        ([0, 0, 0, 1, 1, 2], [0, 1, 2, 3, 4, 5], 8, [1, 4, 5]),  # at most one a class, the middle one
        ([0, 0, 0, 1, 1, 2], [0, 3], 8, [0, 3]),  # those with boxes
        ([0, 0, 0, 1, 1, 2], [], 8, [1, 4, 5]),  # no boxes at all
        ([4, 3, 2, 1, 0], range(5), 3, [4, 2, 0]),  # classes spread evenly, first and last among them
        ([2, 0, 2, 0, 2], range(5), 1, [3]),
    ],
)
def test_pictures_are_chosen_by_rule(labels, boxed, count, expected) -> None:
    """Protects honesty: which pictures are shown depends on classes and boxes, not on how well they come out."""
    assert choose_pictures(make_split(labels, list(boxed)), count) == expected


def test_hits_and_misses_are_told() -> None:
    """Protects the captions: each map with its IoU, and the mark on the right side of 0.5."""
    words = [cell.words for cell in make_group()]
    assert words == [("Laysan Albatross",), ("CAM", "IoU 0.49  ✗"), ("BAS, k = 200", "IoU 0.51  ✓")]
    assert [cell.words for cell in make_group(np.empty((0, 4)))][1:] == [("CAM",), ("BAS, k = 200",)]


@pytest.mark.parametrize(
    ("protocol", "height", "words"),
    [
        ("authors", 500, "IoU 0.50  ✗"),  # of 1000 rows so many: half is not above half
        ("ijcv", 500, "IoU 0.50  ✓"),
        ("authors", 501, "IoU 0.501  ✓"),  # 0.50 would be wrong
        ("ijcv", 499, "IoU 0.499  ✗"),
        ("authors", 499, "IoU 0.499  ✗"),
    ],
)
def test_mark_is_the_protocols(protocol: str, height: int, words: str) -> None:
    """Protects the marks: right is what the protocol counts as right, and no rounded number says otherwise."""
    spec = replace(QUESTION, protocol=PROTOCOLS[protocol])
    boxes = [np.array([0.0, 0.0, 9.0, height - 1.0])] * 2
    assert [cell.words[1] for cell in make_group(np.array([[0.0, 0.0, 9.0, 999.0]]), boxes, spec)[1:]] == [words] * 2
    key = [entry.words for entry in build_key(spec)]
    rule = "✓ ✗  IoU above 0.5 or not" if protocol == "authors" else "✓ ✗  IoU 0.5 or more or not"
    assert rule in key and "CAM of the true class" in key


def test_boxes_lie_where_they_should() -> None:
    """Protects the drawing: boxes in the scale of their picture, the true one on each cell, the predicted one on its
    map; one that lies outside the crop is left out."""
    for cell, box in zip(make_group(), (None, HALF, MORE), strict=True):
        assert cell.image.shape == (SIDE, SIDE, 3)
        for colour, wanted in ((TRUE_COLOUR, TRUTH[0]), (PREDICTED_COLOUR, box)):
            rows, columns = np.nonzero((cell.image == colour).all(axis=2))
            assert bool(len(rows)) == (wanted is not None)
            if wanted is not None:
                tag = 20  # the word's plate, right of or below the lines
                found = columns.min(), columns.max(), rows.max()
                assert found == pytest.approx(wanted[[0, 2, 3]] * SIDE / 48, abs=tag)
                assert abs(found[0] - wanted[0] * SIDE / 48) <= 4
    outside = make_group(np.array([[60.0, 12.0, 48.0, 48.0]]))
    assert not any((cell.image == TRUE_COLOUR).all(axis=2).any() for cell in outside)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Path]:
    """A random network and a data set of three classes."""
    folder = tmp_path_factory.mktemp("run")
    pictures = [(number % 3, number < 3, (10, 10, 40, 50)) for number in range(9)]
    root = make_cub(folder / "data", pictures, 3)
    options = {"arch": "mobilenet", "checkpoint": write_random_net(folder / "net.pth", 3), "device": "cpu"}
    return load(CUB.DATASET, **options), root


def test_sheet_shows_what_the_network_finds(
    prepared: tuple[Loaded, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the sheet: CAM beside BAS at the thresholds given, else the run's, of the rule's pictures."""
    loaded, root = prepared
    split = CUB.DATASET.load_split(root, "test")
    drawn = []
    monkeypatch.setattr(gallery, "draw_group", lambda *one: drawn.append(one) or draw_group(*one))
    for thresholds in (None, {"bas": 0.9, "center": 0.1}):
        path = draw_results(tmp_path / "new" / "result.png", loaded, split, thresholds, pictures=2)
        with Image.open(path) as picture:
            assert picture.width > 6 * SIDE and len(np.unique(np.asarray(picture.convert("L")))) > 50
        spec = build_spec(loaded.recipe, kinds=("cam", "bas"), ten_crops=False)
        in_force = dict(zip(spec.thresholds, (0.2, 0.9 if thresholds else 0.6), strict=True))
        spec = replace(spec, thresholds=in_force)
        wanted = localize_pictures(loaded.model, split, choose_pictures(split, 2), spec, torch.device("cpu"))
        assert len(wanted) == 2
        for (subject, found, asked), (other, expected) in zip(drawn[-2:], wanted, strict=True):
            assert asked.thresholds == in_force and (subject.image == other.image).all() and len(subject.boxes) == 1
            assert list(found) == list(in_force)
            assert all((found[kind].box == expected[kind].box).all() for kind in in_force)
    boxes = [[one.box.tolist() for _, found, _ in drawn[i : i + 2] for one in found.values()] for i in (0, 2)]
    assert boxes[0][::2] == boxes[1][::2] and boxes[0][1::2] != boxes[1][1::2]  # BAS's alone have changed


def test_unreadable_picture_is_named(prepared: tuple[Loaded, Path], tmp_path: Path) -> None:
    """Protects against black squares: one sentence names the picture that cannot be read."""
    loaded, root = prepared
    split = CUB.DATASET.load_split(root, "test")
    paths = tuple(tmp_path / path.name for path in split.paths)
    for path in paths:
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=f"{paths[choose_pictures(split, 1)[0]].name}"):
        draw_results(tmp_path / "result.png", loaded, replace(split, paths=paths), pictures=1)
    assert not (tmp_path / "result.png").exists()
