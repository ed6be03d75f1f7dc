"""`alignment.png`: one map of a picture, drawn in each of the places that `--align_maps` offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from Img.results import choose_pictures
from utils.data.split import Split
from utils.evaluation.gallery import build_key, draw_group, localize_pictures
from utils.evaluation.spec import build_spec
from utils.inference.loading import Loaded
from utils.inference.placing import place_maps
from utils.models.recipe import ALIGNMENTS, CALIBRATED
from utils.results.sheet import Cell, save_sheet

PICTURES = 4


def draw_alignment(path: Path, loaded: Loaded, split: Split, pictures: int = PICTURES) -> Path:
    """Draws the BAS maps of a few test pictures stretched over the crop, by the layers' geometry, and where the cells
    are found to look, each with its box at the recipe's threshold; returns `path`.

    Args:
        path: the picture to write.
        loaded: the network and its settings.
        split: test pictures, best with boxes; which of them is settled as for `result.png`.
        pictures: at most so many.

    Raises:
        UserError: matplotlib is missing, a picture or the training pictures cannot be read, or the file cannot be
            written.
    """
    spec = replace(build_spec(loaded.recipe, loaded.protocol, ten_crops=False), align=CALIBRATED)
    spec = place_maps(loaded, spec)
    indices = choose_pictures(split, pictures)
    rows = []
    specs = [replace(spec, align=how) for how in ALIGNMENTS]
    found = [localize_pictures(loaded.model, split, indices, one, loaded.device) for one in specs]
    for drawn in zip(*found, strict=True):
        row: list[Cell] = []
        for how, (subject, maps) in zip(ALIGNMENTS, drawn, strict=True):
            picture, cell = draw_group(subject, maps, spec)
            row += [picture] if not row else []
            row.append(cell._replace(words=(how, *cell.words[1:])))
        rows.append(row)
    return save_sheet(path, rows, build_key(spec))
