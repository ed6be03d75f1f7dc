"""Where the cells of a network's maps really look, told by unlabelled pictures and their mirror images.

The layers' geometry says which pixel is the middle of a cell's receptive field. Where the cell *looks* can be another
place: kernels that were trained with another padding pull it, and so does training. But a network that looks d pixels
beside where its maps are drawn does so in a mirrored picture, too, and on the other side of the object. So the map of
a picture and the map of its mirror image, mirrored back, agree where both are drawn right, and nowhere else. No box and
no label takes part. (A map that is drawn too large or too small about the middle agrees with its mirror image all the
same: only a place can be told so, and strides are taken from the layers.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from utils.data.evaluation import build_evaluation_loader
from utils.data.split import Split, spread, take
from utils.data.transforms import centre_crop, normalize
from utils.evaluation.kinds import MapKind
from utils.evaluation.maps import make_maps
from utils.evaluation.spec import EvaluationSpec, grid_of
from utils.models.bas import BAS, rank_classes
from utils.models.taps import Grid, Offset
from utils.system.errors import UserError
from utils.system.progress import progress_bar

PICTURES = 200
# Offsets are looked for as far as a map of TensorFlow's weights behind five strided layers is off, and a bit.
REACH, STEP = 24.0, 0.5  # pixels
LEAST_SHARE = 0.4  # of the crop's side that both maps have to cover
NEAR, MARGIN = 4.0, 8.0  # pixels: around the best shift, what is compared anew; and what is left out at the maps' edges
RESAMPLINGS = 200
LEAST_AGREEMENT = 0.4  # of VGG16 that had learnt birds for 10 epochs 0.3, for 25 epochs 0.8; of MobileNetV1 0.9
TOO_LITTLE = ": so little that they hardly follow what is seen, and tell no place to rely on"
ROUNDING = 1e-5  # of a map's range: less than this is no difference between maps


class Calibration(NamedTuple):
    """What was found for one kind of map."""

    offset: Offset
    error: Offset  # standard errors, of pictures drawn again
    agreement: float  # mean correlation of a map with its mirrored one, of both directions
    agreement_before: float  # the same by the layers' geometry
    pictures: int

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; :func:`read_calibration` takes them back."""
        return {**self._asdict(), "offset": list(self.offset), "error": list(self.error)}

    def line(self, title: str) -> str:
        """For the screen."""
        if not self.pictures:
            return f"{title}: drawn by its layers' geometry, for its maps are the same everywhere or for all pictures"
        x, y = self.offset
        where = f"{abs(x):.1f} px {'left' if x < 0 else 'right'}, {abs(y):.1f} {'up' if y < 0 else 'down'}"
        return (
            f"{title}: drawn {where} of where its layers' geometry says (± {max(self.error):.1f}), by {self.pictures} "
            f"pictures and their mirror images, whose maps agree by {self.agreement:.2f} there and by "
            f"{self.agreement_before:.2f} here{TOO_LITTLE if self.agreement < LEAST_AGREEMENT else ''}"
        )


def read_calibration(record: Mapping[str, Any]) -> Calibration:
    """What :meth:`Calibration.record` gave; ValueError, KeyError or TypeError if it is none."""
    values = {name: float(record[name]) for name in ("agreement", "agreement_before")}
    (x, y), (error_x, error_y) = record["offset"], record["error"]
    offset, error = Offset(float(x), float(y)), Offset(float(error_x), float(error_y))
    if not np.isfinite([*values.values(), *offset, *error]).all() or max(map(abs, offset)) > 2 * REACH:
        raise ValueError("an offset is no number of pixels, or beyond all measure")
    return Calibration(offset, error, pictures=int(record["pictures"]), **values)


def calibrate(
    model: BAS,
    split: Split,
    spec: EvaluationSpec,
    kinds: Sequence[MapKind],
    device: torch.device,
    batch_size: int,
    num_workers: int,
    pictures: int = PICTURES,
) -> dict[MapKind, Calibration]:
    """Estimates where the cells of several kinds of maps look, on pictures spread over a split; see :func:`estimate`.

    Args:
        model: on `device`, in evaluation mode.
        split: best the training pictures; their labels and boxes take no part: maps are those of the predicted classes.
        spec: sizes and precision.
        kinds: which maps, of :func:`kinds_to_calibrate`.
        device: where the model is.
        batch_size, num_workers: of the loader.
        pictures: at most so many.

    Raises:
        UserError: no picture can be read.
    """
    if not kinds:
        return {}
    some = take(split, list(spread(np.ones(len(split)), pictures)))
    loader = build_evaluation_loader(some, spec.resize_size, batch_size, num_workers, device)
    found: dict[MapKind, list[list[np.ndarray]]] = {kind: [[], [], []] for kind in kinds}
    for batch in progress_bar(loader, "where maps look"):
        if not batch.readable.any():
            continue
        pixels = centre_crop(
            batch.images[batch.readable].to(device, non_blocking=device.type == "cuda"), spec.crop_size
        )
        crops = normalize(pixels)
        labels = None
        for view, images in enumerate((crops, crops.flip(-1), crops.flip(-2))):
            with torch.autocast(device.type, enabled=spec.amp), torch.no_grad():
                encoding = model.encode_crops(images.unsqueeze(1), 0)
                if labels is None:
                    labels = rank_classes(encoding.scores, 1).squeeze(1)
                maps = make_maps(model, encoding, kinds, labels)
            for kind, values in maps.items():
                found[kind][view].append(values[:, 0].float().cpu().numpy())
    if not any(views[0] for views in found.values()):
        raise UserError(f"none of the {len(some)} pictures of the {split.name} split could be read")
    calibrations = {}
    for kind, views in found.items():
        grid = grid_of(model, kind)
        assert grid is not None  # `kinds_to_calibrate` has seen to it
        seen, across, down = (np.concatenate(batches) for batches in views)
        calibrations[kind] = estimate(seen, across, down, grid, spec.crop_size)
    return calibrations


def kinds_to_calibrate(model: BAS, spec: EvaluationSpec) -> list[MapKind]:
    """The kinds of maps that have cells; of those that differ in k, the first, whose offset holds for all."""
    first: dict[str, MapKind] = {}
    for kind in spec.thresholds:
        first.setdefault(kind.kind, kind)
    return [kind for kind in first.values() if grid_of(model, kind) is not None]


def with_offsets(spec: EvaluationSpec, found: Mapping[MapKind, Calibration]) -> EvaluationSpec:
    """The spec with the offsets that were found."""
    return replace(spec, offsets={kind.kind: one.offset for kind, one in found.items()})


def offset_key(kind: MapKind, spec: EvaluationSpec) -> str:
    """Under which the offset of a kind of map is kept: it holds for one k and one size of pictures."""
    return f"{kind.title} at {spec.resize_size}/{spec.crop_size}"


def estimate(maps: np.ndarray, across: np.ndarray, down: np.ndarray, grid: Grid, side: int) -> Calibration:
    """Where the cells of maps look, by those of mirrored pictures.

    Args:
        maps: (N, h, w) of N pictures.
        across: (N, h, w) of their mirror images, left and right exchanged.
        down: (N, h, w) of their mirror images, above and below exchanged.
        grid: where the cells look by the layers' geometry.
        side: of the pictures in pixels.

    Returns:
        The offsets; of no picture, and 0, where every map is the same everywhere or for all pictures, or not finite.
    """
    views = np.stack([maps, across, down])
    views = views[:, np.isfinite(views).all(axis=(0, 2, 3))]
    spans = np.ptp(views, axis=(2, 3))
    views, spans = views[:, (spans > 0).all(axis=0)], spans[:, (spans > 0).all(axis=0)]
    if views.shape[1] > 1:
        # What all maps have in common, at borders above all, stays where it is whatever a picture shows.
        views = views - views.mean(axis=1, keepdims=True)
        views = views[:, (np.ptp(views, axis=(2, 3)) > ROUNDING * spans).all(axis=0)]
    seen, across, down = views
    count = len(seen)
    if not count:
        return Calibration(Offset(), Offset(), 0.0, 0.0, 0)
    draws = np.random.default_rng(0).integers(0, count, (RESAMPLINGS, count))
    axes = [
        _along_x(seen, across, grid, side, draws),
        _along_x(seen.swapaxes(1, 2), down.swapaxes(1, 2), grid, side, draws),
    ]
    places, errors, best, before = zip(*axes, strict=True)
    return Calibration(Offset(*places), Offset(*errors), float(np.mean(best)), float(np.mean(before)), count)


def _along_x(
    maps: np.ndarray, mirrored: np.ndarray, grid: Grid, side: int, draws: np.ndarray
) -> tuple[float, float, float, float]:
    """Offset along x, its standard error, the agreement there and by the layers' geometry.

    First, each shift looks at all that both maps cover with it. Then those around the best one look at the same part of
    the pictures, clear of the maps' edges: a shift is not to be better because it has more to look at.
    """
    shifts = np.arange(-REACH, REACH + STEP / 2, STEP)
    halves = np.array([_half_width(maps.shape[2], grid, side, shift) for shift in shifts])
    wide = 2 * halves >= LEAST_SHARE * side
    shifts, halves = shifts[wide], halves[wide]
    all_of_it = _agreement(maps, mirrored, grid, side, shifts, halves).mean(axis=0)
    rough = _peak(shifts, all_of_it)
    near = np.abs(shifts - rough) <= NEAR
    half = max(halves[near].min() - MARGIN, LEAST_SHARE * side / 2)
    curves = _agreement(maps, mirrored, grid, side, shifts[near], np.minimum(halves[near], half))
    place = _peak(shifts[near], curves.mean(axis=0))
    error = np.std([_peak(shifts[near], curves[draw].mean(axis=0)) for draw in draws])
    there, by_layers = np.interp([place, 0], shifts, all_of_it)
    return round(place, 2), round(float(error), 2), float(there), float(by_layers)


def _half_width(cells: int, grid: Grid, side: int, shift: float) -> float:
    """How far from the picture's middle, to either side, cells that are drawn `shift` further on lie all around."""
    middle, first = (side - 1) / 2, grid.first + shift
    return min(middle - first, first + (cells - 1) * grid.stride - middle, middle)


def _agreement(
    maps: np.ndarray, mirrored: np.ndarray, grid: Grid, side: int, shifts: np.ndarray, halves: np.ndarray
) -> np.ndarray:
    """How well maps agree with those of mirrored pictures along x, for each shift of the drawing.

    Args:
        maps, mirrored: (N, h, w).
        grid: see :func:`estimate`.
        side: see :func:`estimate`.
        shifts: (D,) in pixels.
        halves: (D,) how far from the picture's middle, to either side, to compare.

    Returns:
        (N, D) correlations.
    """
    cells, columns = maps.shape[2], []
    for shift, half in zip(shifts, halves, strict=True):
        away = np.linspace(-half, half, side)  # from the middle; the mirrored map is read the other way
        place = ((side - 1) / 2 + away - grid.first - shift) / grid.stride
        weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells))).astype(np.float32)
        columns.append(_correlate(maps @ weights.T, mirrored @ weights[::-1].T))
    return np.stack(columns, axis=1)


def _correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, h, w) twice -> (N,) Pearson's correlation; 0 where one of them is the same everywhere."""
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (a, b))
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (a, b))
    sizes = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), sizes, out=np.zeros(len(a)), where=sizes > 0)


def _peak(shifts: np.ndarray, agreement: np.ndarray) -> float:
    """The shift of the highest agreement, between the tried ones by the parabola through three; 0 if all are alike."""
    best = int(agreement.argmax())
    if agreement[best] == agreement.min():
        return 0.0
    if not 0 < best < len(shifts) - 1:
        return float(shifts[best])
    left, middle, right = agreement[best - 1 : best + 2]
    bend = left - 2 * middle + right
    part = 0.0 if bend == 0 else 0.5 * (left - right) / bend
    return float(shifts[best] + part * STEP)
