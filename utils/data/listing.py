"""Lists the pictures and class folders of a folder: what counts as one, and what is passed over."""

from __future__ import annotations

import functools
import glob
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from utils.data.images import PICTURE_SUFFIXES
from utils.system.errors import UsageError, UserError

# What systems put among a user's folders: thumbnails, waste baskets, snapshots, macOS' halves of files.
_SYSTEM_FOLDERS = frozenset(
    ("@eadir", "@tmp", "@recycle", "@__thumb", "#recycle", "#snapshot", "$recycle.bin")
    + ("system volume information", "lost+found", "__macosx")
)


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
    entries = _scan(folder)
    passed_over.update(_count_suffixes(entry.name for entry in entries if not _is_folder(entry)))
    pictures = {name: _list_below(folder / name, above, passed_over) for name in _select_folders(entries)}
    if not pictures:
        raise UserError(
            f"{folder} holds no class folders{passed_over_phrase(passed_over)}; put the pictures into one folder per "
            "class there"
        )
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
        for place, path in zip(places_of(pictures), pictures, strict=True):
            found.setdefault(place, path)
        others |= {place: path.name for place, path in zip(places_of(passed), passed, strict=True)}
    if passed_over is not None:
        passed_over.update(_count_suffixes(name for place, name in others.items() if place not in found))
    return list(found.values())


def places_of(files: Iterable[Path], follow: bool = False) -> list[str]:
    """Where files lie, whatever links lead to their folders; with `follow`, where files that are links themselves lead
    to."""
    real = functools.cache(os.path.realpath)
    places = [os.path.join(real(path.parent), path.name) for path in files]
    return [os.path.realpath(place) if follow and os.path.islink(place) else place for place in places]


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
    if entry.is_symlink() and _is_picture_name(entry.name):  # taken for what its name says, without asking
        return False
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
