"""`result.gif`: how the foreground maps of a few pictures grow while the network is trained."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.data.split import Split, spread
from utils.evaluation.gallery import Subject, read_subjects
from utils.evaluation.spec import EvaluationSpec, build_spec
from utils.inference.loading import Loaded
from utils.inference.placing import place_maps
from utils.results.drawing import PREDICTED_COLOUR, TRUE_COLOUR, draw_box, lay_over
from utils.results.sheet import MARGIN, SCALE, Cell, Entry, draw_sheet
from utils.runs.settings import SNAPSHOTS
from utils.system.errors import UserError
from utils.system.files import write_atomically
from utils.training.snapshots import Snapshot, list_snapshots, read_snapshot

PICTURES, FRAMES = 6, 12
WIDTH, LEAST_COLUMNS = 880, 4  # at most so many pixels, as GitHub shows them; fewer pictures do not grow any further
FONT_SIZE = 14  # pixels
KEY = (Entry("true box", TRUE_COLOUR), Entry("box of this map", PREDICTED_COLOUR), Entry("map, 0 to 1", SCALE))
LAST_FRAME, FRAME, SHORTEST_FRAME, DURATION = 3000, 800, 120, 8000  # milliseconds; of all frames but the last
LARGEST = 2 * 2**20  # bytes


def draw_growth(
    path: Path, run: Path, loaded: Loaded, split: Split, pictures: int = PICTURES, frames: int = FRAMES
) -> Path:
    """Draws a run's snapshots as an animation that loops: pictures with their true boxes, below them the foreground
    map of each one's class with its box.

    Colours show the map's own value, 0 to 1, not stretched in each frame: so growth is seen. The box is that of this
    one map, stretched, at the run's threshold; the run's evaluation may fuse the maps of k classes. Each frame is a
    snapshot, none is interpolated. The numbers are areas as L_ac means them: means of the map (paper section 3.3).

    Args:
        path: the GIF to write, at most 880 pixels wide.
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
    spec = place_maps(loaded, build_spec(loaded.recipe, loaded.protocol, ten_crops=False))
    subjects = _read_watched(split, first.ids[chosen].tolist(), spec)
    last = max(snapshots)
    drawn = [
        _draw_frame(f"epoch {epoch} of {last}", subjects, one.maps[chosen].astype(np.float32), loaded, spec)
        for epoch, one in snapshots.items()
    ]
    content = _encode(drawn)
    if len(content) > LARGEST:
        size = f"{len(content) / 2**20:.1f} MiB, more than {LARGEST // 2**20}"
        raise UserError(f"{path} would take {size}; give fewer --frames than {len(drawn)}")
    return write_atomically(path, lambda file: file.write_bytes(content))


def _choose_snapshots(run: Path, frames: int) -> dict[int, Snapshot]:
    """Finished epochs -> snapshot, all of the same pictures."""
    paths = list_snapshots(run)
    if not paths:
        raise UserError(f"{run / SNAPSHOTS} holds no snapshots; train the run with --snapshot {PICTURES}")
    epochs = [list(paths)[index] for index in spread(np.ones(len(paths)), frames)]
    snapshots = {epoch: read_snapshot(paths[epoch]) for epoch in epochs}
    first = snapshots[epochs[0]]
    for epoch, snapshot in snapshots.items():
        if not np.array_equal(snapshot.ids, first.ids) or snapshot.maps.shape != first.maps.shape:
            other = f"other pictures than {paths[epochs[0]]}, or maps of another size"
            raise UserError(f"{paths[epoch]} shows {other}; delete one of the two")
    return snapshots


def _read_watched(split: Split, ids: Sequence[str], spec: EvaluationSpec) -> list[Subject]:
    places = {image_id: index for index, image_id in enumerate(split.ids)}
    missing = [image_id for image_id in ids if image_id not in places]
    if missing:
        raise UserError(f"the snapshots show {missing[0]}, which is not in the data; give the run's own with --data")
    return read_subjects(split, [places[image_id] for image_id in ids], spec)[1]


def _draw_frame(
    title: str, subjects: Sequence[Subject], maps: np.ndarray, loaded: Loaded, spec: EvaluationSpec
) -> Image.Image:
    """One frame: the pictures side by side, below them the maps; the title behind the key, where it moves nothing."""
    side = (WIDTH - MARGIN) // max(len(subjects), LEAST_COLUMNS) - MARGIN
    pictures, below = [], []
    for subject, foreground_map in zip(subjects, maps, strict=True):
        image = cv2.resize(subject.image, (side, side), interpolation=cv2.INTER_LINEAR)
        shown = _draw_map(image, foreground_map, loaded, spec)
        below.append(Cell(shown, (subject.name, f"area {foreground_map.mean():.2f}")))
        for box in subject.boxes:
            draw_box(image, box * side / spec.crop_size, TRUE_COLOUR)
        pictures.append(Cell(image))
    key = (*KEY, Entry(f"{title}, mean area {maps.mean():.2f}"))
    return draw_sheet([pictures, below], key, side, FONT_SIZE, LEAST_COLUMNS)


def _draw_map(image: np.ndarray, foreground_map: np.ndarray, loaded: Loaded, spec: EvaluationSpec) -> np.ndarray:
    """The map over the grey picture (side, side, 3), with its box; a map that is not finite is drawn as zeros."""
    side, kind = len(image), spec.main
    place = spec.placement(loaded.model, kind)
    is_finite = np.isfinite(foreground_map).all()
    shown_map = foreground_map if is_finite else np.zeros_like(foreground_map)
    strength = spec.protocol.upsample(shown_map, spec.crop_size, place)
    strength = cv2.resize(strength.clip(0, 1), (side, side), interpolation=cv2.INTER_LINEAR)
    shown = lay_over(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), strength)
    if is_finite:
        score_map = spec.score_map(loaded.model, kind, foreground_map)
        box = spec.protocol.boxes(score_map, (spec.thresholds[kind],))[0]
        draw_box(shown, box * side / spec.crop_size, PREDICTED_COLOUR)
    return shown


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
