"""Protects the comparison of a new run with the README's figures: it can fail, and finds the table that there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.readme_tables import DEMO_TABLE, README, ROWS, differences, read_table
from utils.metrics import LOC_METRICS
from utils.system.errors import UserError


def write_demo(folder: Path, bas: float, dead: tuple[str, ...] = ()) -> Path:
    table = read_table(README.read_text(encoding="utf-8"), DEMO_TABLE)
    maps = {}
    for kind, beginning in ROWS.items():
        (cells,) = [cells for title, cells in table.items() if title.startswith(beginning)]
        *locations, v2, px_ap = (mean for mean, _ in cells)
        scores = {name: {"image_mean": mean} for name, mean in zip(LOC_METRICS, locations, strict=True)}
        more = {"max_box_acc": {"max_box_acc_v2": {"value": v2}}, "pixels": {"px_ap": px_ap}}
        maps[kind] = {"kind": kind, "top_k": None, "scores": scores, **more}
    maps["bas"]["scores"]["gt_known_loc"]["image_mean"] += bas
    cautions = {"dead_maps": {"count": len(dead), "empty": list(dead), "full": []}}
    (folder / "results.json").write_text(json.dumps({"maps": maps, "cautions": cautions}))
    return folder


def test_demo_is_compared(tmp_path: Path) -> None:
    """Within the spread nothing is said; a figure ten points off, or a second dead map, is."""
    text = README.read_text(encoding="utf-8")
    assert differences(write_demo(tmp_path, 1.0), text) == []
    assert len(differences(write_demo(tmp_path, -8.5), text)) == 1
    assert "not above 83" in differences(write_demo(tmp_path, -10.5), text)[0]
    assert differences(write_demo(tmp_path, 0.0, ("Cow",)), text) == []
    assert "Cow, Fish" in differences(write_demo(tmp_path, 0.0, ("Cow", "Fish")), text)[0]


def test_table_that_is_gone(tmp_path: Path) -> None:
    for text in ("", DEMO_TABLE, f"{DEMO_TABLE}\n| a | 1, 2 |\n"):
        with pytest.raises(UserError, match="no table of means"):
            differences(write_demo(tmp_path, 0.0), text)
