"""The sheet of test pictures, CAM beside BAS."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from CUB.BAS_inference import FOLDER
from Img import results
from Img.results import SIDE, WIDTH, build_results_figure, choose_pictures, draw_results
from tests.commands import make_cub, write_random_net
from utils.charts import DARK_INK
from utils.data.split import Split
from utils.drawing import Panel
from utils.errors import UserError
from utils.evaluation.maps import MapKind
from utils.evaluation.protocols import PROTOCOLS
from utils.evaluation.question import Question, build_question
from utils.gallery import make_panels
from utils.inference.arguments import parse_options
from utils.inference.loading import Loaded, load

NAME = "012.A_bird_with_a_very_long_name"
TRUTH = np.array([[0.0, 12.0, 24.0, 48.0]])
HALF = np.array([0, 12, 24, 29])  # IoU with the truth: (25 * 18) / (25 * 37) = 0.486...
MORE = np.array([0, 12, 24, 30])  # (25 * 19) / (25 * 37) = 0.513...
QUESTION = Question(PROTOCOLS["authors"], 64, 48, False, {MapKind("cam"): 0.2, MapKind("bas", 200): 0.1})


def make_split(labels: list[int], boxed: list[int]) -> Split:
    ids = tuple(f"{number}.jpg" for number in range(len(labels)))
    boxes = {ids[number]: np.array([[1.0, 2.0, 3.0, 4.0]]) for number in boxed}
    names = tuple(f"class {number}" for number in range(max(labels) + 1))
    return Split("test", "made up", ids, tuple(map(Path, ids)), np.array(labels), boxes, names, {})


def make_group(true_boxes: np.ndarray = TRUTH) -> list[Panel]:
    """A picture of 48 x 48 pixels, a CAM that misses and a BAS map that hits."""
    image = np.full((48, 48, 3), 128, np.uint8)
    spatial_map = np.outer(np.linspace(0, 1, 6), np.ones(6))
    panel = Panel(image, NAME, None, true_boxes, None)
    return [
        panel,
        replace(panel, caption="CAM", spatial_map=spatial_map, predicted_box=HALF),
        replace(panel, caption="BAS, k = 200", spatial_map=spatial_map, predicted_box=MORE),
    ]


def texts(figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


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
    """Protects the captions: each map with its IoU, and the mark on the right side of 0.5; the class without number."""
    words = [text.get_text() for text in texts(build_results_figure([make_group()], QUESTION))]
    assert words[:3] == ["A bird with a very…", "CAM  IoU 0.49  ✗", "BAS  IoU 0.51  ✓"]
    words = [text.get_text() for text in texts(build_results_figure([make_group(np.empty((0, 4)))], QUESTION))]
    assert words[1:3] == ["CAM", "BAS"]


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
    panel = make_group(np.array([[0.0, 0.0, 9.0, 999.0]]))[1]
    group = [panel, *[replace(panel, predicted_box=np.array([0.0, 0.0, 9.0, height - 1.0]))] * 2]
    written = [
        text.get_text()
        for text in texts(build_results_figure([group], replace(QUESTION, protocol=PROTOCOLS[protocol])))
    ]
    assert written[1:3] == [f"CAM  {words}", f"BAS  {words}"]
    rule = "✓ ✗  IoU above 0.5 or not" if protocol == "authors" else "✓ ✗  IoU 0.5 or more or not"
    assert rule in written and "CAM of the true class;  BAS, k = 200" in written


def test_boxes_lie_where_they_should() -> None:
    """Protects the drawing: boxes in the scale of their picture, inside it; the predicted one dashed, the true not."""
    figure = build_results_figure([make_group(), make_group()], QUESTION)
    images = figure.axes[0].images[:6]
    scale = SIDE / 48
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 5]
    assert len(lines) == 2 * 2 * (1 + 2 + 2)  # a rim each
    found = 0
    for image, predicted in zip(images, [None, HALF, MORE] * 2, strict=True):
        left, right, bottom, top = image.get_extent()
        assert right - left == bottom - top == SIDE and left >= 0 and right <= WIDTH
        own = [line for line in lines if left <= min(line.get_xdata()) and max(line.get_xdata()) <= right]
        own = [line for line in own if top <= min(line.get_ydata()) and max(line.get_ydata()) <= bottom]
        for box, dashed in [(TRUTH[0], False)] + ([] if predicted is None else [(predicted, True)]):
            x0, y0, x1, y1 = (box * scale).clip(1.5, SIDE - 1.5)
            same = [
                line
                for line in own
                if np.allclose([min(line.get_xdata()), max(line.get_xdata())], [left + x0, left + x1])
                and np.allclose([min(line.get_ydata()), max(line.get_ydata())], [top + y0, top + y1])
            ]
            assert [line.is_dashed() for line in same] == [False, dashed]
            assert to_hex(same[0].get_color()) == DARK_INK != to_hex(same[1].get_color())
            found += 2
    assert found == len(lines)


def test_box_that_shows_nothing_is_left_out() -> None:
    """Protects pictures whose true box lies outside the crop: inverted boxes draw no line."""
    figure = build_results_figure([make_group(np.array([[60.0, 12.0, 48.0, 48.0]]))], QUESTION)
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata()) == 5]) == 2 * 2


def test_captions_are_legible() -> None:
    """Protects legibility: captions keep to the width of their picture, no text is small or crosses another."""
    question = replace(QUESTION, protocol=PROTOCOLS["ijcv"], thresholds={MapKind("cam"): 0, MapKind("bas", 1000): 0})
    figure = build_results_figure([make_group()] * 5, question)
    FigureCanvasAgg(figure).draw()
    extents = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    assert len(extents) == 5 * 3 + 6 and min(text.get_fontsize() for text in texts(figure)) >= 11
    for words, extent in extents[:-6]:
        assert extent.width <= SIDE, words
    assert max(extent.x1 for _, extent in extents) < WIDTH - 2
    (scale,) = (image for image in figure.axes[0].images if image.get_extent()[3] < results.TOP)
    left, right, *_ = scale.get_extent()
    assert not [words for words, extent in extents[-6:] if extent.x0 < right + 2 and extent.x1 > left - 2]
    for (first, one), (second, other) in itertools.combinations(extents, 2):
        assert not one.overlaps(other), (first, second)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Path]:
    """A random network and a data set of three classes."""
    folder = tmp_path_factory.mktemp("run")
    pictures = [(number % 3, number < 3, (10, 10, 40, 50)) for number in range(9)]
    root = make_cub(folder / "data", pictures, 3)
    options = {"arch": "mobilenet", "checkpoint": write_random_net(folder / "net.pth", 3), "device": "cpu"}
    return load(FOLDER, parse_options("CUB", options)), root


def test_sheet_shows_what_the_network_finds(
    prepared: tuple[Loaded, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the sheet: CAM beside BAS at the thresholds given, else the run's, of the rule's pictures."""
    loaded, root = prepared
    split = FOLDER.loader.load_split(root, "test")
    drawn = []
    monkeypatch.setattr(
        results, "build_results_figure", lambda groups, of: drawn.append(groups) or build_results_figure(groups, of)
    )
    for thresholds in (None, {"bas": 0.9, "center": 0.1}):
        path = draw_results(tmp_path / "new" / "result.png", loaded, split, thresholds, pictures=2)
        with Image.open(path) as picture:
            assert picture.width == 1.5 * WIDTH and len(np.unique(np.asarray(picture.convert("L")))) > 50
        question = build_question(loaded.recipe, kinds=("cam", "bas"))
        in_force = dict(zip(question.thresholds, (0.2, 0.9 if thresholds else 0.6), strict=True))
        indices = choose_pictures(split, 2)
        wanted = make_panels(loaded.model, split, indices, replace(question, thresholds=in_force), torch.device("cpu"))
        assert len(drawn[-1]) == len(wanted) == 2
        for group, expected in zip(drawn[-1], wanted, strict=True):
            assert [panel.caption for panel in group] == [panel.caption for panel in expected]
            for panel, other in zip(group[1:], expected[1:], strict=True):
                assert (panel.predicted_box == other.predicted_box).all() and (panel.image == other.image).all()
    boxes = [[panel.predicted_box.tolist() for group in groups for panel in group[1:]] for groups in drawn]
    assert boxes[0][::2] == boxes[1][::2] and boxes[0][1::2] != boxes[1][1::2]  # BAS's alone have changed


def test_unreadable_picture_is_named(prepared: tuple[Loaded, Path], tmp_path: Path) -> None:
    """Protects against black squares: one sentence names the picture that cannot be read."""
    loaded, root = prepared
    split = FOLDER.loader.load_split(root, "test")
    paths = tuple(tmp_path / path.name for path in split.paths)
    for path in paths:
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=f"{paths[choose_pictures(split, 1)[0]].name}"):
        draw_results(tmp_path / "result.png", loaded, replace(split, paths=paths), pictures=1)
    assert not (tmp_path / "result.png").exists()
