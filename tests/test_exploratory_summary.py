"""From curves to figures: crossings, rank correlations and the verdict, against hand-made cases and naive code."""

from __future__ import annotations

import math

import numpy as np
import pytest

from utils.errors import UserError
from utils.exploratory.measure import Curve
from utils.exploratory.records import HEADING, read_curves, write_curves, write_summary
from utils.exploratory.summary import average_ranks, done_at, rank_correlation, summarize, table, verdict

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
        ([10, 0, 0, 0, 0], 1, 0.0),  # it starts at its highest
        ([7, 7, 7, 7, 7], 1, math.nan),
        ([7, 7, 7, 7, 7], -1, math.nan),
    ],
)
def test_where_a_curve_is_done(values: list[float], direction: int, expected: float) -> None:
    """Protects the headline figures: first crossing of 95 % of the range, straight between masks, NaN if constant."""
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
    """Protects the figures: spreads over pictures, constants left out and counted, shares of pictures."""
    curves = [
        curve([10, 0, 0, 0, 0], [0, 5, 10, 10, 10], [10, 5, 0, 0, 0]),
        curve([3, 3, 3, 3, 3], [0, 10, 10, 10, 10], [10, 10, 0, 0, 10], "b.jpg", correct=False),
    ]
    found = summarize(curves)
    assert (found["pictures"], found["correct"], found["masks"]) == (2, 1, 5)
    assert found["own_area"]["mean"] == pytest.approx(0.2)
    entropy = found["done_at"]["entropy"]
    assert (entropy["count"], entropy["constant"], entropy["standard_deviation"]) == (1, 1, None)
    assert entropy["median"] == entropy["mean"] == pytest.approx(0.475)
    activation = found["done_at"]["activation"]
    first, second = 0.5 + 0.5 * 0.9, 0.475
    assert activation["median"] == activation["mean"] == pytest.approx((first + second) / 2)
    assert activation["standard_deviation"] == pytest.approx((first - second) / math.sqrt(2))
    assert found["before"] == {"activation": 1.0, "background_activation": 1.0}  # of the one that has an entropy

    ious = [0, 0.5, 1, 0.5, 0.2]
    for scope, end in (("all", 5), ("within", 3)):
        expected = [naive_spearman(values[:end], ious[:end]) for values in ([0, 5, 10, 10, 10], [0, 10, 10, 10, 10])]
        assert found["correlation"][scope]["activation"]["mean"] == pytest.approx(np.mean(expected))
        turned = naive_spearman([-10, 0, 0, 0, 0][:end], ious[:end])
        assert found["correlation"][scope]["entropy"]["mean"] == pytest.approx(turned)
        assert found["correlation"][scope]["entropy"]["constant"] == 1
    assert found["better"]["within"] == {"activation": 1.0, "background_activation": 1.0}
    assert found["equal"]["within"] == {"activation": 0.0, "background_activation": 0.0}
    assert "1 constant" in table(found).splitlines()[1] and "48 (48 ± -, 1 constant)" in table(found)


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        ([(EARLY, LATE, LATE[::-1])], "in part"),  # the background is done at 4.6
        ([(EARLY, LATE, [10, 9, 0, 0, 0])] * 3, "holds here (medians of 3 pictures)"),
        ([([10, 10, 0, 0, 0], [0, 10, 10, 10, 10], [10, 0, 0, 0, 0])], "does not hold here (of 1 picture)"),
        ([([10, 10, 10, 0, 0], LATE, [10, 9, 0, 0, 0])], "does not hold here"),  # the entropy needs the surroundings
        ([(EARLY, [0, 0, 0, 0, 1], [0, 0, 0, 0, -1])], "does not hold here"),  # far beyond the outline
        ([([1] * 5, LATE, LATE)], "cannot be judged here: the entropy is constant"),
        ([(EARLY, [1] * 5, [10, 9, 0, 0, 0])], "the activation is constant in every picture"),
    ],
)
def test_verdict_follows_the_figures(curves: list, words: str) -> None:
    """Protects honesty: the sentence says whether the claim holds, holds in part or does not hold, from the figures."""
    sentence = verdict(summarize([curve(*one, name=f"{number}.jpg") for number, one in enumerate(curves)]))
    assert words in sentence and sentence.endswith(".") and "\n" not in sentence


def test_verdict_tells_by_how_much() -> None:
    """Protects the sentence: its numbers are the summary's."""
    sentence = verdict(summarize([curve(EARLY, LATE, [10, 9, 0, 0, 0])]))
    assert "the mask covers 48 % of the object's area, short of its outline" in sentence
    # From 1 at half of the object's area to 10 at all of it.
    assert f"the activation has risen so far at {50 + 50 * 8.5 / 9:.0f} %, nearer to the outline" in sentence
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
    assert lines[0] == "figure,measure,median,mean,standard_deviation,count,constant"
    done = summarize(curves)["done_at"]["activation"]
    row = next(line for line in lines if line.startswith("done_at,activation,")).split(",")[2:]
    assert [float(text) for text in row] == [done[name] for name in lines[0].split(",")[2:]]
    share = next(line for line in lines if line.startswith("before,activation,")).split(",")[2:]
    assert share == ["", str(summarize(curves)["before"]["activation"]), "", "", ""]


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
