"""Protects the names that people read: those shipped, in the order of the labels, and those of a list of one's own."""

from __future__ import annotations

import pytest

import CUB.DataLoader
import ILSVRC.DataLoader
from utils.data.class_names import read_class_names, short_name
from utils.system.errors import UserError


def test_cubs_names():
    """200 names in the order of CUB's numbered folders, known at both ends and in between."""
    names = CUB.DataLoader.class_names()
    assert len(names) == len(set(names)) == 200
    known = {
        1: "Black footed Albatross",
        10: "Red winged Blackbird",
        17: "Cardinal",
        36: "Northern Flicker",
        59: "California Gull",
        100: "Brown Pelican",
        118: "House Sparrow",
        141: "Artic Tern",
        160: "Black throated Blue Warbler",
        187: "American Three toed Woodpecker",
        200: "Common Yellowthroat",
    }
    assert {number: names[number - 1] for number in known} == known
    assert not any("_" in name or name != name.strip() for name in names)


def test_imagenets_names():
    """1000 names, a label being the rank of the sorted wnid: n01440764 first, n15075141 last."""
    names = ILSVRC.DataLoader.class_names()
    assert len(names) == 1000
    known = {0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 999: "toilet tissue"}
    assert {label: names[label] for label in known} == known


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("dog\n\n cat \n", ("dog", "cat")),
        ("0 dog\n1 house cat\n", ("dog", "house cat")),
        ("\ufeff1\tdog\r\n2  cat\r\n3 dog\r\n", ("dog", "cat", "dog")),
        ("1 dog\ncat\n", ("1 dog", "cat")),
        ("4 door car\n2 door car\n", ("4 door car", "2 door car")),
        ("鳥\nGrünfink", ("鳥", "Grünfink")),
    ],
)
def test_lists_of_names(tmp_path, text, names):
    """Numbers go only where every line counts; a name may begin with a number itself."""
    (tmp_path / "names.txt").write_text(text, encoding="utf-8", newline="")
    assert read_class_names(tmp_path / "names.txt") == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 dog\n3 cat\n", r"names\.txt, line 2: the class number is 3 where 2 is expected; correct"),
        ("\n", r"names\.txt is empty; write one name a line"),
        (None, r"names\.txt is missing; write one name a line"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, words):
    """Numbers out of order would give pictures another class's name; an empty or missing list is named."""
    if text is not None:
        (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        read_class_names(tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("012.Yellow_headed_Blackbird", "Yellow headed Blackbird"),
        ("St._Bernard", "St. Bernard"),
        ("3.St._Bernard", "St. Bernard"),
        ("4.2", "2"),
        ("n01440764", "n01440764"),
        ("Version 2.0", "Version 2.0"),
    ],
)
def test_short_names(name, expected):
    """Captions lose CUB's number alone: a dot within a name is a part of it."""
    assert short_name(name) == expected
