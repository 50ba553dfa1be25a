"""Baselines of tables against closed forms of scipy, and against integration over missing cells."""

import numpy as np
import pytest
from scipy.stats import lognorm, multivariate_normal, nbinom, norm, poisson

from cvae.columns import Column
from experiments.measures import baselines

RNG = np.random.default_rng(5)
REAL, POSITIVE, COUNT = Column("a", "real"), Column("b", "positive"), Column("n", "count")
WORDS = Column("w", "categorical", categories=("x", "y", "z"))


def test_independent_columns_have_the_densities_of_scipy():
    train = np.stack(
        [RNG.normal(5, 3, 400), np.exp(RNG.normal(2, 0.5, 400)), RNG.poisson(3, 400), RNG.integers(0, 2, 400)], axis=1
    )
    test = train[:7] + np.array([0.5, 0.1, 1, 1])
    found = baselines.independent(train, test, (REAL, POSITIVE, COUNT, WORDS))
    log = np.log(train[:, 1])
    mean, size = baselines.fit_negative_binomial(train[:, 2])
    shares = (np.bincount(train[:, 3].astype(int), minlength=3) + 1) / 403
    expected = norm.logpdf(test[:, 0], train[:, 0].mean(), train[:, 0].std())
    expected += lognorm.logpdf(test[:, 1], log.std(), scale=np.exp(log.mean()))
    expected += nbinom.logpmf(test[:, 2], size, size / (size + mean)) + np.log(shares[test[:, 3].astype(int)])
    np.testing.assert_allclose(found, expected)
    test[2, [0, 3]] = np.nan
    alone = baselines.independent(train[:, 1:3], test[2:3, 1:3], (POSITIVE, COUNT))
    np.testing.assert_allclose(baselines.independent(train, test, (REAL, POSITIVE, COUNT, WORDS))[2], alone[0])


def test_the_negative_binomial_is_fitted_and_becomes_a_poisson():
    counts = nbinom.rvs(2.5, 2.5 / (2.5 + 4), size=20_000, random_state=1)
    mean, size = baselines.fit_negative_binomial(counts)
    assert mean == pytest.approx(counts.mean())
    around = [-nbinom.logpmf(counts, s, s / (s + mean)).sum() for s in (0.99 * size, size, 1.01 * size)]
    assert around[1] == min(around)
    assert size == pytest.approx(2.5, rel=0.1)
    even = np.tile([2, 3], 50)  # less spread than a Poisson has
    mean, size = baselines.fit_negative_binomial(even)
    np.testing.assert_allclose(nbinom.logpmf(even, size, size / (size + mean)), poisson.logpmf(even, 2.5), atol=1e-4)


def linear(count):
    """Rows (y1, log y2 exponentiated) that are Gaussian given one feature."""
    f = RNG.normal(3, 2, (count, 1))
    y = f @ [[1.5, -0.3]] + [2, 0.5] + RNG.multivariate_normal([0, 0], [[1.0, 0.4], [0.4, 0.5]], count)
    return np.stack([y[:, 0], np.exp(y[:, 1])], axis=1), f


def test_a_linear_gaussian_is_found():
    (train, f_train), (test, f_test) = linear(50_000), linear(9)
    found = baselines.linear_gaussian(train, test, (REAL, POSITIVE), (f_train, f_test))
    y = np.stack([test[:, 0], np.log(test[:, 1])], axis=1)
    means = f_test @ [[1.5, -0.3]] + [2, 0.5]
    expected = multivariate_normal.logpdf(y - means, [0, 0], [[1.0, 0.4], [0.4, 0.5]]) - y[:, 1]
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_discrete_columns_are_scored_by_their_frequencies_and_given_to_the_gaussian():
    codes = RNG.integers(0, 3, 30_000).astype(float)
    x = np.array([0.0, 4.0, -3.0])[codes.astype(int)] + RNG.normal(size=len(codes))
    train = np.stack([codes, x], axis=1)
    nothing = np.zeros((len(train), 0)), np.zeros((50, 0))
    found = baselines.linear_gaussian(train, train[:50], (WORDS, REAL), nothing)
    expected = norm.logpdf(x[:50], np.array([0.0, 4.0, -3.0])[codes[:50].astype(int)]) - np.log(3)
    np.testing.assert_allclose(found, expected, atol=0.1)
    only = baselines.linear_gaussian(train[:, :1], train[:50, :1], (WORDS,), nothing)
    np.testing.assert_allclose(only, -np.log(3), atol=0.05)


def test_em_recovers_a_gaussian_with_cells_missing_at_random():
    mean, covariance = np.array([1.0, -2.0, 5.0]), np.array([[2.0, 1.2, 0.0], [1.2, 1.0, -0.3], [0.0, -0.3, 0.6]])
    rows = RNG.multivariate_normal(mean, covariance, 5000)
    whole = baselines.fit_gaussian(rows)
    np.testing.assert_allclose(whole.mean, rows.mean(axis=0))
    np.testing.assert_allclose(whole.covariance, np.cov(rows.T, bias=True), rtol=1e-4, atol=1e-4)
    rows[rows[:, 0] > 1.5, 1] = np.nan  # by the value of another column: the mean of what is left is 0.9 too low
    found = baselines.fit_gaussian(rows)
    np.testing.assert_allclose(found.mean, mean, atol=0.1)
    np.testing.assert_allclose(found.covariance, covariance, atol=0.12)


def test_the_density_of_known_cells_is_the_marginal():
    gaussian = baselines.Gaussian(np.array([1.0, 2.0]), np.array([[2.0, 0.5], [0.5, 1.0]]))
    rows = np.array([[0.3, 1.0], [np.nan, 1.5], [0.2, np.nan], [np.nan, np.nan]])
    expected = [
        multivariate_normal.logpdf([0.3, 1.0], *gaussian), norm.logpdf(1.5, 2, 1), norm.logpdf(0.2, 1, 2**0.5), 0
    ]  # fmt: skip
    np.testing.assert_allclose(baselines.gaussian_log_density(gaussian, rows), expected)


def test_a_point_mass_is_a_frequency_and_the_rest_a_gaussian():
    column = Column("b", "positive", point_mass=0.0)
    (train, f_train), (test, f_test) = linear(20_000), linear(9)
    zero = RNG.random(len(train)) < 0.25
    train[zero, 1], test[:2, 1], test[2, 1] = 0, 0, np.nan
    log, share = np.log(train[~zero, 1]), (zero.sum() + 1) / (len(train) + 2)
    marginal = np.log(1 - share) + lognorm.logpdf(np.maximum(test[:, 1], 1e-9), log.std(), scale=np.exp(log.mean()))
    marginal[:2], marginal[2] = np.log(share), 0
    np.testing.assert_allclose(baselines.independent(train[:, 1:], test[:, 1:], (column,)), marginal)
    found = baselines.linear_gaussian(train, test, (REAL, column), (f_train, f_test))
    assert np.isfinite(found).all()
    residual = test[:, 0] - (1.5 * f_test[:, 0] + 2)
    np.testing.assert_allclose(found[:2], np.log(share) + norm.logpdf(residual[:2], 0, 1), atol=0.1)
    np.testing.assert_allclose(found[2], norm.logpdf(residual[2], 0, 1), atol=0.1)
