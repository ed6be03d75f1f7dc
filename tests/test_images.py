"""Protects the reading of pictures: every stored kind becomes RGB, every damage becomes one sentence with the path."""

from __future__ import annotations

import ast
import os
import socket
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, ExifTags, Image, ImageOps

from utils.data.images import PICTURE_SUFFIXES, ImageError, as_upright_rgb, read_image, read_image_size
from utils.data.listing import find_pictures, list_class_pictures, list_pictures, passed_over_phrase, require_pictures
from utils.data.split import split_of_class_folders
from utils.system.errors import UsageError, UserError


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
        ("LA", "x.png", (90, 0), (255, 255, 255)),
        ("RGBA", "x.png", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", "x.png", (10, 20, 30, 255), (10, 20, 30)),
        ("CMYK", "x.tiff", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", "x.png", 0x8FFF, (0x8F, 0x8F, 0x8F)),
        ("I;16", "x.tiff", 0x4000, (0x40, 0x40, 0x40)),
        ("I;16", "x.tiff", 0, (0, 0, 0)),
        ("I", "x.tiff", 0xFF00, (255, 255, 255)),
    ],
)
def test_every_stored_kind_becomes_rgb(tmp_path, mode, name, colour, expected):
    """Transparency is white and 16 bits are divided by 256, not clipped to white."""
    Image.new(mode, (5, 4), colour).save(tmp_path / name)
    picture = read_image(tmp_path / name)
    assert (picture.mode, picture.size) == ("RGB", (5, 4))
    assert (np.asarray(picture) == expected).all()


def _transparent(mode):
    """A picture of noise and an oracle of what a viewer shows of it."""
    random = np.random.RandomState(0)
    colours = random.randint(0, 256, (20, 30, 3), dtype=np.uint8)
    if mode in ("L with a colour", "LA"):
        colours[:] = colours[..., :1]
    if mode == "palette":
        colours = colours[:1, :8][:, random.randint(0, 8, (20, 30))][0]
    alpha = random.randint(0, 256, (20, 30), dtype=np.uint8)
    if mode.endswith("with a colour"):
        colours[5:, 5:] = (9, 9, 9)
        alpha = np.where((colours == 9).all(axis=2), 0, 255).astype(np.uint8)
        return Image.fromarray(colours).convert(mode.split()[0]), alpha, colours
    image = Image.fromarray(np.dstack([colours, alpha]))
    if mode == "palette":
        image = Image.fromarray(colours).quantize(8)
        colours, alpha = np.asarray(image.convert("RGB")), np.array(range(0, 256, 36), np.uint8)[np.asarray(image)]
    return image if mode in ("RGBA", "palette") else image.convert(mode), alpha, colours


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L with a colour", "RGB with a colour", "palette"])
def test_transparent_pictures_lie_on_white(tmp_path, mode):
    """What lies under the alpha, which no viewer shows, is not what the network sees; the blend is exact to a level."""
    image, alpha, colours = _transparent(mode)
    transparency = {"L with a colour": 9, "RGB with a colour": (9, 9, 9), "palette": bytes(range(0, 256, 36))}
    image.save(tmp_path / "x.png", **({"transparency": transparency[mode]} if mode in transparency else {}))
    share = alpha[..., None] / 255
    expected = colours * share + 255 * (1 - share)
    assert 0 < share.mean() < 1
    for exif in (False, True):
        assert np.abs(np.asarray(read_image(tmp_path / "x.png", exif), float) - expected).max() <= 1


def test_opaque_pictures_are_the_stored_pixels(tmp_path):
    """An alpha channel, or a transparent colour that does not occur, changes no pixel of an opaque picture."""
    colours = np.random.RandomState(0).randint(1, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(np.dstack([colours, np.full((20, 30), 255, np.uint8)])).save(tmp_path / "rgba.png")
    Image.fromarray(colours).save(tmp_path / "trns.png", transparency=(0, 0, 0))
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    for name in ("rgba.png", "trns.png", "rgb.png"):
        assert (np.asarray(read_image(tmp_path / name)) == colours).all(), name


def save_tiff(path, values, bits, white_is_zero=False, sample_format=1):
    """A TIFF of (H, W) numbers of any number of bits, by hand."""
    height, width = values.shape
    data = values.astype({16: "<u2", 32: "<u4", 12: "<u2"}[bits]).tobytes()
    if bits == 12:
        pairs = values.reshape(-1, 2)
        data = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs.tolist())
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1, 278: height}
    tags |= {279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHL", b"II", 42, 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


def _save_deep_rgb(path, values):
    """A PNG of three colours of 16 bits, which PIL cannot write."""

    def chunk(kind, data):
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    height, width = values.shape
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in values)
    header = struct.pack(">LLBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks))


RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def test_12_bits_and_white_for_zero(tmp_path):
    """TIFF says how many bits it holds and what is white; PIL passes on 12 bits, and 0 for white, as they are."""
    deep = (RAMP * 65535).astype(int)
    expected = {
        save_tiff(tmp_path / "12.tif", deep >> 4, 12): deep >> 8,
        save_tiff(tmp_path / "16.tif", deep, 16): deep >> 8,
        save_tiff(tmp_path / "negative.tif", 65535 - deep, 16, white_is_zero=True): deep >> 8,
    }
    _save_deep_rgb(tmp_path / "rgb.png", deep)
    expected[tmp_path / "rgb.png"] = deep >> 8
    for path, grey in expected.items():
        for exif in (False, True):
            assert (np.asarray(read_image(path, exif)) == grey[..., None]).all(), path


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_stored_in_16_are_refused(tmp_path, bits):
    """Divided by 256 they would be black or dim; whether they are is told, and what to do."""
    deep = (RAMP * (2**bits - 1)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "x.png")
    save_tiff(tmp_path / "x.tif", deep, 16)
    _save_deep_rgb(tmp_path / "rgb.png", deep)
    for name in ("x.png", "x.tif", "rgb.png"):
        with pytest.raises(
            ImageError, match=rf"{name}: it is stored with 16 bits and goes up to .*save it with 8 bits"
        ):
            read_image(tmp_path / name)


@pytest.mark.parametrize(("top", "sample_format"), [(2**20, 1), (2**31 - 1, 2)])
def test_32_bits_are_refused(tmp_path, top, sample_format):
    """Whole numbers beyond 16 bits have no known white."""
    save_tiff(tmp_path / "x.tif", (RAMP * top).astype(int), 32, sample_format=sample_format)
    with pytest.raises(
        ImageError, match=rf"x\.tif: its pixels are whole numbers of unknown range, here from 0 to {top}"
    ):
        read_image(tmp_path / "x.tif")


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
    """No decoder's exception reaches the user: always an ImageError with the path, what is wrong and the hint."""
    damage(tmp_path / name)
    with pytest.raises(ImageError, match=words) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    """Opening a FIFO waits for a writer that never comes; a device may be endless."""
    path = tmp_path / "x.jpg"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "socket":
            server.bind(str(path))
        for read in (read_image, read_image_size):
            with pytest.raises(ImageError, match=r"x\.jpg: it is a FIFO, a socket or a device and no file"):
                read(path)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"


def test_other_formats_stay_shut(tmp_path, monkeypatch):
    """An EPS file would start Ghostscript, whatever its name; the same holds for each format that is not listed."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    (tmp_path / "bird.jpg").write_bytes(EPS)
    save_picture(tmp_path / "x.pcx").rename(tmp_path / "pcx.jpg")
    for name in ("bird.jpg", "pcx.jpg"):
        with pytest.raises(ImageError, match=f"{name}: the file is empty or no known kind of picture"):
            read_image(tmp_path / name)
    with pytest.raises(ImageError, match="no known kind"):
        as_upright_rgb(tmp_path / "bird.jpg")


def test_pictures_are_opened_at_one_place():
    """Each other call of PIL's or OpenCV's readers would bring back the formats and the hangs that are kept out."""
    openers, root = [], Path(__file__).parents[1]
    for path in [
        root / "train.py",
        *(file for name in ("utils", "CUB", "ILSVRC") for file in (root / name).rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.endswith(("Image.open", "imread", "imreadmulti", "read_file", "decode_image", "read_image")):
                openers += [(path.name, called)] if called != "read_image" else []
    assert openers == [("images.py", "Image.open")]


def test_decoders_are_silent(tmp_path, capfd):
    """PIL's warnings and libtiff's own words name no picture; the error does."""
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)).save(
        tmp_path / "x.tif", compression="tiff_lzw"
    )
    content = bytearray((tmp_path / "x.tif").read_bytes())
    content[200:1200] = bytes(value ^ 0x55 for value in content[200:1200])
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(ImageError, match=r"x\.tif"):
        read_image(tmp_path / "x.tif")
    os.write(2, b"heard again\n")
    Image.new("RGB", (40, 30)).save(tmp_path / "tags.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\5ab")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "tags.jpg", exif=True).size == (40, 30)
    assert capfd.readouterr().err == "heard again\n"


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


def test_suffixes_are_those_that_pillow_opens(tmp_path):
    """No picture is passed over for its suffix, and what no picture is opened for is not listed as one."""
    assert set(PICTURE_SUFFIXES) >= {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    assert set(PICTURE_SUFFIXES) >= {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k"}
    assert not {".eps", ".ps", ".pdf", ".psd", ".h5", ".fits", ".wmf", ".heic", ".txt", ""} & set(PICTURE_SUFFIXES)
    for suffix in set(PICTURE_SUFFIXES) - {".mpo", ".avif", ".avifs", ".pfm"}:
        Image.new("1" if suffix == ".pbm" else "L", (20, 20), 1).save(tmp_path / f"x{suffix}")
        assert read_image(tmp_path / f"x{suffix}").size == (20, 20)
    assert sorted(list_pictures(tmp_path)) == sorted(path.name for path in tmp_path.iterdir())


def test_what_is_passed_over_is_counted(tmp_path):
    """A data set that is half of .heic is told from a whole one; hidden files and folders are not counted."""
    for name in (
        "a/1.jpg",
        "a/2.HEIC",
        "a/3.heic",
        "b/1.JFIF",
        "b/notes.txt",
        "b/README",
        "b/.DS_Store",
        "b/more/x.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    passed_over = Counter()
    assert list_class_pictures(tmp_path, passed_over) == {"a": ["1.jpg"], "b": ["1.JFIF", "more/x.jpg"]}
    assert passed_over_phrase(passed_over) == ", passed over 2 .heic, 1 .txt, 1 without suffix"
    assert passed_over_phrase(Counter()) == ""
    split = split_of_class_folders("train", tmp_path, "class folders")
    assert (
        split.layout
        == "class folders, 1 pictures in sub-folders of their class, passed over 2 .heic, 1 .txt, 1 without suffix"
    )
    (tmp_path / "a" / "1.jpg").unlink()
    with pytest.raises(UserError, match=r"a holds no picture .*, passed over 2 \.heic, .*; unpack"):
        list_class_pictures(tmp_path)


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


def test_linked_folders_are_followed_once(tmp_path):
    """A folder of links to albums is not empty; each real folder counts once, and a link back to above is no loop."""
    for name in ("home/a/1.jpg", "home/z/2.jpg", "album/3.jpg", "album/deep/4.jpg", "up.jpg"):
        save_picture(tmp_path / name)
    home = tmp_path / "home"
    links = {
        "album": "../album",
        "a/again": "../z",
        "z/self": ".",
        "z/top": "..",
        "above": "../..",
        "file.jpg": "a/1.jpg",
    }
    for name, target in links.items():
        (home / name).symlink_to(target)
    (tmp_path / "album" / "back").symlink_to(home)
    expected = ["a/1.jpg", "album/3.jpg", "album/deep/4.jpg", "file.jpg", "z/2.jpg"]
    assert [path.relative_to(home).as_posix() for path in find_pictures([str(home)])] == expected
    assert len(find_pictures([str(home), str(tmp_path / "album"), str(home / "a" / "again")])) == 5
    assert len(find_pictures([str(home / "a" / "again")])) == 1  # named, it is followed


def test_own_pictures_that_are_passed_over(album):
    """Files of other kinds are counted by suffix, each once; those that are named are taken."""
    (album / "a" / "h.heic").touch()
    for patterns, expected in (
        (["."], {".heic": 1, ".txt": 1}),
        (["a", "a/*", "a/notes.txt"], {".heic": 1}),
        (["b.jpg"], {}),
    ):
        passed_over = Counter()
        find_pictures(patterns, passed_over)
        assert passed_over == expected
    with pytest.raises(UsageError, match=r"matches no picture .*, passed over 1 \.txt; check"):
        find_pictures(["a/*.txt"])
