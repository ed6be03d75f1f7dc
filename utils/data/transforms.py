"""From a picture to normalised crops: the training augmentation, the evaluation's resize, the ten crops.

Loaders hand on bytes, (3, H, W) uint8; the device that computes makes them floats by :func:`normalize`. So they travel
at a quarter of the size, and the processes that read pictures have time for more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.models.recipe import BILINEAR
from utils.system.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Where the centre crop stands among the ten: 4 corners, centre, then the mirrored five.
CENTRE_CROP = 4


class TrainingTransform:
    """The training augmentation: resize (aspect ignored), random crop, random mirror.

    Called with an RGB PIL image and the generator to draw from, it gives (3, S, S) uint8 pixels.

    Args:
        resize_size: side of the resized picture, in pixels (256 in the paper's recipe).
        crop_size: side S of the crop (224).
        resample: `bilinear`, or `bicubic` as the segmentation has it.

    Raises:
        UsageError: a size is not positive, or the crop is larger than the resized picture.
    """

    def __init__(self, resize_size: int, crop_size: int, resample: str = BILINEAR) -> None:
        check_sizes(resize_size, crop_size)
        self._resample = Image.Resampling[resample.upper()]
        self._resize_size = resize_size
        self._crop_size = crop_size
        self._places = resize_size - crop_size + 1

    def __call__(self, picture: Image.Image, generator: np.random.Generator) -> Tensor:
        top, left = generator.integers(self._places, size=2).tolist()
        crop = _resize(picture, self._resize_size, self._resample)[
            top : top + self._crop_size, left : left + self._crop_size
        ]
        return _as_tensor(crop[:, ::-1] if generator.random() < 0.5 else crop)


def resize(picture: Image.Image, resize_size: int) -> Tensor:
    """The evaluation's resize (aspect ignored, bilinear): an RGB PIL image -> (3, R, R) uint8; crops are cut later."""
    return _as_tensor(_resize(picture, resize_size))


def evaluation_transform(resize_size: int) -> Callable[[Image.Image], Tensor]:
    """Builds the evaluation's transform of single pictures: :func:`resize`, then :func:`normalize`.

    Args:
        resize_size: side R of the resized picture, in pixels.

    Returns:
        A function: RGB PIL image -> (3, R, R) float32, normalised with ImageNet's mean and standard deviation.

    Raises:
        UsageError: the size is not positive.
    """
    check_sizes(resize_size, resize_size)
    return lambda picture: normalize(resize(picture, resize_size))


def normalize(pixels: Tensor, channels_last: bool = False) -> Tensor:
    """Normalises pixels with ImageNet's mean and standard deviation, on their device.

    The values are those of torchvision's `ToTensor` and `Normalize`, to the last bit: the same divisions, by tensors,
    since CUDA multiplies by the reciprocal of a number.

    Args:
        pixels: (..., 3, H, W) uint8, RGB.
        channels_last: the memory layout of the result, for (B, 3, H, W).

    Returns:
        The same shape, float32.
    """
    full, mean, std = _constants(pixels.device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return pixels.to(torch.float32, memory_format=layout, copy=True).div_(full).sub_(mean).div_(std)


@lru_cache
@torch.inference_mode(False)  # training may get what an evaluation has made
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`normalize` computes with; copied to a device once, since a copy waits for it."""
    values = torch.tensor(255.0), torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    full, mean, std = (value.to(device) for value in values)
    return full, mean, std


def stack_pixels(pictures: Sequence[Tensor]) -> Tensor:
    """Stacks B pictures (3, H, W) uint8 of :func:`resize` as (B, 3, H, W), which lies in memory as they do."""
    return torch.stack([picture.permute(1, 2, 0) for picture in pictures]).permute(0, 3, 1, 2)


def as_image(pixels: Tensor) -> np.ndarray:
    """For figures: (..., 3, H, W) uint8 -> (..., H, W, 3) on the CPU."""
    return pixels.movedim(-3, -1).cpu().numpy()


def ten_crop(images: Tensor, crop_size: int) -> Tensor:
    """Cuts four corners, the centre and their mirrors out of resized images, (B, 3, R, R) -> (B, 10, 3, S, S).

    Entry CENTRE_CROP of dimension 1 is :func:`centre_crop`.

    Raises:
        UsageError: the crop is larger than the images.
    """
    check_sizes(min(images.shape[-2:]), crop_size)
    height, width = images.shape[-2:]
    bottom, right = height - crop_size, width - crop_size
    corners = (0, 0), (0, right), (bottom, 0), (bottom, right)
    crops = [
        crop
        for side in (images, images.flip(-1))
        for crop in (*(_cut(side, *corner, crop_size) for corner in corners), centre_crop(side, crop_size))
    ]
    return torch.stack(crops, dim=1)


def centre_crop(images: Tensor, crop_size: int) -> Tensor:
    """Cuts the centre out of resized images, (B, 3, R, R) -> (B, 3, S, S).

    Raises:
        UsageError: the crop is larger than the images.
    """
    check_sizes(min(images.shape[-2:]), crop_size)
    # An odd rest is rounded to even, as torchvision does.
    top, left = (round((side - crop_size) / 2) for side in images.shape[-2:])
    return _cut(images, top, left, crop_size)


def _cut(images: Tensor, top: int, left: int, size: int) -> Tensor:
    return images[..., top : top + size, left : left + size]


def _resize(picture: Image.Image, side: int, resample: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """(side, side, 3) uint8."""
    return np.asarray(picture.resize((side, side), resample))


def _as_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W), a view of a copy: arrays of PIL cannot be written, mirrored ones not be viewed."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def check_sizes(resize_size: int, crop_size: int) -> None:
    """Raises UsageError unless 1 <= crop_size <= resize_size."""
    if not 1 <= crop_size <= resize_size:
        raise UsageError(
            f"a crop of {crop_size} pixels does not fit into a picture of {resize_size}; choose --crop_size and "
            "--resize_size so that 1 <= crop_size <= resize_size"
        )
