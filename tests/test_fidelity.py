"""Fidelity of generated pictures: shares, correlations and distances that are known."""

import itertools

import numpy as np
import pytest
from scipy.stats import pearsonr

from cvae.fidelity import agreement, correlation, diversity


def test_agreement_is_the_share_that_the_judge_takes_for_what_was_asked():
    judged, asked = np.array([0, 3, 2, 2, 1]), np.array([0, 3, 2, 1, 1])
    assert agreement(judged, asked) == pytest.approx((0.8, np.sqrt(0.8 * 0.2 / 4)))
    assert agreement(asked, asked) == (1.0, 0.0)


@pytest.mark.parametrize(("judged", "asked", "message"), [
    ([], [], r"judged must be classes, shape \[N\], got \(0,\)"),
    (np.eye(3), np.eye(3), r"judged must be classes, shape \[N\], got \(3, 3\)"),
    ([1, 2], [1, 2, 3], r"asked must have the shape of judged, \(2,\), got \(3,\)"),
])  # fmt: skip
def test_bad_classes_are_refused(judged, asked, message):
    with pytest.raises(ValueError, match=message):
        agreement(judged, asked)


def pairs_of_values(n: int, seed: int = 0):
    """Two attributes: one followed closely, and with another unit; one followed the wrong way round."""
    rng = np.random.default_rng(seed)
    asked = rng.normal(size=(n, 2)) * [1.0, 40.0] + [5.0, -3.0]
    measured = asked * [0.01, -1.0] + rng.normal(size=(n, 2)) * [0.002, 30.0]
    return asked, measured


def test_correlation_is_scipys():
    asked, measured = pairs_of_values(57)
    found = correlation(asked, measured)
    assert len(found) == 2
    for column, estimate in enumerate(found):
        r = pearsonr(asked[:, column], measured[:, column]).statistic
        assert estimate == pytest.approx((r, (1 - r**2) / np.sqrt(56)))
    assert found[0].value > 0.9
    assert found[1].value < -0.5


def test_the_error_of_a_correlation_is_its_spread():
    """Over many samples of 100; the spread of 400 values is known to 1 / sqrt(800) of itself."""
    found = np.array([correlation(*pairs_of_values(100, seed)) for seed in range(400)])  # [400, 2, 2]
    spread, stated = found[:, :, 0].std(axis=0, ddof=1), found[:, :, 1].mean(axis=0)
    # The formula is the first term of a series in 1/N, which 100 samples leave off by some 3 in 100.
    assert np.all(np.abs(spread / stated - 1) < 5 / np.sqrt(800) + 0.03)


def test_correlation_does_not_depend_on_units():
    asked, measured = pairs_of_values(30)
    moved = correlation(asked * 1e-6 + 7, measured * [1e5, -3])
    for a, b, sign in zip(correlation(asked, measured), moved, (1, -1), strict=True):
        assert b.value == pytest.approx(sign * a.value, abs=1e-6)


ASKED, MEASURED = pairs_of_values(10)
CONSTANT = np.where([True, False], 0.1, MEASURED)  # the mean of ten times 0.1 is another float
MISSING = np.where(np.arange(20).reshape(10, 2) == 7, np.nan, MEASURED)


@pytest.mark.parametrize(("asked", "measured", "message"), [
    (ASKED[:, 0], MEASURED[:, 0], r"asked must have shape \[N, attributes\], N > 2, got \(10,\)"),
    (ASKED[:2], MEASURED[:2], r"asked must have shape \[N, attributes\], N > 2, got \(2, 2\)"),
    (ASKED, MEASURED[:, :1], r"measured must have the shape of asked, \(10, 2\), got \(10, 1\)"),
    (ASKED, MISSING, "measured must be finite, got 1 NaN or infinite"),
    (MISSING, MEASURED, "asked must be finite, got 1 NaN or infinite"),
    (ASKED, CONSTANT, r"measured must vary in every column, got constant columns \[0\]"),
    (CONSTANT, MEASURED, r"asked must vary in every column, got constant columns \[0\]"),
])  # fmt: skip
def test_bad_attributes_are_refused(asked, measured, message):
    with pytest.raises(ValueError, match=message):
        correlation(asked, measured)


def corners(distance: float) -> np.ndarray:
    """Two pictures [2, 3, 1] that far apart."""
    x = np.zeros((2, 2, 3, 1))
    x[1] = distance / np.sqrt(6)
    return x


def test_diversity_of_two_pictures_is_their_distance():
    found = diversity(np.concatenate([corners(0.6), corners(0.2)]), np.array([4, 4, 1, 1]))
    assert list(found.by_class) == [1, 4]
    # Of one pair nothing says how far others are apart.
    assert found.by_class[4] == pytest.approx((0.6, np.nan), abs=1e-9, nan_ok=True)
    assert found.by_class[1] == pytest.approx((0.2, np.nan), abs=1e-9, nan_ok=True)
    assert found.overall == pytest.approx((0.4, np.nan), abs=1e-9, nan_ok=True)


def test_diversity_is_the_mean_over_pairs_of_different_pictures():
    rng = np.random.default_rng(2)
    x, label = rng.random((240, 2, 3, 1)), np.repeat([0, 7], [151, 89])
    found = diversity(x, label, seed=3)
    exact = {}
    for k in (0, 7):
        rows = x[label == k].reshape(-1, 6)
        distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
        exact[k] = distances[~np.eye(len(rows), dtype=bool)].mean()
        assert found.by_class[k].standard_error > 0
        assert abs(found.by_class[k].value - exact[k]) < 5 * found.by_class[k].standard_error
    error = np.hypot(*(v.standard_error for v in found.by_class.values())) / 2
    assert found.overall == pytest.approx((np.mean([v.value for v in found.by_class.values()]), error))
    assert diversity(x, label, seed=3) == found != diversity(x, label, seed=4)


def test_the_standard_error_of_a_diversity_is_that_of_other_pictures():
    """Sets of 40 pictures, again and again: how far their diversities lie apart is what each of them says."""
    rng, label = np.random.default_rng(6), np.zeros(40, int)
    found = [diversity(rng.normal(size=(40, 2, 1, 1)), label, seed=seed).overall for seed in range(400)]
    values, errors = np.array(found).T
    # A spread over 400 sets is known to 1 / sqrt(2 * 400) of itself, for what is not far from normal.
    assert abs(values.std(ddof=1) / np.sqrt(np.mean(errors**2)) - 1) < 5 / np.sqrt(800)


def test_no_picture_is_in_two_pairs():
    """Pictures a power of 2 from the first: a mean distance then tells which were paired."""
    x = np.zeros((6, 1, 1, 1))
    x[:, 0, 0, 0] = 2.0 ** np.arange(6)
    for seed in range(20):
        total = 3 * diversity(x, np.zeros(6, int), seed=seed).overall.value
        signs = {sum(s * 2**i for i, s in enumerate(chosen)) for chosen in itertools.product((-1, 1), repeat=6)}
        assert round(total) in signs


def test_a_collapsed_generator_has_none():
    """One picture a class, however different the classes are."""
    label = np.repeat([0, 1, 2], 20)
    collapsed = np.random.default_rng(0).random((3, 2, 3, 1))[label]
    assert diversity(collapsed, label).overall == (0.0, 0.0)
    assert diversity(collapsed, np.zeros(60, int)).overall.value > 0


def test_bytes_are_read_as_grey_levels():
    x = np.random.default_rng(0).integers(0, 256, (20, 2, 3, 1), dtype=np.uint8)
    label = np.repeat([0, 1], 10)
    assert diversity(x, label) == diversity(x / 255, label)


X, LABEL = np.random.default_rng(0).random((6, 2, 3, 1)), np.array([0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize(("x", "label", "seed", "message"), [
    (X, LABEL[:, None], 0, r"label must be classes, shape \[N\], got \(6, 1\)"),
    (X[:0], LABEL[:0], 0, r"label must be classes, shape \[N\], got \(0,\)"),
    (X[:5], LABEL, 0, "x must hold one entry an example of label, 6 of them, got 5"),
    (X, np.array([0, 1, 1, 1, 1, 1]), 0, "label must have two pictures of every class, got one of class 0"),
    (X * np.nan, LABEL, 0, "x must be finite floats, got 36 NaN or infinite"),
    ((255 * X).astype(int), LABEL, 0, "x must be finite floats"),
    (X, LABEL, -1, "seed must be a whole number of at least 0"),
])  # fmt: skip
def test_bad_pictures_are_refused(x, label, seed, message):
    with pytest.raises(ValueError, match=message):
        diversity(x, label, seed=seed)
