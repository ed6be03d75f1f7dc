"""`result.gif`: each frame is a snapshot, drawn with the map's own values; bad snapshots are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import CUB.Model
from Img import growth
from Img.growth import draw_growth
from tests.test_amc import TinyBAS
from utils.data.split import Split
from utils.evaluation.protocols import PROTOCOLS
from utils.inference.loading import Loaded
from utils.results.drawing import PREDICTED_COLOUR, TRUE_COLOUR
from utils.results.sheet import MARGIN
from utils.runs.recorded import Recorded
from utils.runs.settings import SNAPSHOTS
from utils.system.errors import UserError
from utils.training.snapshots import snapshot_path

GREY = 120
SIDE = (growth.WIDTH - MARGIN) // 4 - MARGIN  # of a picture, where there are four or fewer
TOP, BOTTOM = 30, 36  # pixels: of the key, and of the words below
BOX = (10, 20, 30, 40)  # in crop pixels of 48; the crop begins at 8 of 64
RECIPE = replace(CUB.Model.recipe("mobilenet"), resize_size=64, crop_size=48, threshold=0.5, align_maps="stretched")
LOADED = Loaded(
    CUB.DATASET,
    None,
    Recorded(),
    TinyBAS(),
    RECIPE,
    PROTOCOLS["authors"],
    tuple("abcde"),
    torch.device("cpu"),
    amp=False,
)


@pytest.fixture
def split(tmp_path) -> Split:
    """Four plain grey pictures."""
    ids = tuple(f"{letter}.png" for letter in "abcd")
    for name in ids:
        Image.new("RGB", (64, 64), (GREY,) * 3).save(tmp_path / name)
    boxes = {name: np.array([BOX], dtype=float) + 8 for name in ids}
    labels = np.array([0, 1, 2, 3])
    return Split("test", "made by a test", ids, tuple(tmp_path / i for i in ids), labels, boxes, LOADED.class_names, {})


def save_snapshot(run: Path, epoch: int, maps: np.ndarray, ids: str = "abcd") -> Path:
    path = snapshot_path(run / SNAPSHOTS, epoch)
    path.parent.mkdir(exist_ok=True)
    names = np.array([f"{letter}.png" for letter in ids])
    np.savez_compressed(path, maps=maps.astype(np.float16), ids=names)
    return path


def flat(value: float, count: int = 4) -> np.ndarray:
    return np.full((count, 6, 6), value)


def read_frames(path: Path) -> list[np.ndarray]:
    frames = []
    with Image.open(path) as animation:
        for number in range(animation.n_frames):
            animation.seek(number)
            frames.append(np.asarray(animation.convert("RGB")).astype(int))
    return frames


def map_cell(frame: np.ndarray, column: int) -> np.ndarray:
    """The map of one picture, below the picture."""
    top, left = TOP + SIDE + MARGIN, MARGIN + column * (SIDE + MARGIN)
    return frame[top : top + SIDE, left : left + SIDE]


def colour_of(value: float) -> np.ndarray:
    """Six tenths of the colour map's colour and four of the grey picture."""
    colour = cv2.applyColorMap(np.array([[round(255 * value)]], np.uint8), cv2.COLORMAP_INFERNO)[0, 0, ::-1]
    return 0.6 * colour + 0.4 * GREY


def test_frames_show_values_and_not_ranks(tmp_path, split) -> None:
    """Protects growth itself: a frame's colours are the map's own values on a scale from 0 to 1, in every frame."""
    values = (0.0, 0.4, 1.0)
    for epoch, value in enumerate(values):
        save_snapshot(tmp_path, epoch, flat(value))
    path = draw_growth(tmp_path / "new" / "result.gif", tmp_path, LOADED, split)
    frames = read_frames(path)
    assert len(frames) == 3 and frames[0].shape == (TOP + 2 * (SIDE + MARGIN) + BOTTOM, MARGIN + 4 * (SIDE + MARGIN), 3)
    for frame, value in zip(frames, values, strict=True):
        for column in range(4):
            middle = map_cell(frame, column)[SIDE // 2, SIDE // 2]
            assert np.abs(middle - colour_of(value)).max() <= 8, (value, middle)  # one palette for all
    assert (frames[0][:TOP] != frames[1][:TOP]).any()  # the title counts


def test_it_loops_and_rests_at_the_end(tmp_path, split) -> None:
    """Protects the reader: the animation begins anew by itself, and shows the last epoch longest."""
    for epoch in range(4):
        save_snapshot(tmp_path, epoch, flat(epoch / 4))
    with Image.open(draw_growth(tmp_path / "result.gif", tmp_path, LOADED, split)) as animation:
        assert animation.info["loop"] == 0
        durations = []
        for number in range(animation.n_frames):
            animation.seek(number)
            durations.append(animation.info["duration"])
    assert len(durations) == 4 and durations[3] == growth.LAST_FRAME >= 2 * max(durations[:3])


def test_boxes(tmp_path, split) -> None:
    """Protects the boxes: the true one around the object in the picture, the map's own one around its hot square."""
    hot = flat(0.1)
    hot[:, 2:4, 1:3] = 0.9
    save_snapshot(tmp_path, 0, hot)
    (frame,) = read_frames(draw_growth(tmp_path / "result.gif", tmp_path, LOADED, split))
    for box, colour, top in ((BOX, TRUE_COLOUR, TOP), ((8, 16, 24, 32), PREDICTED_COLOUR, TOP + SIDE + MARGIN)):
        cell = frame[top : top + SIDE, MARGIN : MARGIN + SIDE]
        rows, columns = np.nonzero(np.abs(cell - colour).max(axis=2) <= 20)
        found = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        assert found == pytest.approx(np.array(box) * SIDE / 48, abs=4)


def test_few_frames_and_pictures(tmp_path, split) -> None:
    """Protects long runs: at most so many frames and pictures, evenly, the first and the last epoch among them."""
    for epoch in range(20):
        save_snapshot(tmp_path, epoch, flat(epoch / 19))
    frames = read_frames(draw_growth(tmp_path / "result.gif", tmp_path, LOADED, split, pictures=2, frames=3))
    shown = [map_cell(frame, 1)[SIDE // 2, SIDE // 2] for frame in frames]
    for found, value in zip(shown, (0, 10 / 19, 1), strict=True):
        assert np.abs(found - colour_of(value)).max() <= 8
    assert (map_cell(frames[0], 2) == 255).all()


def test_one_map_without_numbers(tmp_path, split) -> None:
    """Protects diverged runs: a map that is not finite is drawn as zeros, without a box."""
    save_snapshot(tmp_path, 0, flat(np.nan))
    save_snapshot(tmp_path, 1, flat(1.0))
    first, _ = read_frames(draw_growth(tmp_path / "result.gif", tmp_path, LOADED, split))
    cell = map_cell(first, 0)
    assert np.abs(cell - colour_of(0)).max() <= 8
    assert not (np.abs(first[TOP:] - PREDICTED_COLOUR).max(axis=2) <= 40).any()


def test_names_fit(tmp_path, split) -> None:
    """Protects legibility: each class and area stand below their map, long names cut, none runs into the next."""
    wide = replace(split, class_names=("W" * 40, *split.class_names[1:]))
    save_snapshot(tmp_path, 0, flat(0.43))
    (frame,) = read_frames(draw_growth(tmp_path / "result.gif", tmp_path, LOADED, wide))
    below = frame[TOP + 2 * SIDE + MARGIN :].min(axis=(0, 2)) < 128
    first, gap = below[MARGIN : MARGIN + SIDE], below[MARGIN + SIDE : 2 * MARGIN + SIDE]
    assert first[-20:].any() and not gap.any() and below[2 * MARGIN + SIDE :].any()


def test_not_too_large(tmp_path, split, monkeypatch) -> None:
    """Protects the README's readers: more than 2 MiB is refused with the hint, and the older file stays."""
    assert growth.LARGEST == 2 * 1024**2
    save_snapshot(tmp_path, 0, flat(0.5))
    path = draw_growth(tmp_path / "result.gif", tmp_path, LOADED, split)
    before = path.read_bytes()
    monkeypatch.setattr(growth, "LARGEST", len(before) - 1)
    with pytest.raises(UserError, match="result.gif would take .* MiB.*fewer --frames"):
        draw_growth(path, tmp_path, LOADED, split)
    assert path.read_bytes() == before


def test_what_can_be_wrong(tmp_path, split) -> None:
    """Protects against a traceback and a mixture: nothing there, other pictures, other data, a picture that is gone."""
    target = tmp_path / "result.gif"
    with pytest.raises(UserError, match="holds no snapshots; train the run with --snapshot 6"):
        draw_growth(target, tmp_path, LOADED, split)
    save_snapshot(tmp_path, 0, flat(0.5, 2), "ax")
    with pytest.raises(UserError, match=r"x\.png, which is not in the data; .* --data"):
        draw_growth(target, tmp_path, LOADED, split)
    save_snapshot(tmp_path, 0, flat(0.5))
    odd = save_snapshot(tmp_path, 1, flat(0.5, 3), "abc")
    with pytest.raises(UserError, match=f"{odd} shows other pictures"):
        draw_growth(target, tmp_path, LOADED, split)
    save_snapshot(tmp_path, 1, np.full((4, 5, 5), 0.5))
    with pytest.raises(UserError, match=f"{odd} shows .* or maps of another size"):
        draw_growth(target, tmp_path, LOADED, split)
    odd.write_bytes(b"PK")
    with pytest.raises(UserError, match=f"{odd} is no snapshot of a run"):
        draw_growth(target, tmp_path, LOADED, split)
    odd.unlink()
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png"):
        draw_growth(target, tmp_path, LOADED, split)
    assert not target.exists()
