"""Boxes for pictures of one's own: a checkpoint becomes a function from pictures to class, box and map."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.data.evaluation import build_loose_loader
from utils.data.images import as_upright_rgb
from utils.data.transforms import evaluation_transform
from utils.evaluation.maps import make_maps
from utils.evaluation.run import cut_crops
from utils.evaluation.spec import Question
from utils.localization.boxes import crop_boxes_to_image
from utils.models.bas import BAS, rank_classes
from utils.system.errors import UserError
from utils.system.progress import progress_bar

NOT_FINITE = "the model's output is not finite; try another checkpoint"


@dataclass(frozen=True)
class Finding:
    """What the network says of one picture.

    Attributes:
        size: (width, height) of the picture as a viewer shows it, EXIF rotation applied.
        classes: the best five (or K) class indices, best first.
        names: their names.
        probabilities: theirs, of all classes' sum 1.
        box: (4,) float64 xyxy in pixels of `size`.
        score_map: (S, S) float32 in [0, 1], the normalised map of the crop that the network saw.
        seen: (3, R, R) the resized and normalised picture that crops were cut from.
        region: (4,) float64 xyxy in pixels of `size`, the part of the picture that `score_map` covers.
    """

    size: tuple[int, int]
    classes: tuple[int, ...]
    names: tuple[str, ...]
    probabilities: tuple[float, ...]
    box: np.ndarray
    score_map: np.ndarray
    seen: Tensor
    region: np.ndarray

    @property
    def name(self) -> str:
        """The predicted class."""
        return self.names[0]

    @property
    def probability(self) -> float:
        """Of the predicted class."""
        return self.probabilities[0]

    def full_map(self) -> np.ndarray:
        """The map laid over the whole picture: (height, width) float32 in [0, 1], 0 where the network did not look."""
        width, height = self.size
        left, top, right, bottom = self.region.round().astype(int)
        full = np.zeros((height, width), dtype=np.float32)
        full[top:bottom, left:right] = cv2.resize(self.score_map, (max(right - left, 1), max(bottom - top, 1)))
        return full

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; the map is left out."""
        top = [
            {"class": index, "name": name, "probability": probability}
            for index, name, probability in zip(self.classes, self.names, self.probabilities, strict=True)
        ]
        return {"size": list(self.size), "box": self.box.tolist(), "top5": top}


class Localizer:
    """A network with its settings, ready for pictures; made by `load_localizer` of a data set's `BAS_inference`.

    Args:
        model: in evaluation mode, on `device`.
        class_names: K names.
        question: protocol, sizes, crops, and the one kind of map with its threshold.
        device: where to compute.
    """

    def __init__(self, model: BAS, class_names: Sequence[str], question: Question, device: torch.device) -> None:
        if len(class_names) != model.num_classes:
            raise ValueError(f"{len(class_names)} class names for {model.num_classes} classes")
        self.model = model
        self.class_names = tuple(class_names)
        self.question = question
        self.device = device
        self._transform = evaluation_transform(question.resize_size)

    def __call__(self, picture: Image.Image | np.ndarray | str | os.PathLike[str]) -> Finding:
        """Localises one picture, whatever :func:`utils.data.images.as_upright_rgb` takes: a PIL image or a file, whose
        EXIF rotation is applied, or an array (H, W, 3) of uint8 in RGB order.

        Raises:
            UserError: the picture cannot be decoded, or the network's output is not finite.
            TypeError: it is no picture.
        """
        picture = as_upright_rgb(picture)
        (finding,) = self._find(self._transform(picture).unsqueeze(0), [picture.size])
        if finding is None:
            raise UserError(NOT_FINITE)
        return finding

    def localize_files(
        self, paths: Sequence[Path], batch_size: int = 8, num_workers: int = 0
    ) -> Iterator[tuple[Path, Finding | str]]:
        """Localises files of any number in batches, in order.

        Args:
            paths: picture files.
            batch_size: pictures in a batch.
            num_workers: processes that read pictures.

        Yields:
            (path, finding), or (path, sentence) for a file that cannot be read or gives no finite output.
        """
        loader = build_loose_loader(paths, self.question.resize_size, batch_size, num_workers, self.device)
        for batch in progress_bar(loader, "pictures"):
            readable = batch.readable.tolist()
            found: Iterator[Finding | None] = iter(())
            if any(readable):
                found = iter(self._find(batch.images[batch.readable], batch.sizes[batch.readable].tolist()))
            for index, error, is_readable in zip(batch.indices.tolist(), batch.errors, readable, strict=True):
                finding = next(found) if is_readable else error
                yield paths[index], f"{paths[index]}: {NOT_FINITE}" if finding is None else finding

    @torch.no_grad()
    def _find(self, images: Tensor, sizes: Sequence[Sequence[int]]) -> list[Finding | None]:
        question = self.question
        with torch.autocast(self.device.type, enabled=question.amp):
            encoding = self.model.encode_crops(*cut_crops(images.to(self.device, non_blocking=True), question))
            maps = make_maps(self.model, encoding, (question.main,), labels=None)[question.main]
        probabilities = encoding.logits.float().softmax(dim=-1).mean(dim=1)
        best = rank_classes(probabilities, min(5, len(self.class_names)))
        spatial_maps = maps[:, 0].float().cpu().numpy()
        rows = zip(images, sizes, best.tolist(), probabilities.gather(1, best).tolist(), spatial_maps, strict=True)
        finite = (probabilities.isfinite().all(dim=1) & maps.isfinite().all(dim=(1, 2, 3))).tolist()
        return [self._finding(*row) if good else None for row, good in zip(rows, finite, strict=True)]

    def _finding(
        self,
        image: Tensor,
        size: Sequence[int],
        classes: list[int],
        probabilities: list[float],
        spatial_map: np.ndarray,
    ) -> Finding:
        question = self.question
        side = question.crop_size
        score_map = question.score_map(self.model, question.main, spatial_map)
        box = question.protocol.boxes(score_map, (question.thresholds[question.main],))[0]
        limits = np.array([*size, *size])
        sizes = (size, question.resize_size, side)
        return Finding(
            size=(size[0], size[1]),
            classes=tuple(classes),
            names=tuple(self.class_names[index] for index in classes),
            probabilities=tuple(probabilities),
            box=crop_boxes_to_image(box, *sizes).clip(0, limits),
            score_map=score_map,
            seen=image,
            region=crop_boxes_to_image([0, 0, side, side], *sizes).clip(0, limits),
        )
