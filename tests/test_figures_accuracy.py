"""The chart of published and measured results."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

import CUB
import ILSVRC
from Img.accuracy import build_accuracy_figure, collect_published, draw_accuracy
from Img.measured import Measured, read_measured
from utils.system.errors import UserError

METRICS = ("top1_loc", "top5_loc", "gt_known_loc")
# The paper's table: Top-1, Top-5, GT-known Loc on CUB, then on ILSVRC.
BAS = {
    "VGG16": (71.33, 85.33, 91.07, 52.96, 65.41, 69.64),
    "MobileNetV1": (69.77, 86.00, 92.35, 52.97, 66.59, 72.00),
    "ResNet50": (77.25, 90.08, 95.13, 57.18, 68.44, 71.77),
    "InceptionV3": (73.29, 86.31, 92.24, 58.51, 69.00, 71.93),
}
CAM = {
    "VGG16": (41.06, 50.66, 55.10, 42.80, 54.86, 59.00),
    "MobileNetV1": (48.07, 59.20, 63.30, 43.35, 54.44, 58.97),
    "ResNet50": (46.71, 54.44, 57.35, 38.99, 49.47, 51.86),
    "InceptionV3": (41.06, 50.66, 55.10, 46.29, 58.19, 62.68),
}
SCORES = {
    "BAS": {"top1_loc": 72.5, "top5_loc": 79.25, "gt_known_loc": 81.5},
    "CAM": {"top1_loc": 67.5, "top5_loc": 70.75, "gt_known_loc": 71.75},
}
MEASURED = {"the demo": {"MobileNetV1": SCORES}}


@pytest.fixture(scope="module")
def figure():
    figure = build_accuracy_figure(collect_published([CUB.DATASET, ILSVRC.DATASET]), MEASURED)
    FigureCanvasAgg(figure).draw()
    return figure


def test_published_figures_are_the_papers() -> None:
    """Protects every published number, of BAS and of CAM, on both data sets."""
    published = collect_published([CUB.DATASET, ILSVRC.DATASET])
    assert list(published) == ["CUB-200-2011", "ILSVRC"]
    for first, results in zip((0, 3), published.values(), strict=True):
        assert list(results) == list(BAS)
        for backbone, methods in results.items():
            for method, table in (("CAM", CAM), ("BAS", BAS)):
                assert methods[method] == dict(zip(METRICS, table[backbone][first : first + 3], strict=True))


def test_bars_are_as_high_as_their_numbers(figure) -> None:
    """Protects the chart: each bar stands over its backbone, as high as the value written on it, from zero up."""
    for place, axes in enumerate(figure.axes):
        row, column = divmod(place, 3)
        metric = ("top1_loc", "gt_known_loc")[row]
        expected = {}
        for (number, (method, table)), (index, label) in itertools.product(
            enumerate((("CAM", CAM), ("BAS", BAS))), enumerate(axes.get_xticklabels())
        ):
            published = table[label.get_text()][METRICS.index(metric) + (3 if column == 1 else 0)]
            expected[number, index] = SCORES[method][metric] if column == 2 else published
        assert axes.get_ylim()[0] == 0 and len(axes.containers) == 2
        for number, bars in enumerate(axes.containers):
            for index, bar in enumerate(bars):
                assert bar.get_y() == 0 and bar.get_height() == expected[number, index]
                assert abs(bar.get_x() + bar.get_width() / 2 - index) < 0.3
        written = sorted(float(text.get_text()) for text in axes.texts)
        assert written == pytest.approx(sorted(expected.values()), abs=0.0501)
    first = {text.get_text() for text in figure.axes[0].texts} | {text.get_text() for text in figure.axes[3].texts}
    assert {"77.3", "92.4"} <= first  # 77.25 and 92.35: halves go up


def test_methods_are_told_apart_in_grey(figure) -> None:
    """Protects readers in grey: one method is dark, the other light and hatched, in the key as in the charts."""
    for axes in figure.axes:
        cam, bas = (bars[0] for bars in axes.containers)
        assert cam.get_hatch() and not bas.get_hatch()
        brightness = [np.dot(to_rgb(bar.get_facecolor()), (0.21, 0.72, 0.07)) for bar in (cam, bas)]
        assert brightness[0] - brightness[1] > 0.5
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == ["CAM", "BAS"]
    assert [bool(patch.get_hatch()) for patch in key.get_patches()] == [True, False]


def test_measured_results_are_marked_apart(figure) -> None:
    """Protects honesty: what the paper reports says so, and one's own column says so on a ground of its own."""
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == ["CUB-200-2011\npublished", "ILSVRC\npublished", "the demo\nmeasured here"]
    grounds = [to_rgb(axes.get_facecolor()) for axes in figure.axes]
    assert [ground != (1, 1, 1) for ground in grounds] == [False, False, True] * 2
    alone = build_accuracy_figure(collect_published([CUB.DATASET]), {})
    assert [axes.get_title() for axes in alone.axes] == ["CUB-200-2011\npublished", ""]


def test_column_stands_beside_its_data_set() -> None:
    """Protects comparison: a run on CUB is right of what was published on CUB; a method that was not measured has no
    bar, and the others stand over their backbone."""
    published = collect_published([CUB.DATASET, ILSVRC.DATASET])
    figure = build_accuracy_figure(published, {"CUB-200-2011": {"ResNet50": {"BAS": SCORES["BAS"]}}})
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == ["CUB-200-2011\npublished", "CUB-200-2011\nmeasured here", "ILSVRC\npublished"]
    for axes, metric in zip((figure.axes[1], figure.axes[4]), ("top1_loc", "gt_known_loc"), strict=True):
        ((bar,),) = axes.containers
        assert bar.get_height() == SCORES["BAS"][metric] and bar.get_x() + bar.get_width() / 2 == pytest.approx(0)
        assert axes.containers[0].get_label() == "BAS" and to_rgb(axes.get_facecolor()) != (1, 1, 1)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["ResNet50"]
    FigureCanvasAgg(figure).draw()
    assert_legible(figure)
    wide = build_accuracy_figure(published, {"photographs of birds": {"InceptionV3": SCORES}})
    assert wide.axes[2].get_title() == "photographs o…\nmeasured here"
    FigureCanvasAgg(wide).draw()
    assert_legible(wide)


def test_texts_are_legible(figure) -> None:
    """Protects legibility at the README's width: no text below 9 pixels of type height there, none on another."""
    assert_legible(figure)


def assert_legible(figure) -> None:
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) * 100 / 72 > 11
    extents = [(text.get_text(), text.get_window_extent()) for text in texts]
    for (first, one), (second, other) in itertools.combinations(extents, 2):
        assert not one.overlaps(other), (first, second)
    for words, extent in extents:
        assert figure.bbox.padded(1).containsx(extent.x0) and figure.bbox.padded(1).containsx(extent.x1), words


def test_chart_is_saved(tmp_path: Path) -> None:
    """Protects the file: twice as fine as a README shows it, in a folder that is made; one sentence where it cannot."""
    path = draw_accuracy(tmp_path / "new" / "accuracy.png", collect_published([CUB.DATASET]))
    with Image.open(path) as picture:
        assert picture.width == 2 * 880 and np.asarray(picture.convert("L")).min() < 100
    with pytest.raises(UserError, match="cannot write .*accuracy.png/x.png"):
        draw_accuracy(path / "x.png", {"CUB-200-2011": {"VGG16": SCORES}})


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects an old installation: one sentence that names what is missing."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="matplotlib, which is missing; pip install"):
        draw_accuracy(tmp_path / "accuracy.png", {"CUB-200-2011": {"VGG16": SCORES}})


def record(**changes: object) -> dict:
    """What the demo writes."""
    scores = {
        kind: {metric: {"class_mean": 1.0, "image_mean": value} for metric, value in SCORES[title].items()}
        for kind, title in (("bas", "BAS"), ("cam", "CAM"))
    }
    return {"thresholds": {"bas": 0.18, "cam": 0.53}, "scores": scores, "failures": [], **changes}


@pytest.mark.parametrize("inside", [True, False])
def test_demo_results_are_read(tmp_path: Path, inside: bool) -> None:
    """Protects the measured column: means over images and thresholds, from the run's folder or the one around it."""
    run = tmp_path / "demo_run" / "mobilenet"
    run.mkdir(parents=True)
    assert read_measured(run) is None
    ((run if inside else run.parent) / "results.json").write_text(json.dumps(record()))
    assert read_measured(run) == Measured({"bas": 0.18, "cam": 0.53}, SCORES, is_demo=True)


def test_evaluation_of_a_run_is_read(tmp_path: Path) -> None:
    """Protects the column of a run that is no demo's: BAS alone, the authors' means over classes; none without boxes,
    and a demo's results come first."""
    scores = {metric: {"class_mean": value, "image_mean": 1.0} for metric, value in SCORES["BAS"].items()}
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"scores": {**scores, "boxed": 4}, "failures": []}))
    assert read_measured(tmp_path) == Measured({}, {"BAS": SCORES["BAS"]}, is_demo=False)
    path.write_text(json.dumps({"scores": dict.fromkeys(scores) | {"boxed": 0}, "failures": []}))
    assert read_measured(tmp_path) is None
    for content in ("[]", "{}", '{"scores": {"boxed": 4}}', json.dumps({"scores": {**scores, "boxed": 4}}) + "}"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"evaluation\.json does not hold an evaluation's results"):
            read_measured(tmp_path)
    path.write_text(json.dumps({"scores": {**scores, "boxed": 4}}).replace("72.5", "725"))
    with pytest.raises(UserError, match=r"evaluation\.json does not hold .*not within 0 and 100 %"):
        read_measured(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(record()))
    assert read_measured(tmp_path).is_demo


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps(record(scores={})),
        json.dumps(record(scores=[1])),
        json.dumps(record(scores={"bas": record()["scores"]["bas"]})),
        json.dumps(record(thresholds={"bas": 0.18})),
        json.dumps(record(thresholds={"bas": 0.18, "cam": float("nan")})),
        json.dumps(record(thresholds={"bas": 18, "cam": 0.53})),
        json.dumps(record()).replace("72.5", "725"),
        json.dumps(record()).replace("72.5", '"many"'),
        b"\xff\xfe",
    ],
)
def test_damaged_results_are_named(tmp_path: Path, content: str | bytes) -> None:
    """Protects against a chart of nonsense: one sentence names the file."""
    path = tmp_path / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"results\.json does not hold .*; move it away or train anew$"):
        read_measured(tmp_path)
