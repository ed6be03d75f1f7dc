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

from utils.data.dataset import Dataset, own_dataset
from utils.data.evaluation import build_loose_loader
from utils.data.images import as_upright_rgb
from utils.data.transforms import resize
from utils.evaluation.maps import make_maps
from utils.evaluation.run import cut_crops
from utils.evaluation.spec import EvaluationSpec, build_spec
from utils.inference.arguments import EvaluationSettings
from utils.inference.loading import Loaded, load
from utils.inference.placing import place_maps
from utils.localization.boxes import crop_boxes_to_image
from utils.models.bas import BAS, rank_classes
from utils.system.errors import UsageError, UserError
from utils.system.options import check
from utils.system.progress import progress_bar

NOT_FINITE = "the model's output is not finite; try another checkpoint"


@dataclass(frozen=True, eq=False)  # of arrays: a finding equals itself alone
class Finding:
    """What the network says of one picture.

    Attributes:
        size: (width, height) of the picture as a viewer shows it, EXIF rotation applied.
        classes: the best five (or K) class indices, best first.
        names: their names.
        probabilities: theirs, of all classes' sum 1.
        box: (4,) float64 xyxy in pixels of `size`.
        score_map: (S, S) float32 in [0, 1], the normalised map of the crop that the network saw.
        seen: (3, R, R) uint8, the resized picture that crops were cut from.
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
        spec: protocol, sizes, crops, and the one kind of map with its threshold.
        device: where to compute.
    """

    def __init__(self, model: BAS, class_names: Sequence[str], spec: EvaluationSpec, device: torch.device) -> None:
        if len(class_names) != model.num_classes:
            raise ValueError(f"{len(class_names)} class names for {model.num_classes} classes")
        self.model = model
        self.class_names = tuple(class_names)
        self.spec = spec
        self.device = device

    def __call__(self, picture: Image.Image | np.ndarray | str | os.PathLike[str]) -> Finding:
        """Localises one picture, whatever :func:`utils.data.images.as_upright_rgb` takes: a PIL image or a file, whose
        EXIF rotation is applied, or an array (H, W, 3) of uint8 in RGB order.

        Raises:
            UserError: the picture cannot be decoded, or the network's output is not finite.
            TypeError: it is no picture.
        """
        picture = as_upright_rgb(picture)
        (finding,) = self._find(resize(picture, self.spec.resize_size).unsqueeze(0), [picture.size])
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
        loader = build_loose_loader(paths, self.spec.resize_size, batch_size, num_workers, self.device)
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
        spec = self.spec
        with torch.autocast(self.device.type, enabled=spec.amp):
            encoding = self.model.encode_crops(*cut_crops(images.to(self.device), spec))
            maps = make_maps(self.model, encoding, (spec.main,), labels=None)[spec.main]
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
        spec = self.spec
        side = spec.crop_size
        score_map = spec.score_map(self.model, spec.main, spatial_map)
        box = spec.protocol.boxes(score_map, (spec.thresholds[spec.main],))[0]
        limits = np.array([*size, *size])
        sizes = (size, spec.resize_size, side)
        return Finding(
            size=(size[0], size[1]),
            classes=tuple(classes),
            names=tuple(self.class_names[index] for index in classes),
            probabilities=tuple(probabilities),
            box=crop_boxes_to_image(box, *sizes).clip(0, limits),
            score_map=score_map,
            seen=image.clone(),  # lets go of the batch
            region=crop_boxes_to_image([0, 0, side, side], *sizes).clip(0, limits),
        )


def build_localizer(loaded: Loaded, kind: str = "bas", ten_crops: bool | None = None, **given: Any) -> Localizer:
    """The function that `--images` and `load_localizer` share.

    Args:
        loaded: the network and its settings.
        kind: of map.
        ten_crops: the protocol's rule where None.
        given: the settings that :func:`load` was given; a threshold holds for every kind of map.
    """
    threshold = given.get("threshold")
    top_k = loaded.recipe.top_k  # whatever the protocol: there is no true class
    spec = build_spec(loaded.recipe, loaded.protocol, (kind,), ten_crops, threshold, top_k, amp=loaded.amp)
    spec = place_maps(loaded, spec)
    return Localizer(loaded.model, loaded.class_names, spec, loaded.device)


def load_localizer(
    dataset: Dataset,
    arch: str,
    checkpoint: str | Path | None = None,
    *,
    map: str = "bas",
    tencrop: bool | None = None,
    recipe: str | None = None,
    dataset_dir: str | Path | None = None,
    **options: Any,
) -> Localizer:
    """Loads a checkpoint as a function from pictures (PIL images, arrays, files) to class, box and map.

    Args:
        dataset: see :func:`load`.
        arch: `vgg`, `mobilenet`, `resnet` or `inception`.
        checkpoint: a file; the highest epoch in `logs/<arch>/` where None.
        map: `bas`, `cam`, `gradcam` or `center`.
        tencrop: class scores from ten crops or from one; the protocol's rule, ten, where None.
        recipe: the paper, `cvpr` or `ijcv`; by the file where None.
        dataset_dir: a data set of your own, in whose `logs` the checkpoint is looked for.
        options: what else :func:`load` takes: `device`, `amp`, `protocol`, `classes`, and settings such as
            `threshold`, `top_k`, `align_maps`, `resize_size`, `crop_size`, `tap`, `final_relu`.

    Returns:
        A :class:`utils.inference.localizer.Localizer`.

    Raises:
        UserError: the file is missing, damaged or another model's; an option that cannot work.
    """
    check(EvaluationSettings, {"map": map, "tencrop": tencrop, "dataset_dir": dataset_dir})
    if "name" in options:
        raise UsageError("there is no option 'name'; recipe='ijcv' or 'cvpr' chooses the paper")
    source = own_dataset(dataset, Path(dataset_dir)) if dataset_dir else dataset
    loaded = load(source, arch, checkpoint, name=recipe, **options)
    return build_localizer(loaded, map, tencrop, **options)
