"""The experiment's figures: which pictures they show, what they draw, and whether it can be read."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import CUB.DataLoader
import CUB.Model
from tests.commands import WHOLE, make_cub
from tests.reference_weights import draw
from tests.test_exploratory import MEASURED, OBJECTS, save_masks
from utils.data.split import Split
from utils.exploratory import run_experiment
from utils.exploratory.examples import Example, choose_examples, read_example
from utils.exploratory.figures import build_experiment, build_motivation, typical_curves
from utils.exploratory.masks import kernel_step, mask_family
from utils.exploratory.measure import Curve
from utils.system.options import settle

RECIPE = settle(CUB.Model.recipe("mobilenet"), {"resize_size": 64, "crop_size": 48})


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    """Test pictures with masks."""
    data = tmp_path_factory.mktemp("data")
    save_masks(make_cub(data, [((int(name[:3]) - 1), False, WHOLE) for name in OBJECTS], 5))
    return CUB.DataLoader.load_split(data, "test")


@pytest.fixture(scope="module")
def example(split: Split) -> Example:
    """A measured picture."""
    model = CUB.Model.build("mobilenet", 5, final_relu=False)
    model.load_state_dict({key: draw(key, tuple(value.shape)) for key, value in model.state_dict().items()})
    curves = run_experiment(model, split, RECIPE, torch.device("cpu"), "class_maps").curves
    return read_example(next(curve for curve in curves if curve.image_id == MEASURED[1]), split, RECIPE)


def straight(name: str, class_name: str, own: float, correct: bool = True) -> Curve:
    """Entropy 2 - area, activation 10 x area, background activation 10 - 10 x area, through three masks."""
    areas = np.array([0, own, 1])
    return Curve(name, class_name, correct, areas, np.array([0, 1, own]), 2 - areas, 10 * areas, 10 - 10 * areas)


def test_examples_are_chosen_by_a_rule() -> None:
    """Protects from cherries: correct, of different classes, of median size; others only where there are too few."""
    curves = [
        straight("big", "cow", 0.9),
        straight("median", "hen", 0.3, correct=False),
        straight("near", "cow", 0.32),
        straight("nearer", "cow", 0.29),
        straight("far", "pig", 0.1),
    ]
    assert [curve.image_id for curve in choose_examples(curves)] == ["nearer", "far", "median"]
    assert [curve.image_id for curve in choose_examples(curves, count=1)] == ["nearer"]


def test_what_is_typical_of_all_pictures() -> None:
    """Protects the lower charts: every picture counts everywhere, on an axis over the object and over the rest."""
    owns = (0.5, 0.25, 0.2, 0.1)
    places, found = typical_curves([straight(str(own), "hen", own) for own in owns])
    assert places[0] == 0 and places[100] == 1 and places[-1] == 2
    for number, place in enumerate(places):
        areas = [place * own if place <= 1 else own + (place - 1) * (1 - own) for own in owns]
        median, low, high, mean = found["activation"][:, number]
        assert [low, median, high] == pytest.approx(10 * np.percentile(areas, [25, 50, 75]))
        assert mean == pytest.approx(10 * np.mean(areas))
        assert found["entropy"][3, number] == pytest.approx(2 - np.mean(areas))
    full = Curve("full", "hen", True, np.array([0, 0.5, 1]), np.array([0, 0.5, 1]), *np.array([[0.0, 2, 3]] * 3))
    places, found = typical_curves([full])
    assert found["activation"][0, [0, 50, 100, 150, 200]].tolist() == [0, 2, 3, 3, 3]


def test_masks_that_are_shown(example: Example) -> None:
    """Protects the pictures: part of the object, the object, more than it, out of the measured family."""
    mask = example.masks[1]
    assert mask.sum() == 40 * 16 and mask[2:42, 16:32].all()
    family = mask_family(mask, kernel_step(48))
    assert all(any((one == member).all() for member in family) for one in example.masks)
    assert example.masks.mean(axis=(1, 2)) == pytest.approx(example.curve.areas[list(example.positions)])
    assert (np.diff(example.positions) > 0).all()


def test_what_is_drawn(example: Example) -> None:
    """Protects the figures: raw values on the named axes, the object's own share dashed, what was masked said."""
    curve = example.curve
    motivation = build_motivation(example, "class_maps")
    for figure in (motivation, build_experiment([curve], [example], "class_maps")):
        axes = {one.get_ylabel(): one for one in figure.axes if one.get_ylabel()}
        assert axes.keys() == {"entropy", "background activation", "foreground activation"}
        assert "masks laid on A, the class maps that GAP pools" in words_of(figure)
        for label, one in axes.items():
            (line,) = (line for line in one.get_lines() if line.get_label() == label)
            values = getattr(curve, "activation" if label.startswith("fore") else label.replace(" ", "_"))
            if figure is motivation:
                assert (line.get_xdata() == curve.areas).all() and (line.get_ydata() == values).all()
                assert one.get_yaxis().get_ticks_position() == ("right" if label.startswith("fore") else "left")
    dashed = [line for one in motivation.axes for line in one.get_lines() if "own" in line.get_label()]
    assert [set(line.get_xdata()) for line in dashed] == [{curve.own_area}] * 2
    assert "masks laid on F, at the network's tap" in words_of(build_motivation(example))


def test_zeros_stand_at_one_height(example: Example) -> None:
    """Protects from a misleading pair of axes: one zero for both sides, the same limits for the two activations."""
    curve = example.curve
    lower = replace(curve, image_id="b", activation=curve.activation - 40, entropy=3 * curve.entropy)
    examples = [example, replace(example, curve=lower)]
    for figure in (build_motivation(examples[1]), build_experiment([curve, lower], examples)):
        charts = [one for one in figure.axes if one.get_lines()]
        groups = [charts] if len(charts) == 4 else [charts[:8], charts[8:]]
        for group in groups:
            zeros = [-low / (high - low) for low, high in (one.get_ylim() for one in group)]
            assert zeros == pytest.approx([zeros[0]] * len(zeros)) and 0 < zeros[0] < 1
            limits = {one.get_ylim() for one in group}
            assert len(limits) == 2  # those of entropy and those of activations
            for one in group:
                low, high = one.get_ylim()
                for line in one.get_lines():
                    if "own" not in line.get_label():
                        assert low <= line.get_ydata().min() and line.get_ydata().max() <= high


def texts_of(figure) -> list[Text]:
    """The texts that are drawn; ticks beyond an axis are not."""
    FigureCanvasAgg(figure).draw()
    hidden = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            is_seen = low - 1e-9 <= tick.get_loc() <= high + 1e-9
            hidden |= {label for label in (tick.label1, tick.label2) if not (is_seen and label.get_visible())}
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in hidden]


def words_of(figure) -> set[str]:
    return {text.get_text() for text in texts_of(figure)}


def test_texts_are_legible(example: Example) -> None:
    """Protects legibility at a README's width: no text below 9 pixels of type there, none on another or off the page,
    however long the classes' names are."""
    long = replace(example, curve=replace(example.curve, class_name="001." + "Black_footed_Albatross_" * 4))
    curves = [example.curve] * 3
    for figure in (build_motivation(long), build_experiment(curves, [long] * 3), build_experiment(curves, [example])):
        assert figure.get_figwidth() * figure.dpi == pytest.approx(880)
        extents = [(text.get_text(), text.get_window_extent()) for text in texts_of(figure)]
        assert min(text.get_fontsize() for text in texts_of(figure)) * figure.dpi / 72 > 9
        assert len(extents) > 25
        for (first, one), (second, other) in itertools.combinations(extents, 2):
            assert not one.overlaps(other), (first, second)
        for words, extent in extents:
            page = figure.bbox.padded(1)
            assert page.containsx(extent.x0) and page.containsx(extent.x1), words
            assert page.containsy(extent.y0) and page.containsy(extent.y1), words
    (title,) = {text.get_text() for text in texts_of(build_experiment(curves, [long])) if "Black" in text.get_text()}
    assert title == "Black footed Albatross Blac…"
