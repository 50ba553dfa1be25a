"""Counts, categories and 8-bit pixels: probabilities against scipy, sums of 1, moments of draws, finite gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from cvae.distributions import (
    LEVELS,
    Categorical,
    CategoricalPixels,
    DiscretizedLogistic,
    NegativeBinomial,
    Poisson,
)
from tests.test_distributions import draws_of, near_moments

RNG = np.random.default_rng(0)
SHAPE = (3, 2, 4)
OUTPUTS, OTHERS = RNG.normal(size=(2, *SHAPE)).astype(np.float32)
LOGITS = RNG.normal(size=(*SHAPE, 5)).astype(np.float32)
PIXEL_LOGITS = RNG.normal(size=(*SHAPE, LEVELS)).astype(np.float32)
COUNTS, CLASSES = RNG.poisson(2.0, SHAPE), RNG.integers(0, 5, SHAPE)
BYTES = RNG.integers(0, LEVELS, SHAPE) / 255
FAMILIES = {
    "poisson": (Poisson(jnp.asarray(OUTPUTS)), COUNTS),
    "negative binomial": (NegativeBinomial(jnp.asarray(OUTPUTS), jnp.asarray(OTHERS)), COUNTS),
    "categorical": (Categorical(jnp.asarray(LOGITS)), CLASSES),
    "categorical pixels": (CategoricalPixels(jnp.asarray(PIXEL_LOGITS)), BYTES),
    "discretised logistic": (DiscretizedLogistic(jnp.asarray(0.5 + 0.2 * OUTPUTS), jnp.asarray(OTHERS - 2)), BYTES),
}
every_family = pytest.mark.parametrize(("distribution", "x"), FAMILIES.values(), ids=FAMILIES.keys())


def grid(*axes):
    return (np.float32(each.ravel()[:, None]) for each in np.meshgrid(*axes))


@every_family
def test_terms_are_summed_over_the_event_and_gradients_are_finite(distribution, x):
    assert distribution.shape == SHAPE
    assert distribution.mean.shape == SHAPE
    log_prob = distribution.log_prob(x)
    terms = distribution.log_terms(distribution.cast(x))
    np.testing.assert_allclose(log_prob, np.asarray(terms, np.float64).sum(axis=(1, 2)), rtol=1e-5)
    value, slopes = jax.jit(jax.value_and_grad(lambda d: d.log_prob(x).sum()))(distribution)
    assert value == pytest.approx(float(log_prob.sum()), rel=1e-5)
    assert all(np.isfinite(slope).all() and np.any(slope != 0) for slope in jax.tree.leaves(slopes))


@every_family
def test_a_parameter_that_is_nan_gives_nan(distribution, x):
    """A label out of range inside `jit` shows as NaN; a draw or a mean would hide it."""

    def spoil(leaf):
        return leaf.at[(1,) * leaf.ndim].set(jnp.nan)

    broken, expected = jax.tree.map(spoil, distribution), np.zeros(SHAPE, bool)
    expected[1, 1, 1] = True
    np.testing.assert_array_equal(np.isnan(broken.sample(jax.random.key(1))), expected)
    np.testing.assert_array_equal(np.isnan(broken.mean), expected)
    np.testing.assert_array_equal(np.isnan(broken.log_prob(x)), [False, True, False])


@every_family
def test_x_that_is_nan_gives_nan_inside_jit(distribution, x):
    x = jnp.asarray(x, jnp.float32).at[1, 0, 2].set(jnp.nan)
    np.testing.assert_array_equal(np.isnan(jax.jit(distribution.log_prob)(x)), [False, True, False])


def test_poisson_is_scipys_from_small_counts_to_large_ones():
    x, log_rate = grid([0, 1, 2, 9, 10, 11, 200, 1e5], [-12.0, -3.0, 0.0, 1.5, 2.3, 5.3, 11.5])
    distribution = Poisson(jnp.asarray(log_rate))
    expected = stats.poisson(np.exp(np.float64(log_rate))).logpmf(x)[:, 0]
    # The logarithms of rate and count are rounded to float32, and their difference counts |x - rate| times.
    rounding = 1e-6 * np.abs(x - np.exp(log_rate))[:, 0]
    assert np.all(np.abs(distribution.log_prob(x) - expected) <= 3e-6 * (1 + np.abs(expected)) + rounding)
    slope = jax.grad(lambda rate: Poisson(rate).log_prob(x).sum())(jnp.asarray(log_rate))
    np.testing.assert_allclose(slope, x - np.exp(np.float64(log_rate)), rtol=1e-4, atol=1e-4)


def test_negative_binomial_is_scipys_from_small_counts_to_large_ones():
    x, log_mean, log_size = grid([0, 1, 2, 9, 10, 11, 200, 1e5], [-9.0, 0.0, 2.3, 5.3, 11.5], [-5.0, 0.3, 2.3, 6.0])
    mean, size = np.exp(np.float64(log_mean)), np.exp(np.float64(log_size))
    expected = stats.nbinom(size, size / (size + mean)).logpmf(x)[:, 0]
    log_prob = NegativeBinomial(jnp.asarray(log_mean), jnp.asarray(log_size)).log_prob(x)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-5)

    def score(log_mean, log_size):
        return NegativeBinomial(log_mean, log_size).log_prob(x).sum()

    by_mean, by_size = jax.grad(score, argnums=(0, 1))(jnp.asarray(log_mean), jnp.asarray(log_size))
    np.testing.assert_allclose(by_mean, (x - mean) * size / (size + mean), rtol=1e-3, atol=1e-4)
    by_r = special.digamma(x + size) - special.digamma(size) + np.log(size / (size + mean)) + (mean - x) / (size + mean)
    np.testing.assert_allclose(by_size, size * by_r, rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_counts_have_their_moments_under_every_kind_of_key(impl):
    rate, size = np.float32([[0.3, 2.0, 50.0]]), np.float32([[0.5, 4.0, 30.0]])
    keys = jax.random.split(jax.random.key(1, impl=impl), 4000)
    for distribution, variance in (
        (Poisson(jnp.log(rate)), rate),
        (NegativeBinomial(jnp.log(rate), jnp.log(size)), rate + rate**2 / size),
    ):
        draws = np.asarray(jax.vmap(distribution.sample)(keys), np.float64)
        assert np.array_equal(draws, np.rint(draws))
        assert np.all(np.abs(draws.mean(axis=0) - rate) < 5 * np.sqrt(variance / 4000))
        # The standard error of a variance, from the fourth moment of the draws.
        fourth = ((draws - rate) ** 4).mean(axis=0)
        assert np.all(np.abs(draws.var(axis=0) - variance) < 5 * np.sqrt(fourth / 4000))
        np.testing.assert_allclose(distribution.mean, rate, rtol=1e-5)


def test_an_exposure_multiplies_the_mean_of_counts_alone():
    exposure = np.array([0.5, 1.0, 30.0])
    for name, (distribution, _) in FAMILIES.items():
        factor = exposure[:, None, None] if name in ("poisson", "negative binomial") else 1
        exposed = jax.jit(lambda d, e: d.with_exposure(e))(distribution, exposure)
        np.testing.assert_allclose(exposed.mean, factor * distribution.mean, rtol=1e-5)
        assert exposed.dtype == np.float32


def test_categories_are_scipys_multinomial_and_their_draws_frequencies():
    distribution, p = FAMILIES["categorical"][0], special.softmax(np.float64(LOGITS), axis=-1)
    expected = stats.multinomial(1, p.reshape(-1, 5)).logpmf(np.eye(5)[CLASSES.ravel()]).reshape(SHAPE)
    np.testing.assert_allclose(distribution.log_prob(CLASSES), expected.sum(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(distribution.probabilities, p, rtol=1e-5)
    np.testing.assert_array_equal(distribution.mean, LOGITS.argmax(axis=-1))
    draws = draws_of(distribution)
    share = (draws[..., None] == np.arange(5)).mean(axis=0)
    assert np.all(np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / len(draws)))


def every_level(parameter):
    """A parameter of one pixel, repeated for each of the 256 levels."""
    return jnp.broadcast_to(jnp.asarray(parameter, jnp.float32), (LEVELS, 1, *np.shape(parameter)))


PIXELS = {
    "categorical": CategoricalPixels(every_level(PIXEL_LOGITS[0, 0, 0])),
    "middle": DiscretizedLogistic(every_level(0.4), every_level(-2.5)),
    "narrow": DiscretizedLogistic(every_level(0.4), every_level(-7.5)),
    "wide": DiscretizedLogistic(every_level(0.4), every_level(3.5)),
    "dark": DiscretizedLogistic(every_level(-1.5), every_level(-3.0)),
    "bright": DiscretizedLogistic(every_level(1.5), every_level(-3.0)),
}


@pytest.mark.parametrize("distribution", PIXELS.values(), ids=PIXELS.keys())
def test_the_probabilities_of_the_256_levels_sum_to_1_and_draws_have_their_moments(distribution):
    levels = (np.arange(LEVELS) / 255)[:, None]
    log_prob = np.asarray(distribution.log_prob(levels), np.float64)
    p = np.exp(log_prob)
    assert p.sum() == pytest.approx(1, abs=1e-4)
    mean = p @ levels[:, 0]
    np.testing.assert_allclose(distribution.mean, mean, atol=1e-4)
    one = jax.tree.map(lambda leaf: leaf[:1], distribution)
    draws = draws_of(one)[:, 0, 0]
    np.testing.assert_allclose(draws * 255, np.rint(draws * 255), atol=1e-4)
    std = np.sqrt(p @ (levels[:, 0] - mean) ** 2)
    assert abs(draws.mean() - mean) < 5 * std / np.sqrt(len(draws)) + 1e-4
    # 8-bit pixels are scored alike as bytes in 255ths and in single precision.
    np.testing.assert_allclose(distribution.log_prob(np.float32(levels)), log_prob, rtol=1e-5)


def test_a_discretised_logistic_is_the_difference_of_scipys_distribution_functions():
    levels = np.arange(LEVELS)[:, None] / 255
    logistic = stats.logistic(0.4, np.exp(-2.5))
    above, below = logistic.cdf(levels + 0.5 / 255), logistic.cdf(levels - 0.5 / 255)
    above[-1], below[0] = 1, 0
    np.testing.assert_allclose(PIXELS["middle"].log_prob(levels), np.log(above - below)[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("location", "log_scale"), [(0.5, -20.0), (0.5, 20.0), (-50.0, -3.0), (50.0, -3.0)])
def test_a_discretised_logistic_stays_finite_where_it_saturates(location, log_scale):
    levels = np.float32(np.arange(LEVELS) / 255)[:, None]

    def score(location, log_scale):
        return DiscretizedLogistic(location, log_scale).log_prob(levels)

    parameters = every_level(location), every_level(log_scale)
    slopes = jax.grad(lambda *p: score(*p).sum(), argnums=(0, 1))(*parameters)
    assert np.isfinite(score(*parameters)).all()
    assert np.isfinite(slopes).all()


BAD = {
    "half a count": ("poisson", COUNTS + 0.5, r"^x must be whole numbers in \[0, inf\), got [\d.]+ at row 0"),
    "negative count": ("negative binomial", COUNTS - 9, r"^x must be whole numbers in \[0, inf\), got -\d at row 0"),
    "category": ("categorical", CLASSES + 1, r"^x must be whole numbers in \[0, 5\), got 5 at row"),
    "grey": ("categorical pixels", BYTES + 1, r"^x must be real numbers, in \[0, 1\], got 1"),
    "shape": ("discretised logistic", BYTES[:, :1], r"^x must have shape \[B, 2, 4\], got \(3, 1, 4\)"),
    "missing": ("poisson", np.where(COUNTS > 2, np.nan, COUNTS), r"^x must be whole numbers in \[0, inf\), got nan"),
}


@pytest.mark.parametrize(("name", "x", "message"), BAD.values(), ids=BAD.keys())
def test_events_outside_the_support_are_refused(name, x, message):
    with pytest.raises(ValueError, match=message):
        FAMILIES[name][0].log_prob(x)


def test_moments_of_draws_of_every_family_are_those_of_its_probabilities():
    distribution, _ = FAMILIES["discretised logistic"]
    levels = jnp.broadcast_to((jnp.arange(LEVELS) / 255)[:, None, None, None], (LEVELS, *SHAPE))
    p = np.exp(np.asarray(jax.vmap(distribution.log_terms)(levels), np.float64))
    mean = (p * levels).sum(axis=0)
    std = np.sqrt((p * (levels - mean) ** 2).sum(axis=0))
    draws = draws_of(distribution)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * std / np.sqrt(len(draws)))
    assert not near_moments(draws, mean + std, std)
