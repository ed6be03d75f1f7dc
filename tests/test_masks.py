"""Protects masks: the right pixels in the network's frame, and every unusable mask in one sentence."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils.data.masks import MaskError, MaskFiles, find_masks, read_mask, understand_masks
from utils.data.transforms import centre_crop
from utils.system.errors import UsageError


def save_mask(path, pixels):
    """Saves (H, W) grey levels or booleans; also used by the data sets' tests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.asarray(pixels)
    Image.fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels.astype(np.uint8)).save(path)
    return path


def wsolevaluation_mask(objects, ignore, resize_size):
    """Each mask resized by itself, then united, as wsolevaluation does it."""
    size = (resize_size, resize_size)
    resized = [cv2.resize(np.float32(mask), size, interpolation=cv2.INTER_NEAREST) > 0.5 for mask in objects]
    union = np.stack(resized).any(axis=0)
    ignored = cv2.resize(np.float32(ignore), size, interpolation=cv2.INTER_NEAREST) > 0.5
    return union.astype(np.uint8) + 255 * (ignored & ~union).astype(np.uint8)


@pytest.mark.parametrize(("width", "height"), [(50, 37), (31, 64), (256, 256), (301, 299)])
def test_union_and_ignore_match_wsolevaluation(tmp_path, width, height):
    """Several objects unite, they prevail over the ignored pixels, and the nearest neighbour is wsolevaluation's."""
    random = np.random.RandomState(width)
    first, second, ignore = random.rand(3, height, width) < 0.3
    names = ("first.png", "second.png", "ignore.png")
    paths = [save_mask(tmp_path / name, mask) for name, mask in zip(names, (first, second, ignore), strict=True)]
    expected = wsolevaluation_mask((first, second), ignore, 224)
    mask = read_mask(MaskFiles(tuple(paths[:2]), paths[2]), (width, height), 224, 224)
    assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1, 255}
    assert (mask == expected).all()
    alone = read_mask(MaskFiles((paths[0],)), (width, height), 224, 224)
    assert (alone == wsolevaluation_mask((first,), np.zeros_like(first), 224)).all()


@pytest.mark.parametrize(("resize_size", "crop_size"), [(256, 224), (255, 224), (257, 224), (40, 40), (9, 4)])
def test_crop_lies_where_the_pictures_crop_lies(tmp_path, resize_size, crop_size):
    """A mask that is off by a pixel against its picture would cost PxAP; odd margins show how they are rounded."""
    pixels = np.random.RandomState(0).rand(resize_size, resize_size) < 0.5
    path = save_mask(tmp_path / "m.png", pixels)
    mask = read_mask(MaskFiles((path,)), (resize_size, resize_size), resize_size, crop_size)
    picture = torch.from_numpy(pixels.astype(np.float32)).expand(1, 3, -1, -1)
    assert mask.shape == (crop_size, crop_size)
    assert (mask == centre_crop(picture, crop_size)[0, 0].numpy()).all()


def _levels():
    return np.array([[0, 51, 102, 127], [128, 153, 204, 255]], dtype=np.uint8)


def _palette(path):
    image = Image.fromarray(np.array([[0, 0, 1, 2], [3, 3, 3, 3]], dtype=np.uint8), "P")
    image.putpalette([0, 0, 0, 100, 100, 100, 127, 127, 127, 255, 255, 255])
    image.save(path)


@pytest.mark.parametrize(
    "save",
    [
        lambda path: Image.fromarray(_levels()).save(path),
        lambda path: Image.fromarray(np.stack([_levels()] * 2, axis=-1), "LA").save(path),
        lambda path: Image.fromarray(np.stack([*[_levels()] * 3, 255 - _levels()], axis=-1), "RGBA").save(path),
        lambda path: Image.fromarray(_levels() >= 128).save(path),
        lambda path: Image.fromarray(_levels().astype(np.uint16) * 257).save(path),
        _palette,
    ],
    ids=["grey", "grey and alpha", "colour and alpha", "1 bit", "16 bits", "palette"],
)
def test_half_the_annotators_and_every_stored_kind(tmp_path, save):
    """CUB's shares 0, 51, ... 255 count from one half on, whatever kind of file holds them; alpha says nothing."""
    save(tmp_path / "m.png")
    expected = cv2.resize(np.array([[0] * 4, [1] * 4], np.uint8), (8, 8), interpolation=cv2.INTER_NEAREST)
    assert (read_mask(MaskFiles((tmp_path / "m.png",)), (4, 2), 8, 8) == expected).all()


def test_an_empty_mask_is_background(tmp_path):
    """A mask in which half of the annotators saw nothing is a mask all the same."""
    path = save_mask(tmp_path / "m.png", np.full((4, 4), 102))
    assert (read_mask(MaskFiles((path,)), (4, 4), 4, 4) == 0).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, r"cannot read the mask .*m\.png: there is no such file; check the path"),
        (lambda path: path.write_text("text"), r"cannot read the mask .*m\.png.*replace it"),
        (lambda path: save_mask(path, np.ones((6, 5), bool)), r"m\.png has 5x6 pixels and its picture 6x5; save"),
        (lambda path: os.mkfifo(path), r"cannot read the mask .*m\.png: it is a FIFO"),
    ],
    ids=["missing", "no picture", "other size", "FIFO"],
)
@pytest.mark.parametrize("role", ["object", "ignore"])
def test_unusable_masks_are_named(tmp_path, make, words, role):
    """A bad mask, of an object or of ignored pixels, is a MaskError with the file and the hint."""
    make(tmp_path / "m.png")
    good = save_mask(tmp_path / "good.png", np.ones((5, 6), bool))
    bad = tmp_path / "m.png"
    files = MaskFiles((good, bad)) if role == "object" else MaskFiles((good,), bad)
    with pytest.raises(MaskError, match=words):
        read_mask(files, (6, 5), 8, 8)


@pytest.mark.parametrize("scale", [(1, 2), (2, 1), (3, 2), (0.37, 0.37)])
def test_masks_of_other_sizes_match_wsolevaluation(tmp_path, scale):
    """Each mask is resized by itself from its own size, as OpenImages' masks, which are larger than their pictures."""
    width, height = 300, 200
    sizes = [(round(height * factor), round(width * factor)) for factor in scale]
    random = np.random.RandomState(0)
    masks = [random.rand(*size) < 0.3 for size in sizes]
    paths = [save_mask(tmp_path / f"{index}.png", mask) for index, mask in enumerate(masks)]
    found = read_mask(MaskFiles(tuple(paths)), (width, height), 224, 224)
    assert (found == wsolevaluation_mask(masks, np.zeros((9, 9)), 224)).all()
    turned = save_mask(tmp_path / "turned.png", masks[0].T)
    with pytest.raises(MaskError, match=rf"turned\.png has .* pixels and its picture {width}x{height}; save"):
        read_mask(MaskFiles((turned,)), (width, height), 224, 224)


def test_meaning_is_that_of_the_data_set(tmp_path):
    """A file whose levels alone would mean something else is read as the others are, or told."""
    one, both = np.eye(4, 4, dtype=np.uint8), np.full((4, 4), 255, np.uint8)
    both[0, 0] = 1
    paths = [save_mask(tmp_path / "one.png", one), save_mask(tmp_path / "both.png", both)]
    alone = save_mask(tmp_path / "ignored.png", one * 255)
    meanings = understand_masks([MaskFiles((path,)) for path in (*paths, alone)])
    assert str(meanings) == "0 background, 1 object, 255 ignored (by the levels of all 3 files)"
    assert (read_mask(MaskFiles((alone,)), (4, 4), 4, 4, meanings) == one * 255).all()
    assert (read_mask(MaskFiles((alone,)), (4, 4), 4, 4) == one).all()
    strange = save_mask(tmp_path / "strange.png", one * 77)
    with pytest.raises(
        MaskError, match=r"strange\.png holds 77, where others hold 0 background, 1 object, 255 ignored"
    ):
        read_mask(MaskFiles((strange,)), (4, 4), 4, 4, meanings)


def test_ignore_masks_have_levels_of_their_own(tmp_path):
    """Masks of pixels to ignore may be saved as 0 and 255 beside those of objects as 0 and 1."""
    objects, ignore = np.eye(4, 4, dtype=np.uint8), np.zeros((4, 4), np.uint8)
    ignore[0] = 255
    files = MaskFiles((save_mask(tmp_path / "o.png", objects),), save_mask(tmp_path / "i.png", ignore))
    meanings = understand_masks([files])
    assert str(meanings).startswith("0 background, 1 object; in the masks to ignore 0 background, 255 object (")
    assert (read_mask(files, (4, 4), 4, 4, meanings) == np.where(objects, 1, ignore)).all()


def test_impossible_crop_names_the_options(tmp_path):
    """A crop beyond the picture is refused, not padded."""
    path = save_mask(tmp_path / "m.png", np.ones((5, 6), bool))
    with pytest.raises(UsageError, match="--crop_size and --resize_size"):
        read_mask(MaskFiles((path,)), (6, 5), 8, 9)


def test_masks_are_found_by_name(tmp_path):
    """A mask belongs to the picture of the same name in the same class folder, whatever that picture's suffix."""
    for name in ("wren/a.b.png", "gull/a.b.png", "wren/c.png", "top.png"):
        save_mask(tmp_path / name, np.ones((2, 2), bool))
    ids = ("wren/a.b.jpg", "wren/d.jpg", "owl/a.b.jpg", "wren/c.jpeg", "top.jpg")
    assert find_masks(tmp_path, ids) == {
        "wren/a.b.jpg": MaskFiles((tmp_path / "wren" / "a.b.png",)),
        "wren/c.jpeg": MaskFiles((tmp_path / "wren" / "c.png",)),
        "top.jpg": MaskFiles((tmp_path / "top.png",)),
    }
    assert find_masks(tmp_path / "nowhere", ids) == {}


def test_masks_of_other_suffixes_are_found(tmp_path):
    """A mask is not passed over for its suffix; where there are several, the PNG file is it."""
    for name in ("wren/a.bmp", "wren/a.png", "wren/b.TIF", "wren/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_masks(tmp_path, ["wren/a.jpg", "wren/b.jpg", "wren/c.jpg"])
    assert {image_id: files.objects[0].name for image_id, files in found.items()} == {
        "wren/a.jpg": "a.png",
        "wren/b.jpg": "b.TIF",
    }


def test_only_greys_are_read_as_any_level(tmp_path):
    """Protects masks that say by themselves what is object: in colours, by alpha, or with a level to ignore."""
    object_there = np.zeros((20, 20), dtype=bool)
    object_there[5:15, 5:15] = True
    alpha = np.full((20, 20, 4), 255, np.uint8)
    alpha[..., 3] = 255 * object_there
    colours = np.zeros((20, 20, 3), np.uint8)
    colours[object_there] = (0, 200, 0)
    ignoring = object_there.astype(np.uint8)
    ignoring[0, :] = 255
    for content in (alpha, colours, ignoring):
        Image.fromarray(content).save(tmp_path / "m.png")
        files = MaskFiles((tmp_path / "m.png",))
        plain, every = (read_mask(files, None, 20, 20, understand_masks([files], any_level)) for any_level in (0, 1))
        assert (plain == every).all() and np.count_nonzero(every == 1) == 100


def test_any_level_is_object_where_it_is_asked(tmp_path):
    """CUB's masks are shares of annotators: half of them make an object, or, as in the second paper's code, any one."""
    shares = np.zeros((64, 64), dtype=np.uint8)
    for number, level in enumerate(range(51, 256, 51)):
        shares[8 + 4 * number : 56 - 4 * number, 8 + 4 * number : 56 - 4 * number] = level
    Image.fromarray(shares).save(tmp_path / "m.png")
    files = MaskFiles((tmp_path / "m.png",))
    for any_level, side in ((False, 32), (True, 48)):
        meanings = understand_masks([files], any_level)
        assert np.count_nonzero(read_mask(files, (64, 64), 64, 64, meanings) == 1) == side**2
        assert ("whatever the levels mean" in str(meanings)) == any_level
