"""Protects the reading of pictures: every stored kind becomes RGB, every damage becomes one sentence with the path."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from utils.data.images import (
    ImageError,
    find_pictures,
    list_class_pictures,
    list_pictures,
    read_image,
    read_image_size,
    require_pictures,
)
from utils.errors import UsageError, UserError


def save_picture(path, size=(40, 30), colour=(200, 100, 50)):
    """Makes a plain RGB picture, and its folder; also used by the data sets' tests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.mark.parametrize(
    ("mode", "name", "colour", "expected"),
    [
        ("RGB", "x.png", (200, 100, 50), (200, 100, 50)),
        ("L", "x.png", 77, (77, 77, 77)),
        ("1", "x.png", 1, (255, 255, 255)),
        ("LA", "x.png", (90, 0), (90, 90, 90)),
        ("RGBA", "x.png", (10, 20, 30, 0), (10, 20, 30)),
        ("CMYK", "x.tiff", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", "x.png", 0x8FFF, (0x8F, 0x8F, 0x8F)),
        ("I;16", "x.tiff", 0x0100, (1, 1, 1)),
        ("I", "x.tiff", 0xFF00, (255, 255, 255)),
        ("I", "x.tiff", 0x12345678, (255, 255, 255)),
    ],
)
def test_every_stored_kind_becomes_rgb(tmp_path, mode, name, colour, expected):
    """Alpha is dropped and 16 bits are divided by 256, not clipped to white."""
    Image.new(mode, (5, 4), colour).save(tmp_path / name)
    picture = read_image(tmp_path / name)
    assert (picture.mode, picture.size) == ("RGB", (5, 4))
    assert (np.asarray(picture) == expected).all()


def test_palette_and_cmyk_jpeg(tmp_path):
    """A palette's indices are looked up, and an inverted CMYK JPEG (ImageNet has some) is not a negative."""
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "x.gif")
    red.convert("CMYK").save(tmp_path / "x.jpg")
    for name in ("x.gif", "x.jpg"):
        assert np.abs(np.asarray(read_image(tmp_path / name), int) - (255, 0, 0)).max() <= 8, name


def test_exif_rotation_is_not_applied(tmp_path):
    """The boxes of the data sets refer to the stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (40, 30) == read_image_size(tmp_path / "x.jpg")


def save_rotated(path, orientation, size=(40, 30)):
    """Makes a picture of four quarters with an EXIF orientation; also used by the data sets' tests."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
    pixels[: size[1] // 2, size[0] // 2 :] = (0, 255, 0)
    pixels[size[1] // 2 :, : size[0] // 2] = (0, 0, 255)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_exif_rotation_on_demand(tmp_path, orientation, name):
    """Pictures of one's own come as a viewer shows them, in all eight orientations."""
    path = save_rotated(tmp_path / name, orientation)
    with Image.open(path) as stored:
        expected = ImageOps.exif_transpose(stored)
    picture = read_image(path, exif=True)
    assert picture.size == ((40, 30) if orientation < 5 else (30, 40))
    assert (np.asarray(picture) == np.asarray(expected)).all()
    assert (picture == read_image(path)) is (orientation == 1)


# Big-endian tags: an ImageDescription of the wrong kind, which PIL cannot write back, and the orientation 6.
ODD_TAGS = b"Exif\0\0MM\0*\0\0\0\x08\0\2" + struct.pack(">HHLLHHLL", 0x10E, 5, 1, 8, 0x112, 3, 1, 6 << 16) + b"\0" * 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp"])
@pytest.mark.parametrize(
    ("exif", "size"),
    [
        (b"Exif\0\0rubbish", (40, 30)),
        (b"Exif\0\0MM\0*\0\0\0\x08\0\5ab", (40, 30)),
        (ODD_TAGS, (30, 40)),
        (b"", (40, 30)),
    ],
)
def test_exif_damage_costs_no_picture(tmp_path, name, exif, size):
    """A picture with rubbish in its tags is still a picture, and turned where that can be told."""
    Image.new("RGB", (40, 30)).save(tmp_path / name, exif=exif)
    assert read_image(tmp_path / name, exif=True).size == size


def test_exif_rotation_of_damaged_and_deep_pictures(tmp_path):
    """Asking for the rotation hides no damage and changes no pixel of 16 bits."""
    Image.new("I;16", (40, 30), 0x8FFF).save(tmp_path / "x.png")
    assert (np.asarray(read_image(tmp_path / "x.png", exif=True)) == 0x8F).all()
    _truncate(tmp_path / "short.jpg")
    with pytest.raises(ImageError, match="truncated.*replace it with an intact picture"):
        read_image(tmp_path / "short.jpg", exif=True)


def _truncate(path):
    noise = np.random.RandomState(0).randint(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _bit_rot(path):
    save_picture(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("missing.jpg", lambda path: None, "no such file; check the path"),
        ("folder.jpg", lambda path: path.mkdir(), "folder"),
        ("empty.jpg", lambda path: path.touch(), "empty or no known kind of picture; replace"),
        ("text.png", lambda path: path.write_text("not a picture"), "no known kind of picture; replace"),
        ("short.jpg", _truncate, "truncated.*replace it with an intact picture"),
        ("short.png", _truncate, "replace it with an intact picture"),
        ("rotten.png", _bit_rot, "replace it with an intact picture"),
        ("zero.ppm", lambda path: path.write_bytes(b"P6\n0 4\n255\n"), "replace"),
        ("float.tiff", lambda path: Image.new("F", (4, 4), 0.5).save(path), "floating-point.*8 bits"),
        ("tab\tle\0.png", lambda path: None, "null byte"),
    ],
)
def test_bad_pictures_are_named(tmp_path, name, damage, words):
    """No decoder's exception reaches the user: always an ImageError with the path, what is wrong and the mend."""
    damage(tmp_path / name)
    with pytest.raises(ImageError, match=words) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_decompression_bomb(tmp_path, monkeypatch):
    """A small file of too many pixels is refused before it fills the memory."""
    save_picture(tmp_path / "bomb.png", (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"bomb\.png: it has more than 2,000 pixels; replace"):
        read_image(tmp_path / "bomb.png")


def test_listing_is_sorted_and_leaves_out_what_is_no_picture(tmp_path):
    """The order of a folder decides labels and ids, so it must not be the file system's."""
    for name in ("b.JPEG", "a.png", "c.Jpg", "._a.png", "notes.txt"):
        (tmp_path / "class" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "class" / name).touch()
    (tmp_path / ".hidden").mkdir()
    assert list_pictures(tmp_path / "class") == ["a.png", "b.JPEG", "c.Jpg"]
    assert list_class_pictures(tmp_path) == {"class": ["a.png", "b.JPEG", "c.Jpg"]}


def test_bad_folders_are_named(tmp_path):
    """A missing folder, one without classes and an empty class each have their sentence."""
    with pytest.raises(UserError, match="nowhere.*check the path"):
        list_pictures(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no class folders; put the pictures"):
        list_class_pictures(tmp_path)
    (tmp_path / "empty_class").mkdir()
    with pytest.raises(UserError, match="empty_class holds no picture.*1 of 1 class folders.*unpack"):
        list_class_pictures(tmp_path)


def test_missing_pictures_are_counted(tmp_path):
    """The first missing picture in the list's order is named, a missing class folder counts too."""
    save_picture(tmp_path / "a" / "1.jpg")
    names = ["a/1.jpg", "b/2.jpg", "a/0.jpg"]
    with pytest.raises(
        UserError, match=r"b/2\.jpg is missing: 2 of the 3 pictures that .*list\.txt names .*; fetch it"
    ):
        require_pictures(tmp_path, names, tmp_path / "list.txt", "fetch it")
    require_pictures(tmp_path, names[:1], tmp_path / "list.txt", "fetch it")


# --- pictures of one's own


@pytest.fixture
def album(tmp_path, monkeypatch):
    """A folder of files, the working directory."""
    names = ("b.jpg", "a/d.PNG", "a/c.jpg", "a/z/e.webp", "a/notes.txt", ".hidden/f.jpg", "a/.g.jpg", "p[1].jpg")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["b.jpg"], ["b.jpg"]),
        (["a"], ["a/c.jpg", "a/d.PNG", "a/z/e.webp"]),
        (["."], ["a/c.jpg", "a/d.PNG", "a/z/e.webp", "b.jpg", "p[1].jpg"]),
        (["*.jpg"], ["b.jpg", "p[1].jpg"]),
        (["a/*"], ["a/c.jpg", "a/d.PNG", "a/z/e.webp"]),
        (["**/*.jpg"], ["a/c.jpg", "b.jpg", "p[1].jpg"]),
        (["**"], ["a/c.jpg", "a/d.PNG", "a/z/e.webp", "b.jpg", "p[1].jpg"]),
        (["p[1].jpg"], ["p[1].jpg"]),
        (["a/notes.txt"], ["a/notes.txt"]),
        (["b.jpg", "a/z", "./b.jpg", "a"], ["b.jpg", "a/z/e.webp", "a/c.jpg", "a/d.PNG"]),
    ],
)
def test_pictures_that_a_command_names(album, patterns, expected):
    """Files as named, folders and globs sorted and without what is hidden or no picture, everything once."""
    assert [path.as_posix() for path in find_pictures(patterns)] == expected
    absolute = find_pictures([str(album / pattern) for pattern in patterns])
    assert absolute == [album / name for name in expected]
    assert find_pictures([*patterns, *map(str, absolute)]) == find_pictures(patterns)


@pytest.mark.parametrize("pattern", ["nowhere.jpg", "nowhere", "empty", "*.tiff", "a/*.txt", "**/nothing/*", ""])
def test_patterns_without_pictures_are_named(album, pattern):
    """A path that finds nothing is wrong usage and is named, also beside others that find something."""
    with pytest.raises(UsageError, match="matches no picture.*check the path") as caught:
        find_pictures(["b.jpg", pattern])
    assert str(caught.value).startswith(repr(pattern))
