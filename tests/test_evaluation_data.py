"""Protects what an evaluation reads: every picture in its place with its mask, and bad ones passed over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from tests.splits import CPU, make_split, spoil
from tests.test_images import save_picture, save_rotated
from tests.test_masks import save_mask
from utils.data import evaluation, loader
from utils.data.evaluation import (
    EvaluationBatch,
    EvaluationImages,
    build_evaluation_loader,
    build_loose_loader,
    read_pictures,
)
from utils.data.images import read_image
from utils.data.masks import MaskFiles, read_mask
from utils.data.transforms import resize
from utils.system.errors import UsageError, UserError


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_goes_on_without_an_unreadable_picture(tmp_path, workers):
    """Everything stays in order and in its place; the bad picture is zeros, marked and explained."""
    split = make_split(tmp_path)
    good = resize(Image.open(split.paths[4]), 16)
    path = spoil(split, 2)
    batches = list(build_evaluation_loader(split, 16, 3, workers, CPU))
    assert [type(batch) for batch in batches] == [EvaluationBatch] * 2
    assert [len(batch.errors) for batch in batches] == [3, 2]
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    assert torch.cat([batch.labels for batch in batches]).tolist() == split.labels.tolist()
    assert torch.cat([batch.readable for batch in batches]).tolist() == [True, True, False, True, True]
    assert torch.cat([batch.sizes for batch in batches]).tolist() == [[40, 30], [42, 31], [0, 0], [46, 33], [48, 34]]
    assert torch.equal(batches[1].images[1], good)
    assert batches[0].images[2].count_nonzero() == 0 and batches[0].images[1].count_nonzero() > 0
    assert batches[0].errors[:2] == ("", "") and path in batches[0].errors[2]
    dtypes = {name: getattr(batches[0], name).dtype for name in ("images", "labels", "indices", "sizes", "readable")}
    assert list(dtypes.values()) == [torch.uint8, torch.int64, torch.int64, torch.int64, torch.bool]


def test_evaluation_batch_survives_pinning(tmp_path, monkeypatch):
    """CUDA's pinning thread rebuilds the batch; its fields must stay where they are."""
    batch = next(iter(build_evaluation_loader(make_split(tmp_path), 16, 5, 0, CPU)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    pinned = pin_memory(batch)
    assert isinstance(pinned, EvaluationBatch) and list(pinned.errors) == [""] * 5
    assert torch.equal(pinned.images, batch.images) and torch.equal(pinned.sizes, batch.sizes)


def test_evaluation_images_take_paths_that_are_not_ascii(tmp_path):
    """Paths are stored as bytes and must come back whole."""
    path = save_picture(tmp_path / "Grünfink ü" / "鳥.png", (7, 5))
    split = make_split(tmp_path, 1, paths=(path,))
    assert EvaluationImages(split, 8)[0][3] == (7, 5)


def make_masked_split(folder):
    """Five pictures: masks good, of another size, none, good but of an unreadable picture, good with ignored pixels."""
    split = make_split(folder)
    random = np.random.RandomState(1)
    sizes = [(30 + index, 40 + 2 * index) for index in range(5)]
    paths = [save_mask(folder / f"m{index}.png", random.rand(*size) < 0.5) for index, size in enumerate(sizes)]
    save_mask(paths[1], random.rand(7, 8) < 0.5)
    ignore = save_mask(folder / "ignore.png", random.rand(*sizes[4]) < 0.5)
    masks = {f"{index}.png": MaskFiles((paths[index],)) for index in (0, 1, 3)}
    spoil(split, 3)
    return replace(split, masks={**masks, "4.png": MaskFiles((paths[4],), ignore)})


@pytest.mark.parametrize("workers", [0, 1])
def test_masks_come_with_their_pictures(tmp_path, workers):
    """Each mask is its picture's; what is missing or unusable is all ignored, and only what is unusable is an error."""
    split = make_masked_split(tmp_path)
    batches = list(build_evaluation_loader(split, 16, 3, workers, CPU, crop_size=12, with_masks=True))
    masks = torch.cat([batch.masks for batch in batches])
    assert masks.shape == (5, 12, 12) and masks.dtype == torch.uint8
    for index, size in ((0, (40, 30)), (4, (48, 34))):
        assert (masks[index].numpy() == read_mask(split.masks[f"{index}.png"], size, 16, 12)).all()
    assert masks[0].unique().tolist() == [0, 1] and masks[4].unique().tolist() == [0, 1, 255]
    assert (masks[1:3] == 255).all()
    # The unreadable picture's, whose pixels are missed.
    assert (masks[3].numpy() == read_mask(split.masks["3.png"], None, 16, 12)).all() and masks[3].any()
    errors = [error for batch in batches for error in batch.mask_errors]
    assert [bool(error) for error in errors] == [False, True, False, False, False]
    assert str(tmp_path / "m1.png") in errors[1]
    plain = list(build_evaluation_loader(split, 16, 3, workers, CPU))
    for batch, bare in zip(batches, plain, strict=True):
        assert torch.equal(batch.images, bare.images) and batch.errors == bare.errors
        assert bare.masks is None and set(bare.mask_errors) == {""}


def test_masks_are_of_the_whole_picture_without_a_crop(tmp_path):
    """Where no crop is cut, as in wsolevaluation's protocol, the masks are not cropped either."""
    split = make_masked_split(tmp_path)
    batch = next(iter(build_evaluation_loader(split, 16, 5, 0, CPU, with_masks=True)))
    assert batch.masks.shape == (5, 16, 16)
    assert (batch.masks[0].numpy() == read_mask(split.masks["0.png"], (40, 30), 16, 16)).all()


def test_no_masks_in_the_split_or_an_impossible_crop(tmp_path):
    """Without any mask there is no tensor of them; a crop beyond the picture is refused before any is read."""
    split = make_split(tmp_path)
    batch = next(iter(build_evaluation_loader(split, 16, 5, 0, CPU, crop_size=12, with_masks=True)))
    assert batch.masks is None and batch.mask_errors == ("",) * 5
    with pytest.raises(UsageError, match="--crop_size and --resize_size"):
        build_evaluation_loader(split, 16, 5, 0, CPU, crop_size=17)


def test_each_picture_and_mask_is_read_once(tmp_path, monkeypatch):
    """Decoding is what a small network's evaluation waits for."""
    split = make_masked_split(tmp_path)
    read = {"pictures": [], "masks": []}
    monkeypatch.setattr(loader, "read_image", lambda *args: (read["pictures"].append(args), read_image(*args))[1])
    monkeypatch.setattr(evaluation, "read_mask", lambda *args: (read["masks"].append(args), read_mask(*args))[1])
    list(build_evaluation_loader(split, 16, 2, 0, CPU, crop_size=12, with_masks=True))
    assert (len(read["pictures"]), len(read["masks"])) == (5, 4)


def test_a_few_pictures(tmp_path):
    """Figures get the pictures that they ask for, as an evaluation reads them; a bad one is named, not drawn black."""
    split = make_masked_split(tmp_path)
    batch = read_pictures(split, [4, 0], 16, 12, with_masks=True)
    images = EvaluationImages(split, 16, 12, with_masks=True)
    assert batch.indices.tolist() == [4, 0] and batch.labels.tolist() == split.labels[[4, 0]].tolist()
    for row, index in enumerate((4, 0)):
        assert torch.equal(batch.images[row], images[index].image) and torch.equal(batch.masks[row], images[index].mask)
    assert read_pictures(split, [4], 16).masks is None
    bad = {index: item for index in range(5) if (item := images[index]).error or item.mask_error}
    assert any(item.error for item in bad.values()) and any(item.mask_error for item in bad.values())
    for index, item in bad.items():
        with pytest.raises(UserError) as failure:
            read_pictures(split, [0, index], 16, 12, with_masks=True)
        assert str(failure.value) == item.error or str(failure.value) == item.mask_error


@pytest.mark.parametrize("workers", [0, 1])
def test_loose_images_come_as_a_viewer_shows_them(tmp_path, workers):
    """They are turned by their EXIF tag, sized after that, of no class, and an unreadable one stops nothing."""
    paths = [save_rotated(tmp_path / "a.png", 6), tmp_path / "missing.png", save_picture(tmp_path / "b.png", (20, 10))]
    batches = list(build_loose_loader(paths, 16, 2, workers, CPU))
    images = torch.cat([batch.images for batch in batches])
    assert torch.cat([batch.labels for batch in batches]).tolist() == [-1, -1, -1]
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 1, 2]
    assert torch.cat([batch.sizes for batch in batches]).tolist() == [[30, 40], [0, 0], [20, 10]]
    assert torch.cat([batch.readable for batch in batches]).tolist() == [True, False, True]
    assert "missing.png" in batches[0].errors[1] and batches[0].masks is None
    assert torch.equal(images[0], resize(read_image(paths[0], exif=True), 16))
    assert not torch.equal(images[0], resize(read_image(paths[0]), 16))
    assert not list(build_loose_loader([], 16, 2, 0, CPU))
