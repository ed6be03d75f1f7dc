"""Maps of a picture's own classes, from several scales and mirror images (the authors' make_cam)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from utils.data.transforms import normalize
from utils.models.bas import BAS
from utils.segmentation.kinds import BAS_MAPS, CAM, SCALES

EPSILON = 1e-5
STRIDE, BLOCK = 4, 16  # of the small maps; what the large ones are computed in whole multiples of


class PictureMaps(NamedTuple):
    """The maps of one picture, of its n classes; the highest value of each is just below 1.

    Attributes:
        keys: (n,) int64, the classes, from 0.
        cam: (n, ceil(H / 4), ceil(W / 4)) float32.
        high_res: (n, H, W) float32.
    """

    keys: np.ndarray
    cam: np.ndarray
    high_res: np.ndarray


@torch.no_grad()
def make_maps(
    model: BAS,
    picture: Image.Image,
    classes: Sequence[int],
    device: torch.device,
    kind: str = BAS_MAPS,
    cam_model: BAS | None = None,
    scales: Sequence[float] = SCALES,
) -> tuple[Tensor, Tensor]:
    """Makes the small and the large maps of a picture, see :class:`PictureMaps`, on the device still.

    Args:
        model: in evaluation mode, on `device`.
        picture: RGB, W x H.
        classes: those that the picture has, from 0; no other map is computed.
        device: where the model is.
        kind: of KINDS: the generator's foreground maps; the class activation maps; or both, each brought to a highest
            value of 1, added, and brought there again.
        cam_model: whose class activation maps; the model's own where None.
        scales: of the picture.
    """
    cam_model = cam_model or model
    of_bas: list[Tensor] = []
    of_cam: list[Tensor] = []
    chosen = torch.tensor(list(classes), device=device)
    for scale in scales:
        pair = mirrored_pair(picture, scale, device, model.channels_last)
        features = model.f1(pair) if kind != CAM else None
        if features is not None:
            of_bas.append(add_mirrored(model.foreground_maps(features, chosen.expand(2, -1))))
        if kind != BAS_MAPS:
            if cam_model is not model or features is None:
                features = cam_model.f1(pair)
            of_cam.append(add_mirrored(F.relu(cam_model.f2(features)[:, chosen])))
    size = picture.height, picture.width
    merged = [merge_scales(maps, size) for maps in (of_bas, of_cam) if maps]
    return fuse(merged)


def mirrored_pair(picture: Image.Image, scale: float, device: torch.device, channels_last: bool) -> Tensor:
    """A picture at a scale, and its mirror image: (2, 3, h, w) normalised, in this memory layout."""
    if scale != 1:
        size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(device)
    return normalize(torch.stack([pixels, pixels.flip(-1)]), channels_last)


def add_mirrored(maps: Tensor) -> Tensor:
    """The maps of a picture and its mirror image, (2, n, h, w), as one: (n, h, w)."""
    return maps[0] + maps[1].flip(-1)


def merge_scales(maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Adds up the maps of several scales.

    Args:
        maps: (n, h, w) each.
        size: (H, W) of the picture.

    Returns:
        (n, ceil(H / 4), ceil(W / 4)) and (n, H, W), see :class:`PictureMaps`.
    """
    height, width = size
    small = math.ceil(height / STRIDE), math.ceil(width / STRIDE)
    whole = BLOCK * math.ceil(height / BLOCK), BLOCK * math.ceil(width / BLOCK)
    large = _add_up(maps, whole)[:, :height, :width]
    return _to_one(_add_up(maps, small)), _to_one(large)


def fuse(merged: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """One kind of maps as it is, or the sum of two, brought to a highest value of 1 again."""
    if len(merged) == 1:
        return merged[0]
    small, large = (_to_one(first + second) for first, second in zip(*merged, strict=True))
    return small, large


def _add_up(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    resized = [F.interpolate(one[None], size, mode="bilinear", align_corners=False)[0] for one in maps]
    return torch.stack(resized).sum(dim=0)


def _to_one(maps: Tensor) -> Tensor:
    return maps / (maps.amax(dim=(1, 2), keepdim=True) + EPSILON)
