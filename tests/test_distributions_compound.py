"""Densities of exponentials, of tables and of what is not missing, against scipy and against their parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cvae.distributions import (
    Bernoulli,
    Categorical,
    CategoricalPixels,
    Columns,
    DiscretizedLogistic,
    LogNormal,
    Masked,
    Missing,
    NegativeBinomial,
    Normal,
    PointMass,
    Poisson,
    Standardized,
)
from tests.test_distributions import draws_of, near_moments

RNG = np.random.default_rng(0)
ROWS = 3
LOCATION, SCALE = (7.0, -2.0, 0.5), (0.3, 0.8, 0.0)
MEAN, LOG_STD = 0.3 * RNG.normal(size=(2, ROWS, 3)).astype(np.float32)
OUTPUTS = RNG.normal(size=(ROWS, 2)).astype(np.float32)
NORMAL = Standardized(Normal(jnp.asarray(MEAN), jnp.asarray(LOG_STD)), LOCATION, SCALE)
LOG_NORMAL = LogNormal(NORMAL)
POSITIVE = np.exp(np.array(LOCATION) + np.array(SCALE) * RNG.normal(size=(ROWS, 3)))
TABLE = Columns(
    (
        Standardized(Normal(jnp.asarray(OUTPUTS), jnp.zeros((ROWS, 2))), (1.7e9, 2.0), (300.0, 0.5)),
        Categorical(jnp.asarray(RNG.normal(size=(ROWS, 1, 4)), jnp.float32)),
        Poisson(jnp.asarray(OUTPUTS)),
        LogNormal(Standardized(Normal(jnp.asarray(OUTPUTS[:, :1]), jnp.zeros((ROWS, 1))), (1.0,), (0.4,))),
        Bernoulli(jnp.asarray(OUTPUTS[:, 1:])),
    ),
    ((4, 1), (0,), (2, 6), (3,), (5,)),
)
ROW = np.array(
    [
        [3, 2.5, 0, 2.0, 1.7e9 + 100, 1, 4],
        [0, 1.25, 7, 0.1, 1.7e9 - 700, 0, 0],
        [1, 2.0, 1, 9.0, 1.7e9, 1, 2],
    ]
)
HOLES = np.array([[1, 0, 0, 1, 0, 1, 0], [0, 1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0, 0]], bool)


def test_a_log_normal_is_scipys():
    scale = np.array(SCALE[:2]) * np.exp(np.float64(LOG_STD[:, :2]))
    mean = np.array(LOCATION[:2]) + np.array(SCALE[:2]) * MEAN[:, :2]
    exact = stats.lognorm(scale, scale=np.exp(np.float64(mean)))
    terms = LOG_NORMAL.log_terms(LOG_NORMAL.cast(POSITIVE))
    np.testing.assert_allclose(terms[:, :2], exact.logpdf(POSITIVE[:, :2]), rtol=1e-5)
    np.testing.assert_array_equal(terms[:, 2], 0)  # a constant has no density
    np.testing.assert_allclose(LOG_NORMAL.log_prob(POSITIVE), exact.logpdf(POSITIVE[:, :2]).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(LOG_NORMAL.mean[:, :2], exact.mean(), rtol=1e-5)
    draws = draws_of(LOG_NORMAL)
    assert near_moments(np.log(draws[..., :2]), mean, scale)
    np.testing.assert_allclose(draws[..., 2], np.exp(0.5), rtol=1e-6)
    assert np.isfinite(LogNormal(Standardized(Normal(MEAN, LOG_STD), (1e4,), (1.0,))).mean).all()


def test_a_log_normal_keeps_the_digits_of_values_far_from_1():
    """Near 1.7e9, float32 holds the logarithm to 2e-6 only; of that, it is standardised in float64."""
    x = 1.7e9 + RNG.uniform(-1e6, 1e6, (50, 1))
    location, scale = np.log(x).mean(), np.log(x).std()
    zeros = jnp.zeros((50, 1))
    log_prob = LogNormal(Standardized(Normal(zeros, zeros), (location,), (scale,))).log_prob(x)
    np.testing.assert_allclose(log_prob, stats.lognorm(scale, scale=np.exp(location)).logpdf(x)[:, 0], rtol=1e-5)


def parts_of_table():
    return ((part, list(columns)) for part, columns in zip(TABLE.parts, TABLE.columns, strict=True))


def test_the_columns_of_a_table_have_the_densities_means_and_draws_of_their_parts():
    assert TABLE.shape == (ROWS, 7)
    terms, key = np.asarray(TABLE.log_terms(TABLE.cast(ROW))), jax.random.key(2)
    draws, keys = np.asarray(TABLE.sample(key)), jax.random.split(key, len(TABLE.parts))
    for (part, columns), each in zip(parts_of_table(), keys, strict=True):
        np.testing.assert_array_equal(terms[:, columns], part.log_terms(part.cast(ROW[:, columns])))
        np.testing.assert_array_equal(TABLE.mean[:, columns], part.mean)
        np.testing.assert_array_equal(draws[:, columns], part.sample(each))
    total = sum(np.float64(part.log_prob(ROW[:, columns])) for part, columns in parts_of_table())
    np.testing.assert_allclose(TABLE.log_prob(ROW), total, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda d: d.log_prob(ROW))(TABLE), total, rtol=1e-5)


def test_another_order_of_the_columns_is_another_order_of_the_cells():
    order = np.array([5, 0, 6, 3, 1, 4, 2])
    place = {number: k for k, number in enumerate(order.tolist())}
    moved = Columns(TABLE.parts, tuple(tuple(place[k] for k in columns) for columns in TABLE.columns))
    np.testing.assert_allclose(moved.log_prob(ROW[:, order]), TABLE.log_prob(ROW), rtol=1e-6)
    np.testing.assert_array_equal(moved.mean, np.asarray(TABLE.mean)[:, order])


def test_a_single_row_of_parameters_scores_many_rows():
    one = jax.tree.map(lambda leaf: leaf[1:2], TABLE)
    assert one.shape == (1, 7)
    np.testing.assert_allclose(one.log_prob(ROW)[1], TABLE.log_prob(ROW)[1], rtol=1e-6)


def test_an_exposure_reaches_the_counts_of_a_table_through_what_is_missing():
    exposed = Missing(TABLE).with_exposure(np.array([2.0, 0.5, 1.0]))
    expected = np.array(TABLE.mean)
    expected[:, [2, 6]] *= np.array([[2.0], [0.5], [1.0]])
    np.testing.assert_allclose(exposed.mean, expected, rtol=1e-6)


def test_missing_cells_are_left_out_of_the_density():
    missing, x = Missing(TABLE), np.where(HOLES, np.nan, ROW)
    terms = np.asarray(TABLE.log_terms(TABLE.cast(ROW)))
    np.testing.assert_array_equal(missing.log_terms(missing.cast(x)), np.where(HOLES, 0, terms))
    expected = np.where(HOLES, 0, terms).sum(axis=1)
    np.testing.assert_allclose(missing.log_prob(x), expected, rtol=1e-6)
    key = jax.random.key(3)
    for whole, part in ((TABLE.sample(key), missing.sample(key)), (TABLE.mean, missing.mean)):
        np.testing.assert_array_equal(whole, part)
    np.testing.assert_array_equal(missing.log_prob(np.full((ROWS, 7), np.nan)), 0)


GREY = RNG.integers(0, 256, (ROWS, 3)) / 255
BASES = {
    "normal": (NORMAL, POSITIVE),
    "log-normal": (LOG_NORMAL, POSITIVE),
    "poisson": (Poisson(jnp.asarray(MEAN)), np.array([[0, 2, 30]] * ROWS)),
    "negative binomial": (NegativeBinomial(jnp.asarray(MEAN), jnp.asarray(LOG_STD)), np.array([[0, 2, 30]] * ROWS)),
    "categorical": (Categorical(jnp.asarray(RNG.normal(size=(ROWS, 3, 4)), jnp.float32)), np.array([[0, 3, 1]] * ROWS)),
    "bernoulli": (Bernoulli(jnp.asarray(MEAN)), GREY > 0.5),
    "categorical pixels": (CategoricalPixels(jnp.asarray(RNG.normal(size=(ROWS, 3, 256)), jnp.float32)), GREY),
    "discretised logistic": (DiscretizedLogistic(jnp.asarray(MEAN), jnp.asarray(LOG_STD)), GREY),
}


@pytest.mark.parametrize(("base", "x"), BASES.values(), ids=BASES.keys())
def test_values_and_gradients_with_missing_elements_are_those_of_the_others(base, x):
    holes = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    gone = np.where(holes, np.nan, np.float64(x))

    def score(base, x):
        return Missing(base).log_prob(x).sum()

    def others(base):
        return jnp.where(holes, 0, base.log_terms(base.cast(x))).sum()

    for array in (gone, jnp.asarray(gone, jnp.float32)):
        value, slopes = jax.jit(jax.value_and_grad(score))(base, array)
        expected, expected_slopes = jax.value_and_grad(others)(base)
        assert value == pytest.approx(float(expected), rel=1e-4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), slopes, expected_slopes)
        # Also where x is concrete and the parameters are traced.
        jax.tree.map(lambda a: np.testing.assert_array_equal(np.isfinite(a), True), jax.grad(score)(base, array))


def test_observed_and_missing_elements_are_told_apart():
    """Of a row of which c holds a part: that is not counted, nor what is missing of the rest."""
    observed = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1]], bool)
    base, x = BASES["discretised logistic"]
    hidden = np.where([[0, 1, 0], [0, 0, 0], [1, 0, 0]], np.nan, x)
    masked = Masked(Missing(base), jnp.asarray(observed), jnp.asarray(np.where(observed, x, np.nan)))
    counted = np.array([[0, 0, 1], [0, 0, 1], [0, 1, 0]], bool)
    expected = np.where(counted, base.log_terms(base.cast(x)), 0).sum(axis=1)
    np.testing.assert_allclose(masked.log_prob(hidden), expected, rtol=1e-6)


@pytest.mark.parametrize("base", [NORMAL, LOG_NORMAL], ids=["normal", "log-normal"])
def test_observed_and_missing_elements_have_no_gradient(base):
    holes = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
    x = jnp.asarray(np.where(holes, np.nan, POSITIVE), jnp.float32)
    for density in (Missing(base), Masked(base, jnp.asarray(holes), jnp.zeros(holes.shape))):
        slopes = jax.grad(lambda x, density=density: density.log_prob(x).sum())(x)
        np.testing.assert_array_equal(slopes[holes], 0)
        expected = jax.grad(lambda x: base.log_prob(x).sum())(jnp.asarray(POSITIVE, jnp.float32))
        np.testing.assert_allclose(slopes[~holes], expected[~holes], rtol=1e-5)


def test_a_masked_density_of_categories_has_the_shape_of_its_events():
    base, x = BASES["categorical pixels"]
    masked = Masked(base, jnp.asarray(GREY > 0.3), jnp.asarray(GREY))
    assert masked.shape == (ROWS, 3)
    assert masked.sample(jax.random.key(0)).shape == (ROWS, 3)
    assert np.isfinite(masked.log_prob(x)).all()


def plus(column, amount):
    """The rows with an amount added to a column."""
    rows = ROW.copy()
    rows[:, column] += amount
    return rows


BAD = {
    "columns": (TABLE, ROW[:, :6], r"^x must have shape \[B, 7\], got \(3, 6\)"),
    "category": (
        TABLE,
        plus(0, 9),
        r"^x\[\.\.\., 0\] must be whole numbers in \[0, 4\), got 12 at row",
    ),
    "count": (
        TABLE,
        plus(2, -0.5),
        r"^x\[\.\.\., 2\] must be whole numbers in \[0, inf\), got -0\.5 at",
    ),
    "positive": (
        TABLE,
        plus(3, -ROW[:, 3]),
        r"^x\[\.\.\., 3\] must be real numbers, in \[1e-30, inf\], got 0 at",
    ),
    "binary": (
        TABLE,
        plus(5, 3),
        r"^x\[\.\.\., 5\] must be real numbers, in \[0, 1\], got 4 at row 0",
    ),
    "missing": (TABLE, np.where(HOLES, np.nan, ROW), "^x must be real numbers, all finite, got nan at row 0"),
    "infinite": (Missing(TABLE), plus(1, np.inf), "^x must be real numbers, all finite, or NaN for a"),
    "missing or not": (
        Missing(TABLE),
        np.where(HOLES, np.nan, plus(6, -9)),
        r"^x\[\.\.\., 6\] must be whole numbers in \[0, inf\), or NaN for a missing value, got -5 at row 0",
    ),
}


@pytest.mark.parametrize(("distribution", "x", "message"), BAD.values(), ids=BAD.keys())
def test_rows_outside_the_support_are_refused(distribution, x, message):
    with pytest.raises(ValueError, match=message):
        distribution.log_prob(x)


def test_a_point_mass_and_the_density_elsewhere_add_up_to_1():
    logit = jnp.asarray([[0.0], [2.0], [-1.0]])
    base = LogNormal(Standardized(Normal(jnp.zeros((3, 1)), jnp.zeros((3, 1))), (0.5,), (0.8,)))
    density = PointMass(base, logit, (0.0,))
    weight = 1 / (1 + np.exp(-np.asarray(logit, np.float64)))
    np.testing.assert_allclose(density.log_prob(np.zeros((3, 1))), np.log(weight[:, 0]), rtol=1e-6)
    x = np.array([[0.3], [2.0], [9.0]])
    exact = np.log(1 - weight) + stats.lognorm(0.8, scale=np.exp(0.5)).logpdf(x)
    np.testing.assert_allclose(density.log_prob(x), exact[:, 0], rtol=1e-5)
    np.testing.assert_allclose(density.log_prob(jnp.asarray(x, jnp.float32)), exact[:, 0], rtol=1e-5)
    np.testing.assert_allclose(density.mean, (1 - weight) * np.exp(0.5 + 0.32), rtol=1e-5)
    with pytest.raises(ValueError, match="x must"):
        density.log_prob(x - 1)


def test_draws_of_a_point_mass_equal_the_value_as_often_as_they_should():
    base = Standardized(Normal(jnp.zeros((1, 1)), jnp.zeros((1, 1))), (5.0,), (2.0,))
    drawn = draws_of(PointMass(base, jnp.array([[1.0]]), (3.0,))).ravel()
    at_value = drawn == 3.0
    share = 1 / (1 + np.exp(-1.0))
    assert abs(at_value.mean() - share) < 5 * np.sqrt(share * (1 - share) / len(drawn))
    assert near_moments(drawn[~at_value], 5.0, 2.0)
