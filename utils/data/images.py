"""Pictures on disk: one is read as RGB, or a sentence says why not; folders of them are listed."""

from __future__ import annotations

import glob
import logging
import os
import stat
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from utils.system.errors import UsageError, UserError

# The formats that pictures and masks come in, each decoded by Pillow itself. All others stay shut, whatever a file's
# name says: Pillow would start Ghostscript for an EPS file called bird.jpg.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
Image.init()
_OPENED = tuple(name for name in FORMATS if name in Image.OPEN)
PICTURE_SUFFIXES = tuple(sorted(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS))

# Pictures of 16 bits whose highest level stays below hold 14, 12 or 10 bits, or are as good as black.
_LEAST_DEEP = 1 << 14

# What systems put among a user's folders: thumbnails, waste baskets, snapshots, macOS' halves of files.
_SYSTEM_FOLDERS = frozenset(
    ("@eadir", "@tmp", "@recycle", "@__thumb", "#recycle", "#snapshot", "$recycle.bin")
    + ("system volume information", "lost+found", "__macosx")
)

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


# --- listings


def list_pictures(folder: Path, passed_over: Counter[str] | None = None) -> list[str]:
    """Lists the names of the pictures (by PICTURE_SUFFIXES; hidden files left out) that lie in `folder`, sorted.

    Args:
        folder: the folder.
        passed_over: counts the other files by suffix, for :func:`passed_over_phrase`.

    Raises:
        UserError: the folder cannot be listed.
    """
    return _select_pictures(_scan(folder), passed_over)


def passed_over_phrase(passed_over: Counter[str]) -> str:
    """What listings passed over, by suffix: ", passed over 1 .heic, 3 .txt"; nothing where it was nothing."""
    counted = ", ".join(f"{passed_over[suffix]} {suffix}" for suffix in sorted(passed_over))
    return f", passed over {counted}" if counted else ""


def _count_suffixes(names: Iterable[str]) -> Counter[str]:
    """The suffixes of files, hidden ones left out."""
    shown = (name for name in names if not name.startswith("."))
    return Counter(os.path.splitext(name)[1].lower() or "without suffix" for name in shown)


def list_folders(folder: Path) -> list[str]:
    """Lists the names of the folders (hidden ones and systems' own left out) that lie in `folder`, sorted.

    Raises:
        UserError: the folder cannot be listed.
    """
    return _select_folders(_scan(folder))


def list_class_pictures(
    folder: Path, passed_over: Counter[str] | None = None, may_be_empty: bool = False
) -> dict[str, list[str]]:
    """Lists a folder of class folders as torchvision's ImageFolder does, sub-folders included.

    Links are followed, but never back to a folder that leads to them.

    Args:
        folder: the folder of class folders.
        passed_over: see :func:`list_pictures`.
        may_be_empty: whether some of the class folders, not all, may hold no picture.

    Returns:
        Class name -> its pictures' paths below the class folder ("x.jpg", "2020/x.jpg"), both in ImageFolder's order.

    Raises:
        UserError: there is no class folder, one of them holds no picture, or a folder cannot be listed.
    """
    passed_over = Counter() if passed_over is None else passed_over
    root = Path(os.path.realpath(folder))
    above = frozenset(map(str, (root, *root.parents)))
    pictures = {name: _list_below(folder / name, above, passed_over) for name in list_folders(folder)}
    if not pictures:
        raise UserError(f"{folder} holds no class folders; put the pictures into one folder per class there")
    empty = [name for name, names in pictures.items() if not names]
    if empty and not (may_be_empty and len(empty) < len(pictures)):
        raise UserError(
            f"{folder / empty[0]} holds no picture ({', '.join(PICTURE_SUFFIXES)}), as {len(empty)} of "
            f"{len(pictures)} class folders do{passed_over_phrase(passed_over)}; unpack its pictures or remove the "
            "folder"
        )
    return pictures


def describe_folders(pictures: Mapping[str, Sequence[str]]) -> str:
    """What is unusual about class folders, of :func:`list_class_pictures`, to go on a layout's phrase; mostly ""."""
    empty = [name for name, names in pictures.items() if not names]
    nested = sum("/" in picture for names in pictures.values() for picture in names)
    told = f", {nested} pictures in sub-folders of their class" if nested else ""
    first = f", the first {empty[0]}" if empty else ""
    return told + (f", {len(empty)} of {len(pictures)} class folders without a picture{first}" if empty else "")


def _list_below(folder: Path, above: frozenset[str], passed_over: Counter[str]) -> list[str]:
    """The pictures of a class folder; `above` are the real paths of the folders that lead to it."""
    found, waiting = {}, [("", above)]
    while waiting:
        place, above = waiting.pop()
        real = os.path.realpath(folder / place)
        if real in above:
            continue
        entries, prefix = _scan(folder / place), f"{place}/" if place else ""
        found[place] = [prefix + name for name in _select_pictures(entries, passed_over)]
        waiting += [(prefix + name, above | {real}) for name in _select_folders(entries)]
    return [name for place in sorted(found) for name in found[place]]


def require_pictures(folder: Path, names: Sequence[str], listed_in: Path, hint: str) -> None:
    """Checks that the pictures a list names exist, with one listing per class folder and not a look-up per file.

    Args:
        folder: where the names start.
        names: paths below `folder`, e.g. "001.Black_footed_Albatross/x.jpg".
        listed_in: the list, for the message.
        hint: what the user can do, for the message.

    Raises:
        UserError: pictures are missing; the first is named and all are counted.
    """
    by_parent = defaultdict(set)
    for name in names:
        by_parent[(folder / name).parent].add(name)
    missing: set[str] = set()
    for parent, members in by_parent.items():
        present = {entry.name for entry in _scan(parent)} if os.path.isdir(parent) else set()
        missing.update(name for name in members if os.path.basename(name) not in present)
    if missing:
        first = next(name for name in names if name in missing)
        raise UserError(
            f"{folder / first} is missing: {len(missing)} of the {len(names)} pictures that {listed_in} names are not "
            f"there; {hint}"
        )


def find_pictures(patterns: Sequence[str], passed_over: Counter[str] | None = None) -> list[Path]:
    """Finds the pictures that a command line names.

    Args:
        patterns: each a file (taken whatever its suffix), a folder (its pictures and those of its folders, linked ones
            too, sorted; hidden ones left out) or a glob that the shell did not expand (`*`, `?`, `[...]`, `**` for any
            folders).
        passed_over: counts, by suffix, the files that are no pictures, for :func:`passed_over_phrase`.

    Returns:
        The pictures in the order of the patterns, each once, by whichever of its folder's links it was found.

    Raises:
        UsageError: a pattern matches no picture.
        UserError: a folder cannot be listed.
    """
    found: dict[str, Path] = {}
    others: dict[str, str] = {}
    for pattern in patterns:
        # What exists is never a glob: photo[1].jpg is a fine name.
        is_there = os.path.exists(pattern)
        matches = [Path(pattern)] if is_there else map(Path, sorted(glob.glob(pattern, recursive=True)))
        pictures: list[Path] = []
        passed: list[Path] = []
        for match in matches:
            if match.is_dir():
                _walk(match, pictures, passed)
            else:
                (pictures if is_there or _is_picture_name(match.name) else passed).append(match)
        if not pictures:
            raise UsageError(
                f"{pattern!r} is no file and matches no picture ({', '.join(PICTURE_SUFFIXES)})"
                f"{passed_over_phrase(_count_suffixes(path.name for path in passed))}; check the path"
            )
        for path in pictures:
            found.setdefault(_place(path), path)
        others |= {_place(path): path.name for path in passed}
    if passed_over is not None:
        passed_over.update(_count_suffixes(name for place, name in others.items() if place not in found))
    return list(found.values())


def _place(path: Path) -> str:
    """Where a file lies, whatever links lead to its folder."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def _walk(folder: Path, pictures: list[Path], passed: list[Path]) -> None:
    """Adds the files of a folder and its folders, sorted. Links are followed, each real folder is entered once, by its
    own name rather than a link's, and a link to a folder that holds it leads nowhere."""
    found, starts, seen = [], [folder], set()
    for start in starts:
        for parent, folders, names in os.walk(start, onerror=_refuse_folder):
            real = os.path.realpath(parent)
            folders[:] = [] if real in seen else sorted(filter(_is_own_folder, folders))
            found += [] if real in seen else [Path(parent, name) for name in names]
            seen.add(real)
            links = [Path(parent, name) for name in folders if os.path.islink(os.path.join(parent, name))]
            starts += [link for link in links if not Path(real).is_relative_to(os.path.realpath(link))]
    for path in sorted(found):
        (pictures if _is_picture_name(path.name) else passed).append(path)


def _is_picture_name(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def _is_own_folder(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _SYSTEM_FOLDERS


def _select_pictures(entries: Sequence[os.DirEntry], passed_over: Counter[str] | None = None) -> list[str]:
    if passed_over is not None:
        others = (entry for entry in entries if not _is_picture_name(entry.name))
        passed_over.update(_count_suffixes(entry.name for entry in others if not _is_folder(entry)))
    # What the listing itself tells, and no more: asking the file system about each of ImageNet's 1.28 million files
    # would take minutes. A link is taken for what its name says.
    named = (entry for entry in entries if _is_picture_name(entry.name))
    return sorted(entry.name for entry in named if entry.is_symlink() or entry.is_file(follow_symlinks=False))


def _select_folders(entries: Sequence[os.DirEntry]) -> list[str]:
    return sorted(entry.name for entry in entries if _is_own_folder(entry.name) and _is_folder(entry))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere
        return False


def _scan(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        _refuse_folder(error)


def _refuse_folder(error: OSError) -> NoReturn:
    raise UserError(f"cannot list the folder {error.filename}: {error.strerror}; check the path") from error
