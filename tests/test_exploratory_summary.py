"""From curves to figures: crossings, rank correlations and the verdict, against hand-made cases and naive code."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from utils.exploratory.measure import Curve
from utils.exploratory.summary import (
    STATISTICS,
    average_ranks,
    done_at,
    rank_correlation,
    summarize,
    table,
    verdict,
    write_curves,
    write_summary,
)

AREAS = np.array([0, 0.1, 0.2, 0.4, 1.0])  # the third mask is the object's own
RELATIVE = AREAS / 0.2
LATE = [0, 1, 10, 10, 10]
EARLY = [10, 0, 0, 0, 0]


def curve(entropy, activation, background, name: str = "a.jpg", correct: bool = True) -> Curve:
    ious = np.minimum(AREAS, 0.2) / np.maximum(AREAS, 0.2)
    values = (np.array(one, dtype=float) for one in (entropy, activation, background))
    return Curve(name, name[0], correct, AREAS, ious, *values)


@pytest.mark.parametrize(
    ("values", "direction", "expected"),
    [
        ([10, 6, 2, 0, 0], -1, 1.75),
        ([0, 0, 10, 10, 10], 1, 0.975),
        ([0, 10, 10, 10, 10], 1, 0.475),
        ([0, 9.5, 10, 10, 10], 1, 0.5),
        ([0, 5, 10, 20, 0], 1, 1.9),  # the first crossing, though it falls again
        ([10, 0, 10, 0, 0], -1, 0.475),
        ([-3, -3, -3, -3, 7], 1, 2 + 0.95 * 3),
        ([5, 3, 1, 1, 60], -1, 0.95),  # a range of 4, from the empty mask: that it ends above its start is none of it
        ([5, 60, 60, 1, 1], -1, 1 + 55 / 59 + (4 * 0.95 / 59)),  # up before it goes down
        ([2.5, 3, 10, 60, 60], -1, math.nan),  # it only rises
        ([10, 0, 0, 0, 0], 1, math.nan),  # it starts at its highest
        ([7, 7, 7, 7, 7], 1, math.nan),
        ([7, 7, 7, 7, 7], -1, math.nan),
    ],
)
def test_where_a_curve_is_done(values: list[float], direction: int, expected: float) -> None:
    """Protects the headline: first crossing of 95 % of the way from the empty mask, NaN where there is no way."""
    assert done_at(RELATIVE, direction * np.array(values)) == pytest.approx(expected, nan_ok=True)


def naive_spearman(first: list[float], second: list[float]) -> float:
    """Pearson's correlation of ranks; a value's rank is 1, plus 1 for each smaller one, plus 1/2 for each equal one."""
    ranks = [
        [1 + sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]
        for values in (first, second)
    ]
    means = [sum(one) / len(one) for one in ranks]
    products = [(a - means[0]) * (b - means[1]) for a, b in zip(*ranks, strict=True)]
    squares = [sum((a - mean) ** 2 for a in one) for one, mean in zip(ranks, means, strict=True)]
    return sum(products) / math.sqrt(squares[0] * squares[1]) if min(squares) > 0 else math.nan


@pytest.mark.parametrize("seed", range(20))
def test_rank_correlation_with_ties(seed: int) -> None:
    """Protects Spearman's correlation: average ranks for ties, as in a naive count."""
    random = np.random.RandomState(seed)
    first, second = random.randint(0, 6, (2, 12)).tolist()
    assert rank_correlation(first, second) == pytest.approx(naive_spearman(first, second), abs=1e-9)


def test_rank_correlations_known_by_hand() -> None:
    """Protects the definition: order alone counts, ties share a rank, a constant has no correlation."""
    assert average_ranks([30, 10, 20, 10]).tolist() == [4, 1.5, 3, 1.5]
    assert rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000]) == 1
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert rank_correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3])) and math.isnan(rank_correlation([1, 2], [5, 5]))


def test_summary_of_two_pictures_by_hand() -> None:
    """Protects the numbers: spreads over pictures, what has none left out and counted, shares of pictures."""
    curves = [
        curve([10, 0, 0, 0, 0], [0, 5, 10, 10, 10], [10, 5, 0, 0, 0]),
        curve([3, 3, 3, 3, 3], [0, 10, 10, 10, 10], [10, 10, 0, 0, 10], "b.jpg", correct=False),
    ]
    both = summarize(curves)
    found = both["every"]
    assert both["correct"] == summarize(curves[:1])["every"] and both["correct"]["pictures"] == 1
    assert found["pictures"] == 2
    sizes = [found["sizes"][name]["median"] for name in ("masks", "masks_within", "own_area")]
    assert sizes == [5, 1, pytest.approx(0.2)]
    entropy = found["done_at"]["entropy"]
    assert (entropy["count"], entropy["left_out"], entropy["standard_deviation"]) == (1, 1, None)
    assert entropy["median"] == entropy["mean"] == pytest.approx(0.475)
    activation = found["done_at"]["activation"]
    first, second = 0.5 + 0.5 * 0.9, 0.475
    assert activation["median"] == activation["mean"] == pytest.approx((first + second) / 2)
    assert activation["standard_deviation"] == pytest.approx((first - second) / math.sqrt(2))
    quarter = (first - second) / 4
    assert activation["lower_quartile"] == pytest.approx(second + quarter)
    assert activation["upper_quartile"] == pytest.approx(first - quarter)
    # The picture whose entropy never falls counts against each share.
    assert found["before"] == {"activation": 0.5, "background_activation": 0.5}
    assert found["short"] == {"entropy": 0.5, "activation": 1.0, "background_activation": 1.0}

    ious = [0, 0.5, 1, 0.5, 0.2]
    for scope, end in (("all", 5), ("within", 3)):
        expected = [naive_spearman(values[:end], ious[:end]) for values in ([0, 5, 10, 10, 10], [0, 10, 10, 10, 10])]
        assert found[f"correlation_{scope}"]["activation"]["mean"] == pytest.approx(np.mean(expected))
        turned = naive_spearman([-10, 0, 0, 0, 0][:end], ious[:end])
        assert found[f"correlation_{scope}"]["entropy"]["mean"] == pytest.approx(turned)
        assert found[f"correlation_{scope}"]["entropy"]["left_out"] == 1


def test_table_shows_quartiles_and_counts() -> None:
    """Protects readers of the table: medians with quartiles and their number, of the correct and of all pictures."""
    curves = [
        curve([10, 0, 0, 0, 0], LATE, LATE[::-1]),
        curve([10, 9, 0, 0, 0], LATE, LATE[::-1], "b.jpg"),
        curve([2, 2, 3, 4, 60], LATE, LATE[::-1], "c.jpg", correct=False),
    ]
    lines = table(summarize(curves)).splitlines()
    (right,) = (number for number, line in enumerate(lines) if line == "classified correctly: 2")
    (every,) = (number for number, line in enumerate(lines) if line == "all pictures: 3")
    assert "72 (60 to 85; 2) " in lines[right + 1]  # of 47.5 and 97.2 %
    assert "72 (60 to 85; 2) " in lines[every + 1]
    assert "(1.00 to 1.00; 3)" in lines[every + 2]
    alone = summarize(curves[2:])
    assert "all pictures: 1" in table(alone) and "- (n 0)" in table(alone)
    assert verdict(alone).endswith("cannot be judged here: no picture is classified correctly.")


def test_few_masks_within_the_object_are_told() -> None:
    """Protects from coarse numbers: fewer than 8 masks within the object are warned of, 8 are not."""
    areas = np.arange(11) / 10
    for own, words in ((8, "only 7 of the measured masks"), (9, "")):
        ious = np.minimum(areas, own / 10) / np.maximum(areas, own / 10)
        shown = table(summarize([Curve("a", "a", True, areas, ious, areas, areas, areas)]))
        assert words in shown and bool(words) == ("warning" in shown)


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        (
            [(EARLY, LATE, LATE[::-1])],
            "in part here (medians, correctly classified pictures: 1)",
        ),  # the background is done at 4.6
        ([(EARLY, LATE, [10, 9, 0, 0, 0])] * 3, "holds here (medians, correctly classified pictures: 3)"),
        (
            [([10, 10, 0, 0, 0], [0, 10, 10, 10, 10], [10, 0, 0, 0, 0])],
            "does not hold here",
        ),
        ([([10, 10, 10, 0, 0], LATE, [10, 9, 0, 0, 0])], "does not hold here"),  # the entropy needs the surroundings
        ([(EARLY, [0, 0, 0, 0, 1], [0, 0, 0, 0, -1])], "does not hold here"),  # far beyond the outline
        ([(EARLY, [0, 0, 0, 10, 10], [10, 9, 0, 0, 0])], "holds in part"),  # at 195 %, farther than 48 %
        ([([1] * 5, LATE, LATE)], "cannot be judged here: the entropy never falls"),
        ([(EARLY, [1] * 5, [10, 9, 0, 0, 0])], "the activation nowhere (later in 0 % of the pictures)"),
    ],
)
def test_verdict_follows_the_figures(curves: list, words: str) -> None:
    """Protects honesty: the sentence says whether the claim holds, holds in part or does not hold, from the figures."""
    sentence = verdict(summarize([curve(*one, name=f"{number}.jpg") for number, one in enumerate(curves)]))
    assert words in sentence and sentence.endswith(".") and "\n" not in sentence


def test_verdict_tells_by_how_much() -> None:
    """Protects the sentence: its numbers are the summary's."""
    sentence = verdict(summarize([curve(EARLY, LATE, [10, 9, 0, 0, 0])]))
    assert "at 48 % of the object's area (before the outline in 100 % of the pictures)" in sentence
    # From 1 at half of the object's area to 10 at all of it.
    assert f"the activation at {50 + 50 * 8.5 / 9:.0f} % (later in 100 % of the pictures)" in sentence


def test_files_hold_what_was_measured(tmp_path) -> None:
    """Protects curves.csv and the summary: a row a picture and mask with every number, and every spread and share."""
    random = np.random.RandomState(0)
    curves = [curve(*random.randn(3, 5), name=name, correct=name == "a.jpg") for name in ("a.jpg", "b, c.jpg")]
    with open(write_curves(tmp_path / "curves.csv", curves), newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading == [
        "id",
        "class",
        "correct",
        "area",
        "area_of_object",
        "iou",
        "entropy",
        "activation",
        "background_activation",
    ]
    assert [row[:3] for row in rows] == [["a.jpg", "a", "1"]] * 5 + [["b, c.jpg", "b", "0"]] * 5
    for number, one in enumerate(curves):
        expected = [one.areas, RELATIVE, one.ious, one.entropy, one.activation, one.background_activation]
        found = np.array([row[3:] for row in rows[5 * number : 5 * number + 5]], dtype=float).T
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    record, spreadsheet = write_summary(tmp_path, summarize(curves), at="features")
    assert '"at": "features"' in record.read_text()
    lines = spreadsheet.read_text().splitlines()
    assert lines[0] == ",".join(("pictures", "number", "measure", *STATISTICS))
    for group, found in summarize(curves).items():
        row = next(line for line in lines if line.startswith(f"{group},sizes,own_area,")).split(",")[3:]
        assert row == [
            "" if found["sizes"]["own_area"][name] is None else str(found["sizes"]["own_area"][name])
            for name in STATISTICS
        ]
        share = next(line for line in lines if line.startswith(f"{group},before,activation,")).split(",")[3:]
        assert share == ["", "", "", str(found["before"]["activation"]), "", "", ""]
