"""The sheet of test pictures: CAM beside BAS, each map with the predicted and the true box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.data.split import Split, spread
from utils.evaluation.gallery import save_gallery
from utils.evaluation.spec import build_spec
from utils.inference.loading import Loaded
from utils.inference.placing import place_maps

KINDS = ("cam", "bas")
PICTURES = 8


def draw_results(
    path: Path, loaded: Loaded, split: Split, thresholds: Mapping[str, float] | None = None, pictures: int = PICTURES
) -> Path:
    """Localises a few test pictures by CAM and by BAS and draws them side by side; returns `path`.

    Which pictures is settled before anything is localised, so hits and misses are shown as they come: see
    :func:`choose_pictures`. Maps are from the centre crop: CAM's is that of the labelled class (GT-known), BAS's is so
    where k = 1, and else the mean of those of the k classes with the highest logits.

    Args:
        path: the picture to write.
        loaded: the network and its settings.
        split: test pictures, best with boxes.
        thresholds: `bas` and `cam` -> threshold; the recipe's and the literature's where missing.
        pictures: at most so many.

    Raises:
        UserError: matplotlib is missing, a picture cannot be read, or the file cannot be written.
    """
    spec = build_spec(loaded.recipe, loaded.protocol, KINDS, ten_crops=False)
    given = thresholds or {}
    in_force = {kind: given.get(kind.kind, threshold) for kind, threshold in spec.thresholds.items()}
    spec = place_maps(loaded, replace(spec, thresholds=in_force))
    return save_gallery(path, loaded.model, split, choose_pictures(split, pictures), spec, loaded.device)


def choose_pictures(split: Split, count: int) -> list[int]:
    """One picture of each of at most `count` classes that lie evenly over the list of classes: the middle one of the
    class's pictures with boxes, or of all if none has any."""
    boxed = np.array([len(split.boxes.get(image_id, ())) > 0 for image_id in split.ids])
    candidates = np.flatnonzero(boxed if boxed.any() else ~boxed)
    labels = split.labels[candidates]
    classes = np.unique(labels)
    chosen = [candidates[labels == classes[place]] for place in spread(np.ones(len(classes)), count)]
    return [int(members[len(members) // 2]) for members in chosen]
