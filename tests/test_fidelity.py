"""Fidelity of generated images: shares, correlations and distances with known values."""

import itertools

import numpy as np
import pytest
from scipy.stats import pearsonr

from experiments.measures.fidelity import conditioning_accuracy, correlation, diversity


def test_conditioning_accuracy_is_the_share_of_equal_classes():
    predicted, requested = np.array([0, 3, 2, 2, 1]), np.array([0, 3, 2, 1, 1])
    assert conditioning_accuracy(predicted, requested) == pytest.approx((0.8, np.sqrt(0.8 * 0.2 / 4)))
    assert conditioning_accuracy(requested, requested) == (1.0, 0.0)
    with pytest.raises(ValueError, match=r"requested must have shape \(5,\), got \(4,\)"):
        conditioning_accuracy(predicted, requested[:4])
    with pytest.raises(ValueError, match=r"predicted must have shape \[B\], got \(3, 3\)"):
        conditioning_accuracy(np.eye(3, dtype=int), np.eye(3, dtype=int))


def attributes(n: int, seed: int = 0):
    """Two attributes: one followed closely but in other units, one followed loosely and with the opposite sign."""
    rng = np.random.default_rng(seed)
    requested = rng.normal(size=(n, 2)) * [1.0, 40.0] + [5.0, -3.0]
    return requested, requested * [0.01, -1.0] + rng.normal(size=(n, 2)) * [0.002, 30.0]


def test_correlation_agrees_with_scipy():
    requested, measured = attributes(57)
    estimates = correlation(requested, measured)
    assert len(estimates) == 2
    for column, estimate in enumerate(estimates):
        r = pearsonr(requested[:, column], measured[:, column]).statistic
        assert estimate == pytest.approx((r, (1 - r**2) / np.sqrt(56)))
    assert estimates[0].value > 0.9
    assert estimates[1].value < -0.5


def test_standard_error_of_a_correlation_is_its_spread():
    """Over many samples of 100; the spread of 400 values has a relative error of 1 / sqrt(800)."""
    estimates = np.array([correlation(*attributes(100, seed)) for seed in range(400)])  # [400, 2, 2]
    spread, stated = estimates[:, :, 0].std(axis=0, ddof=1), estimates[:, :, 1].mean(axis=0)
    # The formula is the first term of a series in 1/N, and about 3 % off for samples of 100.
    assert np.all(np.abs(spread / stated - 1) < 5 / np.sqrt(800) + 0.03)


REQUESTED, MEASURED = attributes(10)
CONSTANT = np.where([True, False], 0.1, MEASURED)  # the mean of ten times 0.1 is not exactly 0.1
MISSING = np.where(np.arange(20).reshape(10, 2) == 7, np.nan, MEASURED)


@pytest.mark.parametrize(("requested", "measured", "message"), [
    (REQUESTED[:2], MEASURED[:2], r"requested must have shape \[N, attributes\], N > 2, got \(2, 2\)"),
    (REQUESTED, MEASURED[:, :1], r"measured must have the shape of requested, \(10, 2\), got \(10, 1\)"),
    (REQUESTED, MISSING, "measured must be finite, got 1 NaN or infinite"),
    (CONSTANT, MEASURED, r"requested must vary in every column, got constant columns \[0\]"),
])  # fmt: skip
def test_invalid_attributes_raise(requested, measured, message):
    with pytest.raises(ValueError, match=message):
        correlation(requested, measured)


def test_diversity_is_the_mean_distance_of_different_images_of_one_class():
    rng = np.random.default_rng(2)
    x, label = rng.random((240, 2, 3, 1)), np.repeat([0, 7], [151, 89])
    exact = []
    for k in (0, 7):
        rows = x[label == k].reshape(-1, 6)
        distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
        exact.append(distances[~np.eye(len(rows), dtype=bool)].mean())
    estimate = diversity(x, label, seed=3)
    assert 0 < estimate.standard_error < 0.1
    assert abs(estimate.value - np.mean(exact)) < 5 * estimate.standard_error
    assert diversity(x, label, seed=3) == estimate != diversity(x, label, seed=4)
    bytes_ = (255 * x).astype(np.uint8)
    assert diversity(bytes_, label) == pytest.approx(diversity(bytes_ / 255, label), rel=1e-6)


def test_diversity_weights_classes_equally():
    """Distances 0.6 in a class of 4 images and 0.2 in one of 2; a single pair has no standard error."""
    x = np.array([0.0, 0.6, 0.6, 0.0, 0.5, 0.7])[:, None] * np.array([0.6, 0.8])
    values = {round(diversity(x, np.array([4, 4, 4, 4, 1, 1]), seed=seed).value, 6) for seed in range(20)}
    assert values == {0.1, 0.4}  # pairs of class 4 are equal images, or opposite ones
    assert np.isnan(diversity(x, np.array([4, 4, 4, 4, 1, 1])).standard_error)


def test_standard_error_of_a_diversity_is_its_spread():
    """Over many sets of 40 images; the spread of 400 values has a relative error of about 1 / sqrt(800)."""
    rng, label = np.random.default_rng(6), np.zeros(40, int)
    values, errors = np.array([diversity(rng.normal(size=(40, 2, 1, 1)), label, seed) for seed in range(400)]).T
    assert abs(values.std(ddof=1) / np.sqrt(np.mean(errors**2)) - 1) < 5 / np.sqrt(800)


def test_no_image_is_in_two_pairs():
    """With powers of 2 as images, the mean distance identifies the pairs."""
    x = 2.0 ** np.arange(6)[:, None]
    for seed in range(20):
        total = 3 * diversity(x, np.zeros(6, int), seed).value
        signed_sums = {sum(s * 2**i for i, s in enumerate(signs)) for signs in itertools.product((-1, 1), repeat=6)}
        assert round(total) in signed_sums


def test_a_collapsed_generator_has_no_diversity():
    label = np.repeat([0, 1, 2], 20)
    collapsed = np.random.default_rng(0).random((3, 2, 3, 1))[label]
    assert diversity(collapsed, label) == (0.0, 0.0)
    assert diversity(collapsed, np.zeros(60, int)).value > 0


def test_invalid_images_raise():
    x, label = np.ones((6, 2, 3, 1)), np.array([0, 0, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="label must hold one entry per example of x, 5, got 6"):
        diversity(x[:5], label)
    with pytest.raises(ValueError, match="label must hold every class at least twice, got one example of class 0"):
        diversity(x, np.array([0, 1, 1, 1, 1, 1]))
