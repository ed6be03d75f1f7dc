"""Protects the crops: those of the authors, in their order, from pictures resized as theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from tests.splits import make_split
from utils.data.transforms import (
    CENTRE_CROP,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TrainingTransform,
    as_image,
    centre_crop,
    evaluation_transform,
    normalize,
    resize,
    stack_pixels,
    ten_crop,
)
from utils.system.errors import UsageError


def test_evaluation_crops_equal_the_crops_of_pictures(tmp_path):
    """Cropping the normalised tensor is the same as cropping the PIL picture first, for all ten crops in order."""
    pictures = [Image.open(path) for path in make_split(tmp_path, 2).paths]
    images = torch.stack([evaluation_transform(32)(picture) for picture in pictures])
    assert images.shape == (2, 3, 32, 32)
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    expected = []
    for picture in pictures:
        resized = picture.resize((32, 32), Image.Resampling.BILINEAR)
        corners = [(0, 0), (8, 0), (0, 8), (8, 8), (4, 4)]
        crops = [resized.crop((x, y, x + 24, y + 24)) for x, y in corners]
        mirrored = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        crops += [mirrored.crop((x, y, x + 24, y + 24)) for x, y in corners]
        expected.append(torch.stack([finish(crop) for crop in crops]))
    crops = ten_crop(images, 24)
    assert crops.shape == (2, 10, 3, 24, 24)
    assert torch.equal(crops, torch.stack(expected))
    assert torch.equal(crops[:, CENTRE_CROP], centre_crop(images, 24))


def test_training_transform_crops_at_random_from_the_resized_picture(tmp_path):
    """Each result is one of the possible crops of the picture resized without regard to its aspect, or its mirror."""
    picture = Image.open(make_split(tmp_path, 1).paths[0])
    whole = resize(picture, 10)
    transform = TrainingTransform(10, 8)
    candidates = {}
    for flip in (False, True):
        for y in range(3):
            for x in range(3):
                crop = whole[:, y : y + 8, x : x + 8]
                candidates[(flip, y, x)] = crop.flip(-1) if flip else crop
    generator = np.random.default_rng(0)
    seen = dict.fromkeys(candidates, 0)
    for _ in range(900):
        result = transform(picture, generator)
        matches = [key for key, crop in candidates.items() if torch.equal(result, crop)]
        assert len(matches) == 1
        seen[matches[0]] += 1
    # 50 of each are expected; the standard deviation is 7.
    assert all(20 <= count <= 80 for count in seen.values()), seen


@pytest.mark.parametrize(
    "call",
    [
        lambda: TrainingTransform(224, 256),
        lambda: TrainingTransform(10, 0),
        lambda: evaluation_transform(0),
        lambda: ten_crop(torch.zeros(1, 3, 8, 8), 9),
        lambda: centre_crop(torch.zeros(1, 3, 8, 8), 9),
    ],
)
def test_impossible_sizes_name_the_options(call):
    """A crop larger than the picture is refused, where torchvision would pad or fail with a traceback."""
    with pytest.raises(UsageError, match="--crop_size and --resize_size"):
        call()


def test_figures_show_the_pixels(tmp_path):
    """Figures show the picture itself, single or in a batch."""
    picture = Image.open(make_split(tmp_path, 1).paths[0]).resize((20, 20), Image.Resampling.BILINEAR)
    pixels = resize(picture, 20)
    assert (as_image(pixels) == np.asarray(picture)).all()
    assert as_image(stack_pixels([pixels])).shape == (1, 20, 20, 3) and as_image(pixels).dtype == np.uint8


def test_bytes_become_torchvisions_floats():
    """Protects exactness: every value of every channel, in both layouts, is that of ToTensor and Normalize."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(np.stack([values, values[::-1], values.T], axis=2))
    expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])(picture)
    pixels = stack_pixels([resize(picture, 16)] * 2)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    for channels_last in (False, True):
        images = normalize(pixels, channels_last)
        assert torch.equal(images, torch.stack([expected] * 2))
        assert images.is_contiguous() != channels_last
    assert torch.equal(evaluation_transform(16)(picture), expected)
    assert int(pixels.max()) == 255  # not normalised in place


def test_what_is_normalised_stays_as_it_was():
    """Protects a caller's pixels, also of floats, which need no conversion that would copy them."""
    pixels = torch.full((3, 4, 4), 255.0)
    normalize(pixels)
    assert (pixels == 255).all()
