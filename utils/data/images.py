"""Pictures on disk: one is read as RGB, or a sentence says why not; folders of them are listed."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from utils.errors import UsageError, UserError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# What systems put among a user's folders: thumbnails, waste baskets, snapshots, macOS' halves of files.
_SYSTEM_FOLDERS = frozenset(
    ("@eadir", "@tmp", "@recycle", "@__thumb", "#recycle", "#snapshot", "$recycle.bin")
    + ("system volume information", "lost+found", "__macosx")
)


class ImageError(UserError):
    """A picture cannot be read; the message names the file and what is wrong with it."""


def read_image(path: str | Path, exif: bool = False) -> Image.Image:
    """Reads a picture as 8-bit RGB, whatever it is stored as (greyscale, palette, CMYK, alpha, 1 bit, 16 bits).

    Alpha is dropped, not blended. 16-bit greyscale is divided by 256, where PIL alone would clip it to white.

    Args:
        path: the picture's file.
        exif: whether to turn and mirror the picture as its EXIF tag says and every viewer does; the data sets' boxes
            refer to the stored pixels.

    Returns:
        A loaded PIL image of mode "RGB".

    Raises:
        ImageError: the file is missing, a folder, unreadable, no picture, damaged, cut short or beyond PIL's limit on
            the number of pixels.
    """
    with _open_picture(path) as image:
        return to_upright_rgb(image) if exif else _to_rgb(image)


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """An opened PIL picture of any mode as a viewer shows it: 8-bit RGB, turned and mirrored as its EXIF tag says.

    Raises:
        Exception: PIL's, of any kind, for a damaged file; ValueError for floating-point pixels.
    """
    image.load()
    image = image.copy()
    # A damaged tag turns nothing, as in a viewer; in place, the turn outlasts a failure to rewrite the tags.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image)


def exif_orientation(image: Image.Image) -> int:
    """How a viewer turns a picture that was read as stored: its EXIF tag, 1 (not at all) to 8; 1 without a good one."""
    with suppress(Exception):  # PIL's, of any kind, for a damaged tag
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if orientation in range(1, 9):
            return orientation
    return 1


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Reads (width, height) from a picture's header, without decoding its pixels.

    Raises:
        ImageError: as :func:`read_image`, as far as the header shows it.
    """
    with _open_picture(path) as image:
        return image.size


@contextmanager
def _open_picture(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except Exception as error:  # PIL's decoders meet damaged files with exceptions of any kind
        raise ImageError(f"cannot read the picture {path}: {_reason(error)}") from error


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
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels; replace it with a smaller one"
    return f"{str(error) or type(error).__name__}; {replace}"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; save it with 8 bits a channel")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def list_pictures(folder: Path) -> list[str]:
    """Lists the names of the pictures (by PICTURE_SUFFIXES; hidden files left out) that lie in `folder`, sorted.

    Raises:
        UserError: the folder cannot be listed.
    """
    return _select_pictures(_scan(folder))


def list_folders(folder: Path) -> list[str]:
    """Lists the names of the folders (hidden ones and systems' own left out) that lie in `folder`, sorted.

    Raises:
        UserError: the folder cannot be listed.
    """
    return _select_folders(_scan(folder))


def list_class_pictures(folder: Path, may_be_empty: bool = False) -> dict[str, list[str]]:
    """Lists a folder of class folders as torchvision's ImageFolder does, sub-folders included.

    Links are followed, but never back to a folder that leads to them.

    Args:
        folder: the folder of class folders.
        may_be_empty: whether some of the class folders, not all, may hold no picture.

    Returns:
        Class name -> its pictures' paths below the class folder ("x.jpg", "2020/x.jpg"), both in ImageFolder's order.

    Raises:
        UserError: there is no class folder, one of them holds no picture, or a folder cannot be listed.
    """
    root = Path(os.path.realpath(folder))
    above = frozenset(map(str, (root, *root.parents)))
    pictures = {name: _list_below(folder / name, above) for name in list_folders(folder)}
    if not pictures:
        raise UserError(f"{folder} holds no class folders; put the pictures into one folder per class there")
    empty = [name for name, names in pictures.items() if not names]
    if empty and not (may_be_empty and len(empty) < len(pictures)):
        raise UserError(
            f"{folder / empty[0]} holds no picture ({', '.join(PICTURE_SUFFIXES)}), as {len(empty)} of "
            f"{len(pictures)} class folders do; unpack its pictures or remove the folder"
        )
    return pictures


def describe_folders(pictures: Mapping[str, Sequence[str]]) -> str:
    """What is unusual about class folders, of :func:`list_class_pictures`, to go on a layout's phrase; mostly ""."""
    empty = [name for name, names in pictures.items() if not names]
    nested = sum("/" in picture for names in pictures.values() for picture in names)
    told = f", {nested} pictures in sub-folders of their class" if nested else ""
    first = f", the first {empty[0]}" if empty else ""
    return told + (f", {len(empty)} of {len(pictures)} class folders without a picture{first}" if empty else "")


def _list_below(folder: Path, above: frozenset[str]) -> list[str]:
    """The pictures of a class folder; `above` are the real paths of the folders that lead to it."""
    found, waiting = {}, [("", above)]
    while waiting:
        place, above = waiting.pop()
        real = os.path.realpath(folder / place)
        if real in above:
            continue
        entries, prefix = _scan(folder / place), f"{place}/" if place else ""
        found[place] = [prefix + name for name in _select_pictures(entries)]
        waiting += [(prefix + name, above | {real}) for name in _select_folders(entries)]
    return [name for place in sorted(found) for name in found[place]]


def require_pictures(folder: Path, names: Sequence[str], listed_in: Path, mend: str) -> None:
    """Checks that the pictures a list names exist, with one listing per class folder and not a look-up per file.

    Args:
        folder: where the names start.
        names: paths below `folder`, e.g. "001.Black_footed_Albatross/x.jpg".
        listed_in: the list, for the message.
        mend: what the user can do, for the message.

    Raises:
        UserError: pictures are missing; the first is named and all are counted.
    """
    by_parent = defaultdict(set)
    for name in names:
        by_parent[(folder / name).parent].add(name)
    missing = set()
    for parent, members in by_parent.items():
        present = {entry.name for entry in _scan(parent)} if os.path.isdir(parent) else set()
        missing.update(name for name in members if os.path.basename(name) not in present)
    if missing:
        first = next(name for name in names if name in missing)
        raise UserError(
            f"{folder / first} is missing: {len(missing)} of the {len(names)} pictures that {listed_in} names are not "
            f"there; {mend}"
        )


def find_pictures(patterns: Sequence[str]) -> list[Path]:
    """Finds the pictures that a command line names.

    Args:
        patterns: each a file (taken whatever its suffix), a folder (its pictures and those of its folders, sorted;
            hidden ones left out) or a glob that the shell did not expand (`*`, `?`, `[...]`, `**` for any folders).

    Returns:
        The pictures in the order of the patterns, each once.

    Raises:
        UsageError: a pattern matches no picture.
        UserError: a folder cannot be listed.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        # What exists is never a glob: photo[1].jpg is a fine name.
        matches = [Path(pattern)] if os.path.exists(pattern) else _expand(pattern)
        pictures = [picture for match in matches for picture in (_walk(match) if match.is_dir() else (match,))]
        if not pictures:
            raise UsageError(
                f"{pattern!r} is no file and matches no picture ({', '.join(PICTURE_SUFFIXES)}); check the path"
            )
        for picture in pictures:
            found.setdefault(os.path.abspath(picture), picture)
    return list(found.values())


def _expand(pattern: str) -> list[Path]:
    matches = map(Path, sorted(glob.glob(pattern, recursive=True)))
    return [path for path in matches if path.is_dir() or _is_picture_name(path.name)]


def _walk(folder: Path) -> list[Path]:
    pictures = []
    for parent, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = filter(_is_own_folder, folders)
        pictures += [Path(parent, name) for name in names if _is_picture_name(name)]
    return sorted(pictures)


def _is_picture_name(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def _is_own_folder(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _SYSTEM_FOLDERS


def _select_pictures(entries: Sequence[os.DirEntry]) -> list[str]:
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
