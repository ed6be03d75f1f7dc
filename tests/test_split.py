"""Protects splits: what would pair images with wrong labels or boxes is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.splits import make_split
from utils.data.split import spread
from utils.system.errors import UserError


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": (), "paths": (), "labels": np.zeros(0, np.int64)}, "train split is empty.*complete"),
        ({"ids": ("x", "y", "x")}, "names x twice.*keep one"),
        ({"labels": np.array([0, 1, 3])}, "labels from 0 to 3 but 3 classes.*list of classes"),
        ({"labels": np.array([0, -1, 2])}, "labels from -1 to 2"),
        ({"paths": (Path("x"),)}, "3 ids, 1 paths, 3 labels"),
        ({"name": "valid"}, "no split 'valid'; choose one of train, val, test"),
    ],
)
def test_inconsistent_splits_are_refused(tmp_path, changes, words):
    """What would pair images with wrong labels or boxes never gets as far as a loader."""
    with pytest.raises(UserError, match=words):
        make_split(tmp_path, 3, **changes)


def test_split_has_a_length(tmp_path):
    """len(split) is the number of images."""
    assert len(make_split(tmp_path, 3)) == 3


@pytest.mark.parametrize(
    ("good", "count", "expected"),
    [
        ([1] * 5, 2, [0, 4]),
        ([0, 1, 0, 1, 1, 0], 2, [1, 4]),
        ([0, 1, 0, 1, 1, 0], 9, [1, 3, 4]),
        ([1] * 101, 3, [0, 50, 100]),
        ([1, 1, 1], 1, [0]),
        ([1, 1], 0, []),
        ([0, 0], 3, []),
        ([], 3, []),
    ],
)
def test_pictures_are_spread_evenly(good, count, expected):
    """Samples reach from end to end of what may be taken, no picture twice."""
    assert spread(np.array(good, dtype=bool), count) == expected
