"""Composes the demo's data set: photographed animals set into photographed places, in CUB-200-2011's file layout.

The repository carries 29 cut-out photographs of animals and 84 views of 30 places (`pictures/`, with their sources and
licences in `pictures/CREDITS.md`). No place of the test split occurs in the training split, and in six of the twelve
classes every third test picture shows an animal that occurs in no training picture. The place is drawn independently of
the class, so that only the animal tells the class.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.data.images import ImageError, open_picture
from utils.system.errors import UsageError, UserError
from utils.system.files import read_json

VERSION = 1  # raise it whenever the composition changes, so that data sets composed by older code are made anew

# One animal of each class that has three, and a quarter of the places.
TEST_ANIMALS = frozenset({"bull", "doe", "hen", "penguin", "pig", "rabbit"})
TEST_PLACES = frozenset({"bark", "blades", "dune", "hedge", "jetty", "mountains", "snow", "stream"})

SEEN = 0.35  # opacity above which a pixel belongs to the animal; below one half, so that thin legs and horns do
RECORD = "composition.json"
LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt", "classes.txt")
ENTRIES = frozenset({"images", "segmentations", RECORD, *LISTS})


@dataclass(frozen=True)
class Composite:
    """One composed picture: `image` (H, W, 3) uint8 RGB, `mask` (H, W) bool of the visible animal, and its sources."""

    image: np.ndarray
    mask: np.ndarray
    animal: Path
    place: Path


def pictures_folder() -> Path:
    """The folder of the shipped photographs: `animals/<class>/*.webp` and `backgrounds/<place>_<view>.jpg`."""
    return Path(__file__).resolve().parent / "pictures"


def class_names() -> tuple[str, ...]:
    """The demo's classes in the order of their labels."""
    return tuple(sorted({path.parent.name for path in _pictures("animals/*/*.webp")}))


def animals(class_name: str, train: bool) -> list[Path]:
    """The cut-outs of a class that training shows, or those that only test pictures show, sorted by name."""
    return [path for path in _pictures(f"animals/{class_name}/*.webp") if (path.stem not in TEST_ANIMALS) == train]


def places(train: bool) -> list[Path]:
    """The views of places that belong to the training or to the test split, sorted by name."""
    return [path for path in _pictures("backgrounds/*.jpg") if (place_name(path) not in TEST_PLACES) == train]


def place_name(view: Path) -> str:
    """The place that a view shows: "dune" for `dune_2.jpg`."""
    return view.stem.rsplit("_", 1)[0]


def compose(folder: Path, size: int = 160, train_per_class: int = 43, test_per_class: int = 18, seed: int = 0) -> Path:
    """Composes the demo data set in `folder`, or reuses it if it was composed with the same parameters before.

    Written are `images/<nnn.Class_Name>/<name>.jpg`, `segmentations/<nnn.Class_Name>/<name>.png` (255 where the animal
    is visible, else 0), and CUB's lists, whose boxes `x y width height` (original pixels) enclose the masks tightly.
    The folder appears under its name only when it is complete; other parameters replace what was composed there.

    Args:
        folder: where the data set belongs; made if missing.
        size: geometric mean of a picture's width and height in pixels, at least 48; the aspect ratio varies.
        train_per_class: training pictures of each of the 12 classes.
        test_per_class: test pictures of each class.
        seed: of every random decision; each picture depends on nothing but the seed and its own number.

    Returns:
        The folder's absolute path.

    Raises:
        UsageError: a parameter is out of range.
        UserError: `folder` holds files that are not the demo's, or cannot be written, or shipped pictures are missing.
    """
    if size < 48 or train_per_class < 1 or test_per_class < 1 or seed < 0:
        raise UsageError(
            "the demo needs a size of at least 48 pixels, one picture or more per class and split, and a seed of 0 or "
            f"more; got size {size}, {train_per_class} training and {test_per_class} test pictures, seed {seed}"
        )
    folder = Path(folder).resolve()
    counts = {"train_per_class": train_per_class, "test_per_class": test_per_class}
    record = {"version": VERSION, "size": size, **counts, "seed": seed, "pictures": _fingerprint()}
    if _is_composed(folder, record):
        return folder
    _refuse_foreign_files(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write_dataset(temporary, size, train_per_class, test_per_class, seed)
        (temporary / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise UserError(
            f"cannot compose the demo's pictures in {folder}: {error.strerror or error}; free some space or choose "
            "another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def compose_picture(label: int, number: int, train: bool, size: int, seed: int) -> Composite:
    """Composes one picture.

    Args:
        label: class of the animal, from 0.
        number: the picture's number within its class and split, from 0; the class's cut-outs take turns by it.
        train: whether the picture is of the training split; in classes with a test-only animal every third test
            picture shows it.
        size: geometric mean of width and height in pixels.
        seed: of the data set; the random stream is that of (seed, split, label, number).
    """
    rng = np.random.default_rng([seed, int(train), label, number])
    name = class_names()[label]
    known, unknown = animals(name, train=True), animals(name, train=False)
    turn, third = divmod(number, 3)
    if train or not unknown:
        animal = known[number % len(known)]
    else:
        animal = unknown[turn % len(unknown)] if third == 0 else known[(2 * turn + third - 1) % len(known)]
    views = places(train)
    place = views[rng.integers(len(views))]
    aspect = np.exp(rng.uniform(-0.18, 0.25))
    width, height = round(size * aspect), round(size / aspect)
    ground = _view_of_place(_read(place), width, height, rng)
    colour, alpha = _placed_animal(_read(animal), width, height, rng)
    shown = 1 - _occluder(alpha, rng)
    if (alpha * shown).sum() < 0.6 * alpha.sum():  # too little would be left to recognise
        shown = np.ones_like(shown)
    visible = alpha * shown
    colour = _lit_like(colour, ground, visible, rng)
    scene = ground * (1 - _contact_shadow(alpha, rng) * shown)[..., None]
    scene = scene * (1 - visible[..., None]) + colour * visible[..., None]
    return Composite(_photographed(scene, rng), visible > SEEN, animal, place)


def _pictures(pattern: str) -> list[Path]:
    paths = sorted(pictures_folder().glob(pattern))
    if not paths:
        raise UserError(f"no demo pictures match {pictures_folder() / pattern}; restore them from the repository")
    return paths


def _fingerprint() -> int:
    crc = 0
    for path in _pictures("animals/*/*.webp") + _pictures("backgrounds/*.jpg"):
        crc = zlib.crc32(path.read_bytes(), zlib.crc32(f"{path.parent.name}/{path.name}".encode(), crc))
    return crc


def _is_composed(folder: Path, record: dict[str, int]) -> bool:
    try:
        found: object = read_json(folder / RECORD, "is no record of the demo's pictures", "compose them anew")
        return found == record and all((folder / name).exists() for name in ENTRIES)
    except (OSError, UserError):
        return False


def _refuse_foreign_files(folder: Path) -> None:
    """Only a folder that `compose` made, or an empty one, may be replaced: never a real data set or a user's files."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; choose another place for the demo's pictures")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if names and (RECORD not in names or names - ENTRIES):
        raise UserError(f"{folder} holds files that are not the demo's; choose another folder for the demo's pictures")


def _write_dataset(folder: Path, size: int, train_per_class: int, test_per_class: int, seed: int) -> None:
    lines: dict[str, list[str]] = {name: [] for name in LISTS}
    for label, class_name in enumerate(class_names()):
        directory = f"{label + 1:03d}.{class_name}"
        lines["classes.txt"].append(f"{label + 1} {directory}")
        (folder / "images" / directory).mkdir(parents=True)
        (folder / "segmentations" / directory).mkdir(parents=True)
        for train, number in [(True, n) for n in range(train_per_class)] + [(False, n) for n in range(test_per_class)]:
            composite = compose_picture(label, number, train, size, seed)
            name = f"{directory}/{class_name}_{'train' if train else 'test'}_{number:04d}_{composite.animal.stem}"
            Image.fromarray(composite.image).save(folder / "images" / f"{name}.jpg", quality=92)
            Image.fromarray(composite.mask.astype(np.uint8) * 255).save(folder / "segmentations" / f"{name}.png")
            image_id = len(lines["images.txt"]) + 1
            x, y, width, height = cv2.boundingRect(composite.mask.astype(np.uint8))
            lines["images.txt"].append(f"{image_id} {name}.jpg")
            lines["image_class_labels.txt"].append(f"{image_id} {label + 1}")
            lines["train_test_split.txt"].append(f"{image_id} {int(train)}")
            lines["bounding_boxes.txt"].append(f"{image_id} {x:.1f} {y:.1f} {width:.1f} {height:.1f}")
    for name, content in lines.items():
        (folder / name).write_text("\n".join(content) + "\n", encoding="utf-8")


def _read(path: Path) -> np.ndarray:
    """A shipped picture as (H, W, 3) or, with its alpha channel, (H, W, 4) float32 in [0, 1], RGB order."""
    try:
        with open_picture(path) as image:
            return np.asarray(image.convert("RGBA" if path.suffix == ".webp" else "RGB"), np.float32) / 255
    except ImageError as error:
        raise UserError(
            f"cannot read the demo picture {path}: {error.__cause__}; restore it from the repository"
        ) from error


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _view_of_place(place: np.ndarray, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A random window of the picture's aspect ratio, often mirrored and sometimes out of focus: (H, W, 3)."""
    rows, columns = place.shape[:2]
    scale = rng.uniform(0.6, 1.0) * min(columns / width, rows / height)
    w, h = int(width * scale), int(height * scale)
    x, y = rng.integers(columns - w + 1), rng.integers(rows - h + 1)
    view = place[y : y + h, x : x + w]
    view = _resized(view[:, ::-1] if rng.random() < 0.5 else view, width, height)
    return cv2.GaussianBlur(view, (0, 0), rng.uniform(0.3, 1.5))


def _placed_animal(
    cutout: np.ndarray, width: int, height: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The cut-out mirrored, tilted, scaled and moved: colour (H, W, 3), alpha (H, W); some reach over the edge."""
    if rng.random() < 0.5:
        cutout = cutout[:, ::-1]
    cutout = np.concatenate([cutout[..., :3] * cutout[..., 3:], cutout[..., 3:]], axis=2)  # premultiplied by alpha
    h, w = cutout.shape[:2]
    share = rng.uniform(np.sqrt(0.14), np.sqrt(0.62)) ** 2  # of the picture's area, for the animal's box
    scale = np.sqrt(share * width * height / (w * h))
    scale = min(scale, 0.96 * width / w, 0.96 * height / h)
    w, h = scale * w, scale * h
    left = rng.uniform(0, width - w)
    top = (height - h) * rng.beta(2.0, 1.0)  # on the ground more often than in the sky
    if rng.random() < 0.12:  # cut by the left, right or lower edge of the picture
        reach = rng.uniform(0.1, 0.3)
        over = [(-reach * w, top), (width - (1 - reach) * w, top), (left, height - (1 - reach) * h)]
        left, top = over[rng.integers(3)]
    small = _resized(cutout, max(1, round(w)), max(1, round(h)))
    matrix = cv2.getRotationMatrix2D((w / 2, h / 2), rng.uniform(-7, 7), 1.0)
    matrix[:, 2] += left, top
    layer = cv2.warpAffine(small, matrix, (width, height), flags=cv2.INTER_LINEAR)
    layer = cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.3, 0.7)).clip(0, 1)  # softens the cut edge
    return layer[..., :3] / np.maximum(layer[..., 3:], 1e-3), layer[..., 3]


def _occluder(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where the place stands before the animal, (H, W) in [0, 1]: mostly nowhere, else a ragged rise from below."""
    height, width = alpha.shape
    rows = np.flatnonzero((alpha > SEEN).any(axis=1))
    if rng.random() > 0.15 or not len(rows):
        return np.zeros_like(alpha)
    depth = rng.uniform(0.1, 0.3)  # of the animal's height
    waves = cv2.resize(rng.normal(size=(1, 6)), (width, 1), interpolation=cv2.INTER_CUBIC)[0]
    blades = rng.normal(size=width)
    extent = rows[-1] + 1 - rows[0]
    edge = rows[-1] + 1 - extent * (depth + 0.04 * waves + 0.03 * blades)
    covered = (np.arange(height)[:, None] >= edge).astype(np.float32)
    return cv2.GaussianBlur(covered, (0, 0), 0.9)


def _lit_like(colour: np.ndarray, ground: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moves the animal's mean colour some way towards the light of the place."""
    weight = alpha.sum() + 1e-3
    own = (colour * alpha[..., None]).sum(axis=(0, 1)) / weight
    light = ground.mean(axis=(0, 1))
    gain = ((light + 0.25) / (own + 0.25)) ** rng.uniform(0.1, 0.35)
    return (colour * gain).clip(0, 1)


def _contact_shadow(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darkness of the soft shadow around the animal's feet, (H, W) in [0, 1]."""
    x, y, width, height = cv2.boundingRect((alpha > SEEN).astype(np.uint8))
    shadow = np.zeros_like(alpha)
    axes = (int(0.45 * width), int(0.08 * width) + 1)
    cv2.ellipse(shadow, (x + width // 2, y + height - 1), axes, 0, 0, 360, 1.0, -1)
    return rng.uniform(0.15, 0.45) * cv2.GaussianBlur(shadow, (0, 0), 1 + 0.05 * width)


def _photographed(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, contrast, colour cast, focus and grain of one camera over the whole picture: uint8."""
    scene = scene.clip(0, 1) ** np.exp(rng.normal(0, 0.18))
    scene = (scene - 0.5) * rng.uniform(0.8, 1.15) + 0.5 + rng.normal(0, 0.03)
    scene = scene * np.exp(rng.normal(0, 0.05, size=3))
    scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.2, 0.6))
    scene = scene + rng.normal(0, rng.uniform(0.0, 0.02), size=scene.shape)
    return (scene.clip(0, 1) * 255).round().astype(np.uint8)
