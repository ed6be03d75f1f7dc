"""Reads a picture of any raster format as 8-bit RGB, or says in a sentence why not."""

from __future__ import annotations

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from utils.system.errors import UserError

# The formats that pictures and masks come in, each decoded by Pillow itself. All others stay shut, whatever a file's
# name says: Pillow would start Ghostscript for an EPS file called bird.jpg.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
Image.init()
_OPENED = tuple(name for name in FORMATS if name in Image.OPEN)
PICTURE_SUFFIXES = tuple(sorted(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS))

# Pictures of 16 bits whose highest level stays below hold 14, 12 or 10 bits, or are as good as black.
_LEAST_DEEP = 1 << 14

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its messages name no picture


class ImageError(UserError):
    """A picture cannot be read; the message names the file and what is wrong with it."""


def read_image(path: str | Path, exif: bool = False) -> Image.Image:
    """Reads a picture as 8-bit RGB, whatever it is stored as (greyscale, palette, CMYK, alpha, 1 bit, 16 bits).

    A transparent picture is laid on white, as a viewer shows it. Greyscale of 16 bits is divided by 256, where PIL
    alone would clip it to white.

    Args:
        path: the picture's file.
        exif: whether to turn and mirror the picture as its EXIF tag says and every viewer does; the data sets' boxes
            refer to the stored pixels.

    Returns:
        A loaded PIL image of mode "RGB".

    Raises:
        ImageError: the file is missing, a folder, a FIFO or the like, unreadable, none of FORMATS, damaged, cut short,
            beyond PIL's limit on the number of pixels, or holds levels of unknown range: floating-point numbers, 32
            bits, or fewer bits than the 16 it is stored with.
    """
    with open_picture(path) as image:
        return to_upright_rgb(image) if exif else _to_rgb(image, _stored_as(image))


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """An opened PIL picture of any mode as a viewer shows it: 8-bit RGB on white, turned and mirrored by its EXIF tag.

    Raises:
        Exception: PIL's, of any kind, for a damaged file; ValueError for levels of unknown range.
    """
    stored = _stored_as(image)
    image.load()
    image = image.copy()
    # A damaged tag turns nothing, as in a viewer; in place, the turn outlasts a failure to rewrite the tags.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image, stored)


def as_upright_rgb(picture: Image.Image | np.ndarray | str | os.PathLike[str]) -> Image.Image:
    """A picture in whichever form Python users have it, as a viewer shows it; see :func:`read_image`.

    Args:
        picture: a PIL image of any mode; a uint8 array (H, W, 3) in RGB order, (H, W, 4) with alpha or (H, W) in
            levels of grey; or the path of a file.

    Raises:
        ImageError: the picture cannot be read.
        TypeError: it is something else, such as a tensor or an array of floats.
    """
    if isinstance(picture, str | os.PathLike):
        return read_image(os.fspath(picture), exif=True)
    if isinstance(picture, np.ndarray):
        has_shape = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))
        if has_shape and picture.size and picture.dtype == np.uint8:
            picture = Image.fromarray(np.ascontiguousarray(picture))
    if not isinstance(picture, Image.Image):
        raise TypeError(
            f"a picture is a path, a PIL image, or a NumPy array of uint8 with shape (H, W, 3) in RGB order, (H, W, 4) "
            f"with alpha or (H, W) in grey, not {_describe(picture)}"
        )
    try:
        with _unwarned(), _unspoken(picture):
            return to_upright_rgb(picture)
    except Exception as error:  # PIL's decoders meet damaged files with exceptions of any kind
        name = getattr(picture, "filename", "") or "given"
        raise ImageError(f"cannot read the picture {name}: {_reason(error)}") from error


def _describe(value: object) -> str:
    kind = type(value)
    said = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        said += f" of {value.dtype} with shape {tuple(value.shape)}"
    return said


def exif_orientation(image: Image.Image) -> int:
    """How a viewer turns a picture that was read as stored: its EXIF tag, 1 (not at all) to 8; 1 without a good one."""
    with suppress(Exception):  # PIL's, of any kind, for a damaged tag
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation in range(1, 9):
            return orientation
    return 1


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Reads (width, height) from a picture's header, without decoding its pixels.

    Raises:
        ImageError: as :func:`read_image`, as far as the header shows it.
    """
    with open_picture(path) as image:
        return image.size


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """Opens a picture for a block that decodes it: the one place where files are handed to PIL.

    Args:
        path: a file of one of FORMATS.

    Yields:
        The PIL image as stored, not loaded.

    Raises:
        ImageError: the file cannot be opened, or the block raised an exception of any kind.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a FIFO waits for a writer
            raise ValueError("it is a FIFO, a socket or a device and no file")
        with _unwarned(), Image.open(path, formats=_OPENED) as image, _unspoken(image):
            yield image
    except Exception as error:  # PIL's decoders meet damaged files with exceptions of any kind
        raise ImageError(f"cannot read the picture {path}: {_reason(error)}") from error


@contextmanager
def _unwarned() -> Iterator[None]:
    """Keeps PIL's warnings, which name no picture, from standard error; what they tell of was corrected or refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _unspoken(image: Image.Image) -> Iterator[None]:
    """Keeps libtiff, which writes past Python, from standard error while a block decodes `image`."""
    is_heard = any(tile[0] == "libtiff" for tile in getattr(image, "tile", ()))
    try:
        kept = os.dup(2) if is_heard else None
    except OSError:  # there is no standard error
        kept = None
    if kept is None:
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(error: Exception) -> str:
    replace = "replace it with an intact picture"
    if isinstance(error, FileNotFoundError):
        return "there is no such file; check the path"
    if isinstance(error, IsADirectoryError):
        return "it is a folder; name a picture inside it"
    if isinstance(error, PermissionError):
        return "no permission; make it readable"
    if isinstance(error, UnidentifiedImageError):
        return f"the file is empty or no known kind of picture; {replace}"
    if isinstance(error, Image.DecompressionBombError) and Image.MAX_IMAGE_PIXELS is not None:
        return f"it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels; replace it with a smaller one"
    if isinstance(error, _UnknownRangeError):
        return f"{error}; save it with 8 bits a channel"
    return f"{str(error) or type(error).__name__}; {replace}"


# --- to 8 bits on white


class _UnknownRangeError(ValueError):
    """Which level is white cannot be told."""


class _Stored(NamedTuple):
    """What PIL forgets when it loads a picture."""

    raw_mode: str  # "" if it is loaded already
    is_negative: bool  # of 16 bits, with 0 for white


def _stored_as(image: Image.Image) -> _Stored:
    arguments = [tile[3] for tile in getattr(image, "tile", ())[:1]]
    raw_mode = next((one if isinstance(one, str) else str(one[0]) for one in arguments if one), "")
    photometric = getattr(image, "tag_v2", {}).get(262)  # TIFF's PhotometricInterpretation: 0 is WhiteIsZero
    return _Stored(raw_mode, raw_mode.startswith("I;16") and photometric == 0)


def _to_rgb(image: Image.Image, stored: _Stored) -> Image.Image:
    if image.mode == "F":
        raise _UnknownRangeError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):
        return _deep_to_rgb(image, stored)
    # PIL keeps the upper 8 bits of each colour; BGR;16 is BMP's, with 16 bits for all three.
    if ";16" in stored.raw_mode and not stored.raw_mode.startswith("BGR"):
        if "transparency" in image.info:
            raise _UnknownRangeError("it marks a colour of 16 bits as transparent")
        extrema = np.reshape(image.getextrema(), (-1, 2)).tolist()  # a single band's are one pair
        _check_range(max(high for band, (_, high) in zip(image.getbands(), extrema, strict=True) if band != "A") << 8)
    return _on_white(image)


def _deep_to_rgb(image: Image.Image, stored: _Stored) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if stored.raw_mode == "I;12":
        levels = values << 4
    else:
        lowest, highest = values.min(), values.max()
        if lowest < 0 or highest > 0xFFFF or stored.raw_mode == "I;16S":
            raise _UnknownRangeError(f"its pixels are whole numbers of unknown range, here from {lowest} to {highest}")
        _check_range(highest)
        levels = 0xFFFF - values if stored.is_negative else values
    grey = (levels // 256).astype(np.uint8)
    if image.info.get("transparency") is not None:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def _check_range(highest: int) -> None:
    if 0 < highest < _LEAST_DEEP:
        raise _UnknownRangeError(
            f"it is stored with 16 bits and goes up to {highest} of 65535, so that it holds fewer bits or is all but "
            "black"
        )


def _on_white(image: Image.Image) -> Image.Image:
    """Mode "RGB": as a viewer shows it where it is transparent, the stored pixels where not."""
    layer = with_alpha(image)
    if layer is None or layer.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def with_alpha(image: Image.Image) -> Image.Image | None:
    """An opened PIL picture of 8 bits or fewer as mode "RGBA", or None if it can hold no transparency."""
    if image.mode == "La":  # premultiplied, and known to no other conversion
        image = image.convert("LA")
    has_alpha = image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info
    return image.convert("RGBA") if has_alpha else None
