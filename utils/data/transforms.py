"""From a picture to normalised crops: the training augmentation, the evaluation's resize, the ten crops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional as TF

from utils.system.errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Where the centre crop stands among the ten: 4 corners, centre, then the mirrored five.
CENTRE_CROP = 4


class TrainingTransform:
    """The training augmentation: resize (aspect ignored, bilinear), random crop, random mirror, normalise.

    Called with an RGB PIL image and the generator to draw from, it gives (3, S, S) float32, normalised with ImageNet's
    mean and standard deviation.

    Args:
        resize_size: side of the resized picture, in pixels (256 in the paper's recipe).
        crop_size: side S of the crop (224).

    Raises:
        UsageError: a size is not positive, or the crop is larger than the resized picture.
    """

    def __init__(self, resize_size: int, crop_size: int) -> None:
        check_sizes(resize_size, crop_size)
        self._resize = transforms.Resize((resize_size, resize_size))
        self._crop_size = crop_size
        self._places = resize_size - crop_size + 1
        self._to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])

    def __call__(self, picture: Image.Image, generator: np.random.Generator) -> Tensor:
        top, left = generator.integers(self._places, size=2).tolist()
        crop = TF.crop(self._resize(picture), top, left, self._crop_size, self._crop_size)
        return self._to_tensor(TF.hflip(crop) if generator.random() < 0.5 else crop)


def evaluation_transform(resize_size: int) -> Callable[[Image.Image], Tensor]:
    """Builds the evaluation's transform: resize (aspect ignored, bilinear) and normalise; crops are cut later.

    Args:
        resize_size: side R of the resized picture, in pixels.

    Returns:
        A function: RGB PIL image -> (3, R, R) float32, normalised with ImageNet's mean and standard deviation.

    Raises:
        UsageError: the size is not positive.
    """
    check_sizes(resize_size, resize_size)
    return transforms.Compose(
        [
            transforms.Resize((resize_size, resize_size)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def ten_crop(images: Tensor, crop_size: int) -> Tensor:
    """Cuts four corners, the centre and their mirrors out of resized images, (B, 3, R, R) -> (B, 10, 3, S, S).

    Entry CENTRE_CROP of dimension 1 is :func:`centre_crop`.

    Raises:
        UsageError: the crop is larger than the images.
    """
    check_sizes(min(images.shape[-2:]), crop_size)
    return torch.stack(TF.ten_crop(images, crop_size), dim=1)


def centre_crop(images: Tensor, crop_size: int) -> Tensor:
    """Cuts the centre out of resized images, (B, 3, R, R) -> (B, 3, S, S).

    Raises:
        UsageError: the crop is larger than the images.
    """
    # Checked because torchvision would pad with zeros.
    check_sizes(min(images.shape[-2:]), crop_size)
    return TF.center_crop(images, crop_size)


def denormalize(images: Tensor) -> np.ndarray:
    """Undoes the normalisation for figures: (..., 3, H, W) float -> (..., H, W, 3) uint8 RGB on the CPU."""
    mean = images.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = images.new_tensor(IMAGENET_STD).view(3, 1, 1)
    pixels = (images.detach() * std + mean).mul(255).round().clamp(0, 255)
    return pixels.to(torch.uint8).movedim(-3, -1).cpu().numpy()


def check_sizes(resize_size: int, crop_size: int) -> None:
    """Raises UsageError unless 1 <= crop_size <= resize_size."""
    if not 1 <= crop_size <= resize_size:
        raise UsageError(
            f"a crop of {crop_size} pixels does not fit into a picture of {resize_size}; choose --crop_size and "
            "--resize_size so that 1 <= crop_size <= resize_size"
        )
