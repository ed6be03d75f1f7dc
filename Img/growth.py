"""`result.gif`: how the foreground maps of a few pictures grow while the network is trained."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.data.class_names import short_name
from utils.data.evaluation import read_pictures
from utils.data.split import Split, spread
from utils.data.transforms import centre_crop, denormalize
from utils.drawing import INK, PREDICTED_COLOUR, TRUE_COLOUR, draw_box, lay_over
from utils.errors import UserError
from utils.evaluation.maps import grid_of
from utils.evaluation.question import Question, build_question
from utils.evaluation.run import true_boxes
from utils.files import write_atomically
from utils.inference.loading import Loaded
from utils.training.snapshots import FOLDER, Snapshot, list_snapshots, read_snapshot

PICTURES, FRAMES = 6, 12
WIDTH, MARGIN, TOP, BOTTOM = 880, 6, 30, 40  # pixels; GitHub shows no more in width
LEAST_COLUMNS = 4  # fewer pictures do not grow any further
FONT_SIZE, LINE = 14, 17
# In the title's line: what colours and boxes mean; places in pixels.
KEYS = (600, 720)
LEGEND = np.s_[10:21, 470:550]
LEGEND_WORDS = ((400, "map  0"), (555, "1"), (622, "true box"), (742, "box of this map"))
LAST_FRAME, FRAME, SHORTEST_FRAME, DURATION = 3000, 800, 120, 8000  # milliseconds; of all frames but the last
LARGEST = 2 * 2**20  # bytes


class Subject(NamedTuple):
    """One of the pictures that are shown."""

    image: np.ndarray  # (S, S, 3) uint8 RGB, the centre crop
    name: str  # of its class
    boxes: np.ndarray  # (n, 4) true ones, xyxy in crop pixels


def draw_growth(
    path: Path, run: Path, loaded: Loaded, split: Split, pictures: int = PICTURES, frames: int = FRAMES
) -> Path:
    """Draws a run's snapshots as an animation that loops: pictures with their true boxes, below them the foreground
    map of each one's class with its box.

    Colours show the map's own value, 0 to 1, not stretched in each frame: so growth is seen. The box is that of this
    one map, stretched, at the run's threshold; the run's evaluation may fuse the maps of k classes. Each frame is a
    snapshot, none is interpolated. The numbers are areas as L_ac means them: means of the map (paper section 3.3).

    Args:
        path: the GIF to write, 880 pixels wide.
        run: the run's folder.
        loaded: its network and settings.
        split: the pictures that were watched.
        pictures: at most so many of them, spread evenly.
        frames: at most so many of the epochs, spread evenly, the first and the last one among them.

    Raises:
        UserError: there are no snapshots, they do not fit together or to the data, or the file would be larger than
            2 MiB.
    """
    snapshots = _choose_snapshots(run, frames)
    first = next(iter(snapshots.values()))
    chosen = spread(np.ones(len(first.ids)), pictures)
    question = build_question(loaded.recipe, loaded.protocol, ten_crops=False)
    subjects = _read_subjects(split, first.ids[chosen].tolist(), question)
    drawn = [
        _draw_frame(
            f"epoch {epoch} of {max(snapshots)}", subjects, snapshot.maps[chosen].astype(np.float32), loaded, question
        )
        for epoch, snapshot in snapshots.items()
    ]
    content = _encode(drawn)
    if len(content) > LARGEST:
        raise UserError(
            f"{path} would take {len(content) / 2**20:.1f} MiB, more than {LARGEST // 2**20}; give fewer --frames than "
            f"{len(drawn)}"
        )
    return write_atomically(path, lambda file: file.write_bytes(content))


def _choose_snapshots(run: Path, frames: int) -> dict[int, Snapshot]:
    """Finished epochs -> snapshot, all of the same pictures."""
    paths = list_snapshots(run)
    if not paths:
        raise UserError(f"{run / FOLDER} holds no snapshots; train the run with --snapshot {PICTURES}")
    epochs = [list(paths)[index] for index in spread(np.ones(len(paths)), frames)]
    snapshots = {epoch: read_snapshot(paths[epoch]) for epoch in epochs}
    first = snapshots[epochs[0]]
    for epoch, snapshot in snapshots.items():
        if not np.array_equal(snapshot.ids, first.ids) or snapshot.maps.shape != first.maps.shape:
            raise UserError(
                f"{paths[epoch]} shows other pictures than {paths[epochs[0]]}, or maps of another size; delete one of "
                "the two"
            )
    return snapshots


def _read_subjects(split: Split, ids: Sequence[str], question: Question) -> list[Subject]:
    places = {image_id: index for index, image_id in enumerate(split.ids)}
    missing = [image_id for image_id in ids if image_id not in places]
    if missing:
        raise UserError(f"the snapshots show {missing[0]}, which is not in the data; give the run's own with --data")
    batch = read_pictures(split, [places[image_id] for image_id in ids], question.resize_size)
    crops = denormalize(centre_crop(batch.images, question.crop_size))
    subjects = []
    for crop, image_id, size in zip(crops, ids, batch.sizes.tolist(), strict=True):
        index, boxes = places[image_id], np.empty((0, 4))
        if len(split.boxes.get(image_id, ())):
            boxes = true_boxes(split, index, size, question)
        name = short_name(split.class_names[split.labels[index]])
        subjects.append(Subject(crop, name, boxes))
    return subjects


def _draw_frame(
    title: str, subjects: Sequence[Subject], maps: np.ndarray, loaded: Loaded, question: Question
) -> Image.Image:
    """One frame: a title, the pictures side by side, below them the maps."""
    side = (WIDTH - MARGIN) // max(len(subjects), LEAST_COLUMNS) - MARGIN
    tops, lefts = (TOP, TOP + side + MARGIN), [MARGIN + n * (side + MARGIN) for n in range(len(subjects))]
    frame = np.full((tops[1] + side + BOTTOM, WIDTH, 3), 255, dtype=np.uint8)
    for left, subject, foreground_map in zip(lefts, subjects, maps, strict=True):
        image = cv2.resize(subject.image, (side, side), interpolation=cv2.INTER_LINEAR)
        cells = frame[:, left : left + side]
        cells[tops[0] : tops[0] + side] = _draw_picture(image, subject.boxes / question.crop_size)
        cells[tops[1] : tops[1] + side] = _draw_map(image, foreground_map, loaded, question)
    frame[LEGEND] = lay_over(np.full((11, 80), 128, dtype=np.uint8), np.tile(np.linspace(0, 1, 80), (11, 1)))
    image = Image.fromarray(frame)
    draw, font = ImageDraw.Draw(image), _font()
    for left, text in ((MARGIN, f"{title}, mean area {maps.mean():.2f}"), *LEGEND_WORDS):
        draw.text((left, 6), text, INK, font)
    for left, colour in zip(KEYS, (TRUE_COLOUR, PREDICTED_COLOUR), strict=True):
        draw.rectangle((left, 9, left + 16, 20), outline=colour, width=3)
    for left, subject, foreground_map in zip(lefts, subjects, maps, strict=True):
        for line, words in enumerate((subject.name, f"area {foreground_map.mean():.2f}")):
            draw.text((left, tops[1] + side + 2 + line * LINE), _fit(words, side, font), INK, font)
    return image


def _fit(words: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """The words, cut where they would be wider than so many pixels."""
    if font.getlength(words) <= width:
        return words
    return next(cut for end in range(len(words) - 1, -1, -1) if font.getlength(cut := f"{words[:end]}…") <= width)


def _draw_picture(image: np.ndarray, true_boxes: np.ndarray) -> np.ndarray:
    """The picture (side, side, 3) with boxes given as shares of its side."""
    image = image.copy()
    for box in true_boxes:
        draw_box(image, box * len(image), TRUE_COLOUR)
    return image


def _draw_map(image: np.ndarray, foreground_map: np.ndarray, loaded: Loaded, question: Question) -> np.ndarray:
    """The map over the grey picture (side, side, 3), with its box; a map that is not finite is drawn as zeros."""
    side, kind = len(image), question.main
    grid = grid_of(loaded.model, kind) if question.align else None
    is_finite = np.isfinite(foreground_map).all()
    shown_map = foreground_map if is_finite else np.zeros_like(foreground_map)
    strength = question.protocol.upsample(shown_map, question.crop_size, grid)
    strength = cv2.resize(strength.clip(0, 1), (side, side), interpolation=cv2.INTER_LINEAR)
    shown = lay_over(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), strength)
    if is_finite:
        score_map = question.score_map(loaded.model, kind, foreground_map)
        box = question.protocol.boxes(score_map, (question.thresholds[kind],))[0]
        draw_box(shown, box * side / question.crop_size, PREDICTED_COLOUR)
    return shown


def _font() -> ImageFont.FreeTypeFont:
    """The one that matplotlib brings along, as in the other figures."""
    try:
        from matplotlib import get_data_path
    except ImportError as error:
        raise UserError("the font is matplotlib's, which is missing; pip install -r requirements.txt") from error
    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), FONT_SIZE)


def _encode(frames: Sequence[Image.Image]) -> bytes:
    """A GIF with one palette for all frames, so that nothing flickers."""
    strip = Image.new("RGB", (frames[0].width, sum(frame.height for frame in frames)))
    for number, frame in enumerate(frames):
        strip.paste(frame, (0, number * frame.height))
    colours = np.array(strip.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=2).getpalette()).reshape(-1, 3)
    colours[colours.min(axis=1) >= 248] = 255  # the page's white stays white
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.ravel().tolist())
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    duration = max(SHORTEST_FRAME, min(FRAME, DURATION // len(drawn)))
    durations = [duration] * (len(drawn) - 1) + [LAST_FRAME]
    file = io.BytesIO()
    drawn[0].save(file, "GIF", save_all=True, append_images=drawn[1:], duration=durations, loop=0, optimize=False)
    return file.getvalue()
