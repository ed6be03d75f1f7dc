"""From curves to figures: crossings, rank correlations and the verdict, against hand-made cases and naive code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import CUB.Model
from utils.errors import UserError
from utils.exploratory.measure import Curve
from utils.exploratory.records import (
    CURVES_FILE,
    HEADING,
    describe_measurement,
    find_curves_of,
    read_curves,
    write_curves,
    write_summary,
)
from utils.exploratory.summary import (
    STATISTICS,
    average_ranks,
    done_at,
    few_masks,
    rank_correlation,
    summarize,
    table,
    verdict,
)
from utils.models.recipe import override

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
    assert done_at(RELATIVE, values, direction) == pytest.approx(expected, nan_ok=True)


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
    assert [found[name]["median"] for name in ("masks", "masks_within", "own_area")] == [5, 1, pytest.approx(0.2)]
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
        assert found["correlation"][scope]["activation"]["mean"] == pytest.approx(np.mean(expected))
        turned = naive_spearman([-10, 0, 0, 0, 0][:end], ious[:end])
        assert found["correlation"][scope]["entropy"]["mean"] == pytest.approx(turned)
        assert found["correlation"][scope]["entropy"]["left_out"] == 1
    assert found["better"]["within"] == {"activation": 0.5, "background_activation": 0.5}
    assert found["equal"]["within"] == {"activation": 0.0, "background_activation": 0.0}


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
        warning = few_masks(summarize([Curve("a", "a", True, areas, ious, areas, areas, areas)]))
        assert words in warning and bool(words) == bool(warning)


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        ([(EARLY, LATE, LATE[::-1])], "in part"),  # the background is done at 4.6
        ([(EARLY, LATE, [10, 9, 0, 0, 0])] * 3, "holds here (medians of 3 correctly classified pictures)"),
        (
            [([10, 10, 0, 0, 0], [0, 10, 10, 10, 10], [10, 0, 0, 0, 0])],
            "does not hold here (of 1 correctly classified picture)",
        ),
        ([([10, 10, 10, 0, 0], LATE, [10, 9, 0, 0, 0])], "does not hold here"),  # the entropy needs the surroundings
        ([(EARLY, [0, 0, 0, 0, 1], [0, 0, 0, 0, -1])], "does not hold here"),  # far beyond the outline
        ([(EARLY, [0, 0, 0, 10, 10], [10, 9, 0, 0, 0])], "holds in part"),  # at 195 %, farther than 48 %
        ([([1] * 5, LATE, LATE)], "cannot be judged here: the entropy never falls"),
        ([(EARLY, [1] * 5, [10, 9, 0, 0, 0])], "the activation never rises"),
    ],
)
def test_verdict_follows_the_figures(curves: list, words: str) -> None:
    """Protects honesty: the sentence says whether the claim holds, holds in part or does not hold, from the figures."""
    sentence = verdict(summarize([curve(*one, name=f"{number}.jpg") for number, one in enumerate(curves)]))
    assert words in sentence and sentence.endswith(".") and "\n" not in sentence


def test_verdict_tells_by_how_much() -> None:
    """Protects the sentence: its numbers are the summary's."""
    sentence = verdict(summarize([curve(EARLY, LATE, [10, 9, 0, 0, 0])]))
    assert "the mask covers 48 % of the object's area, and before its outline in 100 % of the pictures" in sentence
    # From 1 at half of the object's area to 10 at all of it.
    assert f"the activation has risen by as much at {50 + 50 * 8.5 / 9:.0f} %, nearer to the outline" in sentence
    assert "after the entropy in 100 % of the pictures" in sentence


def test_files_hold_what_was_measured(tmp_path) -> None:
    """Protects curves.csv and the summary: read again, they give the same curves, figures and columns."""
    random = np.random.RandomState(0)
    curves = [curve(*random.randn(3, 5), name=name, correct=name == "a.jpg") for name in ("a.jpg", "b, c.jpg")]
    again = read_curves(write_curves(tmp_path / "curves.csv", curves))
    for one, other in zip(curves, again, strict=True):
        assert (one.image_id, one.class_name, one.is_correct) == (other.image_id, other.class_name, other.is_correct)
        for name in ("areas", "ious", "entropy", "activation", "background_activation"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6)
    record, spreadsheet = write_summary(tmp_path, summarize(curves), at="features")
    assert '"at": "features"' in record.read_text()
    lines = spreadsheet.read_text().splitlines()
    assert lines[0] == ",".join(("pictures", "number", "measure", *STATISTICS))
    for group, found in summarize(curves).items():
        row = next(line for line in lines if line.startswith(f"{group},own_area,,")).split(",")[3:]
        assert row == ["" if found["own_area"][name] is None else str(found["own_area"][name]) for name in STATISTICS]
        share = next(line for line in lines if line.startswith(f"{group},before,activation,")).split(",")[3:]
        assert share == ["", "", "", str(found["before"]["activation"]), "", "", ""]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "curves.csv is missing; measure anew"),
        ([], "holds no curve; measure anew"),
        (["a.jpg,a,1,0,0,0,1,2,3", "a.jpg,a,1,0.5,1,1,1,x,3", "a.jpg,a,1,1,2,0.5,1,2,3"], "line 3: 'x' is not"),
        (["a.jpg,a,1,0,0,0,1,nan,3"], "line 2: 'nan' is not a finite number"),
        (["a.jpg,a,1,0,0,0,1,2,3", "a.jpg,a,1,0.5,1,1,1,2,3"], "line 2: the masks of a.jpg do not grow"),
        (["a.jpg,a,1,0,0,0,1,2,3", "a.jpg,a,1,1,2,0.5,1,2,3"], "line 2: the masks of a.jpg do not grow"),
    ],
    ids=["missing", "empty", "no number", "NaN", "cut off", "no own mask"],
)
def test_damaged_curves_are_named(tmp_path, rows, words: str) -> None:
    """Protects who redraws from a file: what is wrong with it, and where, in one sentence."""
    path = tmp_path / "curves.csv"
    if rows is not None:
        path.write_text("\n".join([",".join(HEADING), *rows]) + "\n")
    with pytest.raises(UserError, match=words):
        read_curves(path)


RECIPE = CUB.Model.recipe("vgg")


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of curves of 5 pictures with 7 masks, and the weights."""
    weights = tmp_path / "weights.pth.tar"
    weights.write_bytes(b"weights")
    folder = tmp_path / "exploratory"
    one = curve(EARLY, LATE, LATE[::-1])
    how = describe_measurement(write_curves(folder / CURVES_FILE, [one]), weights, "features", RECIPE, 5, 7)
    write_summary(folder, summarize([one]), **how)
    return folder, weights


def test_curves_of_the_same_measurement_are_found(measured: tuple[Path, Path], tmp_path: Path) -> None:
    """Protects from measuring twice: same weights, even under another name, with no more pictures or masks wanted."""
    folder, weights = measured
    for pictures, masks in ((5, 7), (4, 3)):
        (found,) = find_curves_of(folder, weights, "features", RECIPE, pictures, masks)
        assert found.entropy.tolist() == EARLY
    moved = weights.rename(tmp_path / "moved.pth.tar")
    assert len(find_curves_of(folder, moved, "features", RECIPE, 5, 7)) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pictures": 6}, "are of 5 pictures only, not of 6"),
        ({"masks": 8}, "are of 7 masks only, not of 8"),
        ({"at": "class_maps"}, "with masks on features, not on class_maps"),
        ({"crop_size": 196}, "with crop_size 224, not 196"),
        ({"align_maps": True}, "with align_maps False, not True"),
        ({"weights": b"others"}, "were measured on other weights"),
        ({"curves": "a quick try"}, "are not those of summary.json"),
        ({"summary": "{}"}, "does not tell what curves.csv was measured on"),
        ({"summary": "[]"}, "does not tell what curves.csv was measured on"),
        ({"summary": None}, "does not tell what curves.csv was measured on"),
        ({"gone": True}, "there is no "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_curves_are_not_taken(measured: tuple[Path, Path], change: dict, words: str) -> None:
    """Protects figures: curves of other weights, another place, other sizes, or of a quick try, and the reason."""
    folder, weights = measured
    sizes = {name: value for name, value in change.items() if name in ("crop_size", "align_maps")}
    if "weights" in change:
        weights.write_bytes(change["weights"])
    if "curves" in change:
        (folder / CURVES_FILE).write_text(change["curves"])
    if "summary" in change:
        (folder / "summary.json").unlink()
        if change["summary"] is not None:
            (folder / "summary.json").write_text(change["summary"])
    if "gone" in change:
        (folder / CURVES_FILE).unlink()
    counts = change.get("pictures", 5), change.get("masks", 7)
    found = find_curves_of(folder, weights, change.get("at", "features"), override(RECIPE, sizes), *counts)
    assert isinstance(found, str) and words in found


def test_damaged_curves_with_their_digest_are_not_taken(measured: tuple[Path, Path]) -> None:
    """Protects figures from a file that cannot be read although it is the recorded one; weights that are gone are an
    error."""
    folder, weights = measured
    (folder / CURVES_FILE).write_text("id\n")
    record = describe_measurement(folder / CURVES_FILE, weights, "features", RECIPE, 5, 7)
    (folder / "summary.json").write_text(json.dumps(record))
    assert "curves.csv" in find_curves_of(folder, weights, "features", RECIPE, 5, 7)
    weights.unlink()
    with pytest.raises(UserError, match="cannot read .*weights.pth.tar"):
        find_curves_of(folder, weights, "features", RECIPE, 5, 7)
