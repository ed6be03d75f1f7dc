"""Dead foreground maps are found, by class, over batches, processes and splits, and are told in a sentence."""

from __future__ import annotations

import numpy as np
import torch

from utils.metrics import DeadMaps, extremes_by_class, find_dead_maps, map_extremes
from utils.results.tables import caution_lines, dead_map_line

NAMES = ("ant", "bee", "cow", "dog", "eel")


def test_extremes_of_maps() -> None:
    """Protects what a step notes: each map's own highest and lowest value, without a gradient."""
    maps = torch.tensor([[0.0, 0.5], [0.25, 1.0]]).reshape(2, 1, 1, 2).requires_grad_()
    found = map_extremes(maps)
    assert found.tolist() == [[0.5, 0.0], [1.0, 0.25]] and not found.requires_grad


def test_a_class_is_dead_only_if_all_of_its_maps_are() -> None:
    """Protects the definition: all below 0.02 or all above 0.98 on all pictures of the class; by hand."""
    labels = np.array([0, 0, 1, 1, 2, 2, 3])
    extremes = np.array([[0.01, 0], [0.019, 0], [0.01, 0], [0.5, 0], [1, 0.99], [1, 0.981], [1, 0.97]])
    assert find_dead_maps(extremes_by_class(labels, extremes, 5)) == DeadMaps(4, (0,), (2,))  # nothing of the fifth


def test_parts_are_merged() -> None:
    """Protects batches, resumed epochs and processes: parts in any order give what the whole gives."""
    random = np.random.default_rng(0)
    labels, values = random.integers(0, 5, 40), np.sort(random.random((40, 2)), axis=1)[:, ::-1]
    values[3] = np.nan  # a map that is not finite is passed over
    whole = extremes_by_class(labels, values, 6)
    parts = [extremes_by_class(labels[rows], values[rows], 6) for rows in (slice(25, 40), slice(0, 25))]
    assert np.array_equal(extremes_by_class(np.tile(np.arange(6), 2), np.concatenate(parts), 6), whole)
    assert whole[5].tolist() == [-np.inf, np.inf]
    for label in range(5):
        own = values[(labels == label) & np.isfinite(values[:, 0])]
        assert whole[label].tolist() == [own[:, 0].max(), own[:, 1].min()]


def test_the_line_names_classes_and_advises() -> None:
    """Protects the sentence that a user reads, and that there is none where nothing is wrong."""
    dead = DeadMaps(5, (0, 2), (4,)).summary(NAMES)
    assert dead == {"count": 3, "classes": 5, "empty": ["ant", "cow"], "full": ["eel"]}
    line = dead_map_line(dead)
    assert line.startswith("dead maps: 3 of 5 classes (empty: ant, cow; full: eel); ") and "--generator_rate" in line
    many = dead_map_line(DeadMaps(200, tuple(range(7)), ()).summary([f"class {number}" for number in range(200)]))
    assert "class 4 and 2 more)" in many and "class 5" not in many
    boxes = {"BAS, k = 1": {"count": 3, "percent": 12.5}, "CAM": {"count": 0, "percent": 0.0}}
    assert caution_lines({"whole_crop_boxes": boxes, "dead_maps": dead}) == [
        "boxes that are the whole crop: BAS, k = 1 3 (12.5 %)",
        line,
    ]
    alive = DeadMaps(5, (), ()).summary(NAMES)
    assert caution_lines({"whole_crop_boxes": {"CAM": boxes["CAM"]}, "dead_maps": alive}) == []
    assert caution_lines({"whole_crop_boxes": {}, "dead_maps": None}) == []
