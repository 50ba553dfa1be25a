"""Densities against scipy, the KL against an integral, samples against their moments."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy import integrate, special, stats

from cvae.distributions import (
    Bernoulli,
    ContinuousBernoulli,
    Ladder,
    Masked,
    Normal,
    Standardized,
    center_and_spread,
    kl_divergence,
    kl_terms,
    standardize,
)
from cvae.distributions.binary import _SERIES

RNG = np.random.default_rng(0)
MEAN, LOG_STD, X = RNG.normal(size=(3, 3, 5)).astype(np.float32)
SHAPE = (3, 2, 4, 1)
LOGITS, SCALES = RNG.normal(size=(2, *SHAPE)).astype(np.float32)
GREY, BINARY, OBSERVED = RNG.random(SHAPE, np.float32), RNG.random(SHAPE) < 0.5, RNG.random(SHAPE) < 0.5
FAMILIES = {
    "normal": Normal(jnp.asarray(LOGITS), jnp.asarray(SCALES)),
    "bernoulli": Bernoulli(jnp.asarray(LOGITS)),
    "continuous bernoulli": ContinuousBernoulli(jnp.asarray(LOGITS)),
    "standardised": Standardized(Normal(jnp.asarray(LOGITS), jnp.asarray(SCALES)), (0.5,), (2.0,)),
    "masked": Masked(ContinuousBernoulli(jnp.asarray(LOGITS)), jnp.asarray(OBSERVED), jnp.asarray(GREY)),
}


@jax.jit
def sampled(distribution, keys):
    return jax.vmap(distribution.sample)(keys)


def draws_of(distribution, count=4000, seed=1):
    return np.asarray(sampled(distribution, jax.random.split(jax.random.key(seed), count)), np.float64)


def near_moments(draws, mean, std):
    """Whether mean and standard deviation are within five standard errors, those of a Gaussian."""
    error = std / np.sqrt(len(draws))
    close = np.abs(draws.mean(axis=0) - mean) <= 5 * error
    return np.all(close & (np.abs(draws.std(axis=0) - std) <= 5 * error / np.sqrt(2)))


def test_log_prob_of_a_normal_is_scipys():
    expected = stats.norm(MEAN, np.exp(LOG_STD)).logpdf(X).sum(axis=1)
    np.testing.assert_allclose(Normal(MEAN, LOG_STD).log_prob(X), expected, rtol=1e-5)


@pytest.mark.parametrize("distribution", FAMILIES.values(), ids=FAMILIES.keys())
def test_log_prob_sums_the_terms_over_the_event_and_not_over_the_batch(distribution):
    terms = distribution.log_terms(distribution.cast(GREY))
    assert terms.shape == distribution.shape == SHAPE
    log_prob = distribution.log_prob(GREY)
    np.testing.assert_allclose(log_prob, np.asarray(terms, np.float64).sum(axis=(1, 2, 3)), rtol=1e-5)
    one = jax.tree.map(lambda leaf: leaf[1:2], distribution)  # a batch axis of 1 broadcasts
    np.testing.assert_allclose(one.log_prob(GREY)[1], log_prob[1], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda d, x: d.log_prob(x))(distribution, GREY), log_prob, rtol=1e-5)


@pytest.mark.parametrize("distribution", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, bool])
def test_x_of_any_dtype_is_scored_in_that_of_the_parameters(distribution, dtype):
    x = (GREY > 0.5).astype(dtype)
    expected = distribution.log_prob((GREY > 0.5).astype(np.float32))
    for array in (x, jnp.asarray(x)):
        log_prob = distribution.log_prob(array)
        assert log_prob.dtype == distribution.dtype == np.float32
        np.testing.assert_allclose(log_prob, expected, rtol=1e-6)


BAD_X = {
    "shape": (Normal(MEAN, LOG_STD), X[:, :4], r"x must have shape \[B, 5\], got \(3, 4\)"),
    "support": (FAMILIES["bernoulli"], GREY + 1, r"x must be real numbers, in \[0, 1\], got 1\."),
    "hidden nan": (FAMILIES["masked"], np.where(OBSERVED, GREY, np.nan), r"x must be .* \[0, 1\], got nan"),
}


@pytest.mark.parametrize(("distribution", "x", "message"), BAD_X.values(), ids=BAD_X.keys())
def test_bad_events_are_refused(distribution, x, message):
    with pytest.raises(ValueError, match=message):
        distribution.log_prob(x)


def test_samples_of_a_normal_have_its_moments():
    normal = Normal(MEAN, LOG_STD)
    assert near_moments(draws_of(normal), MEAN, np.exp(LOG_STD))
    key = jax.random.key(4)
    cold, draw = normal.sample(key, 0.5), normal.sample(key)
    np.testing.assert_allclose(cold - MEAN, 0.5 * (draw - MEAN), atol=1e-6)


@pytest.mark.parametrize(("m_q", "s_q", "m_p", "s_p"), [(0.3, 0.5, -1.0, 2.0), (2.0, 1.5, 0.0, 1.0), (0, 0.05, 0, 1)])
def test_the_kl_is_the_integral(m_q, s_q, m_p, s_p):
    q, p = stats.norm(m_q, s_q), stats.norm(m_p, s_p)
    integral, error = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), m_q - 12 * s_q, m_q + 12 * s_q)
    pair = [Normal(np.full((1, 1), m, np.float32), np.full((1, 1), np.log(s), np.float32))
            for m, s in ((m_q, s_q), (m_p, s_p))]  # fmt: skip
    assert abs(kl_divergence(*pair)[0] - integral) < max(10 * error, 1e-5 * (1 + integral))


def test_the_kl_to_itself_is_zero_and_a_single_row_broadcasts():
    q, one = Normal(MEAN, LOG_STD), Normal(MEAN[:1], LOG_STD[:1])
    np.testing.assert_array_equal(kl_terms(q, q), 0)
    three = Normal(MEAN[[0, 0, 0]], LOG_STD[[0, 0, 0]])
    for pair, same in (((q, one), (q, three)), ((one, q), (three, q))):
        np.testing.assert_array_equal(kl_divergence(*pair), kl_divergence(*same))


def test_bad_pairs_are_refused():
    q = Normal(MEAN, LOG_STD)
    for p, message in (
        (Normal(MEAN[:, :4], LOG_STD[:, :4]), r"p\.mean must have shape \[B, 5\], got \(3, 4\)"),
        (Normal(MEAN[:2], LOG_STD[:2]), "p must have the batch size of q, 3, or 1, got 2"),
        (FAMILIES["bernoulli"], r"p must be a cvae\.distributions\.Normal, got Bernoulli"),
    ):
        with pytest.raises(ValueError, match=message):
            kl_divergence(q, p)


def test_log_prob_of_a_bernoulli_is_scipys_and_the_cross_entropy_of_grey_pixels():
    p = special.expit(LOGITS.astype(float))
    expected = stats.bernoulli(p).logpmf(BINARY).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(FAMILIES["bernoulli"].log_prob(BINARY), expected, rtol=1e-5)
    expected = (special.xlogy(GREY, p) + special.xlog1py(1 - GREY, -p)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(FAMILIES["bernoulli"].log_prob(GREY), expected, rtol=1e-5)


def test_a_bernoulli_stays_finite_where_probabilities_saturate():
    logit, x = (a.ravel()[:, None] for a in np.meshgrid([-1e4, -104.0, -1e-6, 0.0, 0.5, 104.0, 1e4], [0.0, 0.5, 1.0]))

    @jax.jit
    def score(logits):
        return Bernoulli(logits).log_prob(x.astype(np.float32))

    value, slope = score(np.float32(logit)), jax.grad(lambda logits: score(logits).sum())(np.float32(logit))
    np.testing.assert_allclose(value, (x * logit - np.logaddexp(logit, 0))[:, 0], rtol=1e-7, atol=2e-7)
    np.testing.assert_allclose(slope, x - special.expit(logit), atol=2e-7)


def test_samples_of_a_bernoulli_are_binary_and_have_its_mean():
    draws, p = draws_of(FAMILIES["bernoulli"]), special.expit(LOGITS)
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert np.all(np.abs(draws.mean(axis=0) - p) < 5 * np.sqrt(p * (1 - p) / len(draws)))
    np.testing.assert_allclose(FAMILIES["bernoulli"].mean, p, rtol=1e-5)


def moments(logit: float) -> tuple[float, float, float]:
    """Log of the normaliser, mean and variance of the density proportional to exp(l x) on [0, 1], by quadrature.

    Around the end where the density is highest, and integrated from there in steps that it falls in.
    """
    fall, steps = abs(logit), [step / max(abs(logit), 1) for step in (1, 4, 16, 64)]

    def integral(power: int) -> float:
        inside = [step for step in steps if step < 1] or None
        return integrate.quad(lambda t: t**power * np.exp(-fall * t), 0, 1, points=inside, epsabs=0, epsrel=1e-12)[0]

    total, first, second = (integral(power) for power in range(3))
    mean = first / total
    return np.log(total) + max(logit, 0), mean if logit < 0 else 1 - mean, second / total - mean**2


AROUND = [float(np.nextafter(np.float32(_SERIES), np.float32(side))) for side in (0, 1)]
NEAR = [0.0, 1e-30, 1e-6, -1e-3, 0.03, -0.1, *AROUND, *(-logit for logit in AROUND)]
WIDE = [0.5, -1.0, 3.0, -10.0, 30.0, -30.0, 100.0, -100.0]
PLACES = np.linspace(0, 1, 11, dtype=np.float32)[:, None]


@jax.jit
def continuous(logit):
    """Log densities at `PLACES`, the mean, and the derivatives of both by the logit."""

    def of(logit):
        distribution = ContinuousBernoulli(jnp.full((11, 1), logit))
        return distribution.log_prob(PLACES), distribution.mean[0, 0]

    return of(logit), jax.jacfwd(of)(logit), jax.jacrev(of)(logit)


@pytest.mark.parametrize("logit", NEAR + WIDE)
def test_a_continuous_bernoulli_is_a_density_with_the_gradients_of_its_family(logit):
    """exp(log_prob) is exp(l x) over its integral; its slope in l is x - mean, and that of the mean the variance."""
    (log_prob, mean), *slopes = continuous(np.float32(logit))
    log_normaliser, expected_mean, variance = moments(logit)
    x = PLACES[:, 0].astype(float)
    # Sums of a few numbers as large as the logit, each off by a float32 rounding.
    np.testing.assert_allclose(log_prob, logit * x - log_normaliser, atol=1e-6 * (1 + abs(logit)))
    np.testing.assert_allclose(mean, expected_mean, atol=2e-6)
    for of_log_prob, of_mean in slopes:
        # Closed forms subtract numbers up to 1 / l^2 where the series ends.
        np.testing.assert_allclose(of_log_prob, x - expected_mean, atol=4e-6)
        np.testing.assert_allclose(of_mean, variance, atol=2e-5)


@pytest.mark.parametrize("logit", [1e4, -1e4, 104.0, -104.0])
def test_a_continuous_bernoulli_stays_finite_where_it_saturates(logit):
    (log_prob, mean), (of_log_prob, of_mean), _ = continuous(np.float32(logit))
    x = PLACES[:, 0].astype(float)
    np.testing.assert_allclose(log_prob, logit * x - max(logit, 0) + np.log(abs(logit)), atol=1e-6 * abs(logit))
    np.testing.assert_allclose(mean, (logit > 0) - 1 / logit, atol=2e-7)
    np.testing.assert_allclose(of_log_prob, x - (logit > 0) + 1 / logit, atol=2e-7)
    np.testing.assert_allclose(of_mean, logit**-2, atol=2e-7)


def test_samples_of_a_continuous_bernoulli_have_its_distribution():
    logits = np.array([-1e4, -30, -3, -0.15, 0, 1e-7, 0.15, 1, 30, 1e4], np.float32)
    size = 100_000
    many = ContinuousBernoulli(jnp.broadcast_to(logits, (size, len(logits))))
    draws = np.asarray(jax.jit(lambda d, key: d.sample(key))(many, jax.random.key(3)), np.float64)
    assert draws.min() >= 0
    assert draws.max() <= 1
    for logit, column in zip(logits.astype(float), draws.T, strict=True):
        _, mean, variance = moments(logit)
        assert abs(column.mean() - mean) < 5 * np.sqrt(variance / size), logit
        if 0.1 < abs(logit) < 100:  # beyond, a float32 near 1 is coarser than the distribution
            test = stats.kstest(column, lambda x, logit=logit: np.expm1(logit * x) / np.expm1(logit))
            assert test.pvalue > 1e-6, logit


LOCATION, SCALE = (5e4, -3.0, 7.0), (2e4, 0.35, 0.0)  # of three channels; the last is constant


def test_a_standardised_density_is_scipys_in_the_units_of_x():
    mean, log_std = RNG.normal(size=(2, 4, 2, 3)).astype(np.float32)
    x = np.array(LOCATION) + np.array(SCALE) * RNG.normal(size=(4, 2, 3))
    distribution = Standardized(Normal(mean, log_std), LOCATION, SCALE)
    expected_mean, std = np.array(LOCATION) + np.array(SCALE) * mean, np.array(SCALE) * np.exp(log_std)
    expected = stats.norm(expected_mean[..., :2], std[..., :2]).logpdf(x[..., :2]).sum(axis=(1, 2))
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-5)
    np.testing.assert_allclose(distribution.mean, expected_mean, rtol=1e-5)
    draws = draws_of(distribution)
    assert near_moments(draws[..., :2], expected_mean[..., :2], std[..., :2])
    assert np.all(draws[..., 2] == 7)
    terms = distribution.log_terms(distribution.cast(x))
    np.testing.assert_array_equal(terms[..., 2], 0)


def test_a_constant_element_counts_0_nats_and_sends_no_gradient():
    def score(mean):
        return Standardized(Normal(mean, jnp.zeros((2, 3))), LOCATION, SCALE).log_prob(np.ones((2, 3))).sum()

    gradient = jax.grad(score)(jnp.ones((2, 3)))
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, 2], 0)


def test_values_far_from_0_are_standardised_in_double_precision():
    x = 1e9 + RNG.normal(size=(50, 1))
    np.testing.assert_allclose(standardize(x, (1e9,), (1.0,)), x - 1e9, atol=1e-6)
    mean = np.zeros((50, 1), np.float32)
    log_prob = Standardized(Normal(mean, mean), (1e9,), (1.0,)).log_prob(x)
    np.testing.assert_allclose(log_prob, stats.norm(1e9, 1).logpdf(x)[:, 0], rtol=1e-5)
    inside = jax.jit(lambda x: standardize(x, (2.0,), (4.0,)))(jnp.float32(x[:3] - 1e9))
    assert inside.dtype == np.float32
    np.testing.assert_allclose(inside, (x[:3] - 1e9 - 2) / 4, rtol=1e-5)
    for coarse in (jnp.ones((2, 1), bool), jnp.ones((2, 1), int), jnp.ones((2, 1), jnp.bfloat16)):
        np.testing.assert_allclose(standardize(coarse, (0.25,), (0.5,)), 1.5)


def test_center_and_spread_are_numpys_and_the_spread_of_a_constant_is_0():
    columns = {
        "small": RNG.normal(2, 1e-9, 400),
        "unix seconds within 20 minutes": 1.7e9 + RNG.uniform(0, 1200, 400),
        "rounding": np.full(400, 0.1 * 3),
        "constant": np.full(400, 1e9),
        "zero": np.zeros(400),
    }
    values = np.stack(list(columns.values()), axis=1)
    mean, spread = center_and_spread(values)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(spread[:2], values[:, :2].std(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(spread[2:], 0)
    np.testing.assert_array_equal(mean[2:], values[0, 2:])


def test_a_masked_density_counts_the_hidden_elements_alone():
    whole, masked = FAMILIES["continuous bernoulli"], FAMILIES["masked"]
    x = RNG.random(SHAPE, np.float32)
    expected = np.where(OBSERVED, 0, whole.log_terms(x)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(masked.log_prob(x), expected, rtol=1e-5)
    assert np.all(masked.log_prob(np.where(OBSERVED, x, 1 - x)) != masked.log_prob(x))
    key = jax.random.key(5)
    for value, of_whole in ((masked.mean, whole.mean), (masked.sample(key), whole.sample(key))):
        np.testing.assert_array_equal(value, np.where(OBSERVED, GREY, of_whole))


BASES = {
    "bernoulli": (Bernoulli, GREY - special.expit(LOGITS)),
    "normal": (lambda logits: Normal(logits, jnp.zeros(SHAPE)), GREY - LOGITS),
    "standardised": (
        lambda logits: Standardized(Normal(logits, jnp.zeros(SHAPE)), (0.5,), (2.0,)),
        (GREY - 0.5) / 2 - LOGITS,
    ),
}


@pytest.mark.parametrize(("base", "expected"), BASES.values(), ids=BASES.keys())
def test_nan_at_an_observed_place_reaches_neither_value_nor_gradient(base, expected):
    def score(logits, x):
        return Masked(base(logits), jnp.asarray(OBSERVED), jnp.asarray(x)).log_prob(x).sum()

    x = np.where(OBSERVED, np.nan, GREY)
    value, (by_logits, by_x) = jax.jit(jax.value_and_grad(score, argnums=(0, 1)))(jnp.asarray(LOGITS), jnp.asarray(x))
    assert value == pytest.approx(float(score(LOGITS, np.where(OBSERVED, 0, GREY))), rel=1e-5)
    assert value == pytest.approx(float(score(LOGITS, x)), rel=1e-5)
    np.testing.assert_allclose(by_logits, np.where(OBSERVED, 0, expected), atol=1e-6)
    assert np.isfinite(by_x).all()
    np.testing.assert_array_equal(np.asarray(by_x)[OBSERVED], 0)


def layer(state, number, above):
    """Three layers of two latents each, every mean a sum over the layers above."""
    base, slope = state
    centre = base[:, 2 * number : 2 * number + 2] + slope * above.sum(axis=1, keepdims=True)
    return Normal(centre, jnp.full(centre.shape, -0.5 + 0.2 * number))


LADDER = Ladder((jnp.asarray(np.random.default_rng(4).normal(size=(5, 6)), jnp.float32), jnp.float32(0.7)), layer, 3)


def test_a_ladder_draws_with_the_conditionals_of_its_draw():
    key = jax.random.key(6)
    z, conditionals = jax.jit(lambda ladder: ladder.sample_with_conditional(key))(LADDER)
    assert z.shape == (5, 6)
    np.testing.assert_array_equal(z, jax.jit(lambda ladder: ladder.sample(key))(LADDER))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), conditionals, LADDER.conditional(z))
    np.testing.assert_allclose(LADDER.log_prob(z), conditionals.log_prob(z), rtol=1e-6)


def test_the_density_of_a_ladder_is_that_of_its_joint_gaussian():
    """Z = base + N Z + std noise, with N below the diagonal of blocks: mean (1 - N)^-1 base, covariance alike."""
    z = np.asarray(LADDER.sample(jax.random.key(6)))
    number = np.repeat(np.arange(3), 2)
    forward = np.linalg.inv(np.eye(6) - 0.7 * (number[:, None] > number))
    covariance = forward @ np.diag(np.exp(2 * (-0.5 + 0.2 * number))) @ forward.T
    means = np.asarray(LADDER.state[0], np.float64) @ forward.T
    expected = [stats.multivariate_normal(mean, covariance).logpdf(row) for mean, row in zip(means, z, strict=True)]
    np.testing.assert_allclose(LADDER.log_prob(z), expected, rtol=1e-4)
    np.testing.assert_allclose(LADDER.sample(jax.random.key(6), 0.0), means, rtol=1e-5, atol=1e-5)
    draws = draws_of(LADDER)
    assert near_moments(draws, means, np.sqrt(np.diag(covariance)))


def test_a_normal_is_a_ladder_of_one_layer():
    normal, key = Normal(jnp.asarray(MEAN), jnp.asarray(LOG_STD)), jax.random.key(6)
    z, conditional = normal.sample_with_conditional(key)
    np.testing.assert_array_equal(z, normal.sample(key))
    assert conditional is normal.conditional(z) is normal
