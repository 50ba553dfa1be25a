"""Densities against scipy, the KL against an integral, samples against their moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from cvae.distributions import _SERIES, Bernoulli, ContinuousBernoulli, Ladder, Normal, Partial, kl_divergence, kl_terms

RNG = np.random.default_rng(0)
MEAN, LOG_STD, X = RNG.normal(size=(3, 3, 5)).astype(np.float32)


def test_normal_log_prob_is_scipys():
    expected = stats.norm(MEAN, np.exp(LOG_STD)).logpdf(X).sum(axis=1)
    np.testing.assert_allclose(Normal(MEAN, LOG_STD).log_prob(X), expected, rtol=1e-5)


SHAPE = (3, 2, 4, 1)
LOGITS, SCALES, GREY = RNG.normal(size=SHAPE), RNG.normal(size=SHAPE), RNG.random(SHAPE)
HIDDEN = RNG.random(SHAPE) < 0.5
FAMILIES = {
    "normal": Normal(*jnp.float32([LOGITS, SCALES])),
    "bernoulli": Bernoulli(jnp.float32(LOGITS)),
    "continuous bernoulli": ContinuousBernoulli(jnp.float32(LOGITS)),
    "partial": Partial(ContinuousBernoulli(jnp.float32(LOGITS)), jnp.asarray(HIDDEN), jnp.float32(GREY)),
}


@pytest.mark.parametrize("distribution", FAMILIES.values(), ids=FAMILIES.keys())
def test_log_prob_sums_the_terms_over_the_event_and_not_over_the_batch(distribution):
    terms = distribution.log_terms(jnp.float32(GREY))
    assert terms.shape == SHAPE
    assert distribution.log_prob(jnp.float32(GREY)).shape == (3,)
    expected = np.asarray(terms, np.float64).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(distribution.log_prob(jnp.float32(GREY)), expected, rtol=1e-5)


def test_the_kl_sums_its_terms():
    q, p = Normal(MEAN, LOG_STD), Normal(X, -LOG_STD)
    assert kl_terms(q, p).shape == (3, 5)
    np.testing.assert_allclose(kl_divergence(q, p), np.asarray(kl_terms(q, p)).sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(kl_terms(Normal(X, LOG_STD)._replace(mean=X), Normal(X, LOG_STD)), 0)


def test_normal_samples_have_its_moments():
    keys = jax.random.split(jax.random.key(1), 4000)
    draws = np.asarray(jax.vmap(Normal(MEAN, LOG_STD).sample)(keys), np.float64)
    std = np.exp(LOG_STD)
    assert np.all(np.abs(draws.mean(axis=0) - MEAN) < 5 * std / np.sqrt(len(draws)))
    # The standard error of a standard deviation is std / sqrt(2 n).
    assert np.all(np.abs(draws.std(axis=0) - std) < 5 * std / np.sqrt(2 * len(draws)))


@pytest.mark.parametrize(("m_q", "s_q", "m_p", "s_p"), [(0.3, 0.5, -1.0, 2.0), (2.0, 1.5, 0.0, 1.0), (0, 0.05, 0, 1)])
def test_kl_is_the_integral(m_q, s_q, m_p, s_p):
    q, p = stats.norm(m_q, s_q), stats.norm(m_p, s_p)
    integral, error = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), m_q - 12 * s_q, m_q + 12 * s_q)
    pair = [Normal(jnp.full((1, 1), m, float), jnp.full((1, 1), np.log(s), float)) for m, s in ((m_q, s_q), (m_p, s_p))]
    assert abs(kl_divergence(*pair)[0] - integral) < max(10 * error, 1e-5 * (1 + integral))


def test_kl_is_the_multivariate_formula():
    m_p, log_s_p = RNG.normal(size=(2, 3, 5)).astype(np.float32)
    expected = []
    for mq, sq, mp, sp in zip(MEAN, np.exp(2 * LOG_STD), m_p, np.exp(2 * log_s_p), strict=True):
        trace, shift = np.trace(np.diag(sq / sp)), (mp - mq) @ np.diag(1 / sp) @ (mp - mq)
        log_det = np.linalg.slogdet(np.diag(sp))[1] - np.linalg.slogdet(np.diag(sq))[1]
        expected.append(0.5 * (trace + shift - 5 + log_det))
    actual = kl_divergence(Normal(MEAN, LOG_STD), Normal(m_p, log_s_p))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_kl_to_itself_is_zero_and_is_not_symmetric():
    q, p = Normal(MEAN, LOG_STD), Normal(X, -LOG_STD)
    np.testing.assert_allclose(kl_divergence(q, q), 0, atol=1e-6)
    assert np.all(kl_divergence(q, p) > 0)
    assert not np.allclose(kl_divergence(q, p), kl_divergence(p, q), rtol=0.01)


def test_a_single_row_broadcasts_over_the_batch():
    one = Normal(jnp.zeros((1, 5)), jnp.zeros((1, 5)))
    three = Normal(jnp.zeros((3, 5)), jnp.zeros((3, 5)))
    np.testing.assert_array_equal(
        kl_divergence(Normal(MEAN, LOG_STD), one), kl_divergence(Normal(MEAN, LOG_STD), three)
    )


def test_bernoulli_log_prob_is_scipys_on_binary_pixels():
    x = RNG.integers(0, 2, size=(3, 5))
    expected = stats.bernoulli(special.expit(MEAN)).logpmf(x).sum(axis=1)
    np.testing.assert_allclose(Bernoulli(MEAN).log_prob(x), expected, rtol=1e-5)


def test_bernoulli_log_prob_is_the_cross_entropy_on_grey_pixels():
    x, p = RNG.random((3, 5)), special.expit(MEAN.astype(float))
    expected = (special.xlogy(x, p) + special.xlog1py(1 - x, -p)).sum(axis=1)
    np.testing.assert_allclose(Bernoulli(MEAN).log_prob(x), expected, rtol=1e-5)


@pytest.mark.parametrize("logit", [-1e4, -104.0, -1e-6, 0.0, 0.5, 104.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
def test_bernoulli_stays_finite_where_probabilities_saturate(logit, x):
    def log_prob(logit):
        return Bernoulli(jnp.full((1, 1), logit)).log_prob(jnp.full((1, 1), x))[0]

    value, slope = jax.value_and_grad(log_prob)(logit)
    assert value == pytest.approx(x * logit - np.logaddexp(logit, 0), abs=2e-7)
    assert slope == pytest.approx(x - special.expit(logit), abs=2e-7)


def test_bernoulli_samples_are_binary_and_have_its_mean():
    keys = jax.random.split(jax.random.key(2), 4000)
    draws = np.asarray(jax.vmap(Bernoulli(MEAN).sample)(keys))
    assert set(np.unique(draws)) == {0.0, 1.0}
    p = special.expit(MEAN)
    assert np.all(np.abs(draws.mean(axis=0) - p) < 5 * np.sqrt(p * (1 - p) / len(draws)))


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
    log_normaliser = np.log(total) + max(logit, 0)
    return log_normaliser, mean if logit < 0 else 1 - mean, second / total - mean**2


AROUND = [float(np.nextafter(np.float32(_SERIES), np.float32(side))) for side in (0, 1)]
NEAR = [0.0, 1e-30, 1e-6, -1e-3, 0.03, -0.1, *AROUND, *(-logit for logit in AROUND)]
WIDE = [0.5, -1.0, 3.0, -10.0, 30.0, -30.0, 100.0, -100.0]


@pytest.mark.parametrize("logit", NEAR + WIDE)
def test_continuous_bernoulli_is_a_density(logit):
    """exp(log_prob) is exp(l x) over its integral: it integrates to 1, and has that mean."""
    log_normaliser, mean, _ = moments(logit)
    x = np.linspace(0, 1, 11, dtype=np.float32)[:, None]
    distribution = ContinuousBernoulli(jnp.full((11, 1), logit))
    # Sums of a few numbers as large as the logit, each off by a float32 rounding.
    error = 1e-6 * (1 + abs(logit))
    np.testing.assert_allclose(distribution.log_prob(x), logit * x[:, 0].astype(float) - log_normaliser, atol=error)
    np.testing.assert_allclose(distribution.mean, mean, atol=2e-6)


@pytest.mark.parametrize("logit", [-30.0, -0.1, 0.0, AROUND[0], 5.0])
def test_continuous_bernoulli_integrates_to_one(logit):
    distribution = ContinuousBernoulli(jnp.full((2001, 1), logit))
    x = np.linspace(0, 1, 2001)
    density = np.exp(np.asarray(distribution.log_prob(x[:, None].astype(np.float32)), np.float64))
    assert integrate.simpson(density, x=x) == pytest.approx(1, abs=1e-6 * (1 + abs(logit)))
    assert integrate.simpson(x * density, x=x) == pytest.approx(
        float(distribution.mean[0, 0]), abs=1e-6 * (1 + abs(logit))
    )


@jax.jit
def slopes(logit, x):
    """Derivatives by the logit of the log density and of the mean."""

    def of(logit):
        distribution = ContinuousBernoulli(jnp.reshape(logit, (1, 1)))
        return distribution.log_prob(jnp.reshape(x, (1, 1)))[0], distribution.mean[0, 0]

    return jax.jacrev(of)(logit)


@pytest.mark.parametrize("logit", NEAR + WIDE)
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_continuous_bernoulli_has_the_gradients_of_its_family(logit, x):
    """By the logit, the log density has the derivative x - mean, and the mean the variance."""
    _, mean, variance = moments(logit)
    of_log_prob, of_mean = slopes(logit, x)
    # Closed forms subtract numbers up to 1 / l^2 where the series ends.
    assert of_log_prob == pytest.approx(x - mean, abs=4e-6)
    assert of_mean == pytest.approx(variance, abs=2e-5)


@pytest.mark.parametrize("logit", [1e4, -1e4, 104.0, -104.0])
@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
def test_continuous_bernoulli_stays_finite_where_it_saturates(logit, x, key):
    distribution = ContinuousBernoulli(jnp.full((1, 1), logit))
    expected = logit * x - max(logit, 0) + np.log(abs(logit))
    assert distribution.log_prob(jnp.full((1, 1), x))[0] == pytest.approx(expected, abs=1e-6 * abs(logit))
    assert distribution.mean[0, 0] == pytest.approx((logit > 0) - 1 / logit, abs=2e-7)
    of_log_prob, of_mean = slopes(logit, x)
    assert of_log_prob == pytest.approx(x - (logit > 0) + 1 / logit, abs=2e-7)
    assert of_mean == pytest.approx(logit**-2, abs=2e-7)
    assert 0 <= distribution.sample(key)[0, 0] <= 1


def test_continuous_bernoulli_is_continuous_where_its_series_ends():
    x = np.full((1, 1), 0.3, np.float32)
    for sign in (1, -1):
        inside, outside = (ContinuousBernoulli(jnp.full((1, 1), sign * logit)) for logit in AROUND)
        assert inside.log_prob(x)[0] == pytest.approx(float(outside.log_prob(x)[0]), abs=1e-6)
        assert inside.mean[0, 0] == pytest.approx(float(outside.mean[0, 0]), abs=1e-6)


def test_continuous_bernoulli_samples_have_its_distribution():
    logits = np.array([-1e4, -30, -3, -0.15, 0, 1e-7, 0.15, 1, 30, 1e4], np.float32)
    size = 200_000
    many = ContinuousBernoulli(jnp.broadcast_to(logits, (size, len(logits))))
    draws = np.asarray(jax.jit(many.sample)(jax.random.key(3)), np.float64)
    assert draws.min() >= 0
    assert draws.max() <= 1
    for logit, column in zip(logits.astype(float), draws.T, strict=True):
        _, mean, variance = moments(logit)
        assert abs(column.mean() - mean) < 5 * np.sqrt(variance / size), logit
        if 0.1 < abs(logit) < 100:  # beyond, a float32 near 1 is coarser than the distribution
            tests = stats.kstest(column, lambda x, logit=logit: np.expm1(logit * x) / np.expm1(logit))
            assert tests.pvalue > 1e-6, logit


def test_partial_counts_the_hidden_elements_alone(key):
    whole = FAMILIES["continuous bernoulli"]
    part, x = FAMILIES["partial"], jnp.float32(RNG.random(SHAPE))
    expected = np.where(HIDDEN, whole.log_terms(x), 0).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(part.log_prob(x), expected, rtol=1e-5)
    other = jnp.where(HIDDEN, x, 1 - x)
    np.testing.assert_array_equal(part.log_prob(other), part.log_prob(x))
    assert np.all(part.log_prob(jnp.where(HIDDEN, 1 - x, x)) != part.log_prob(x))
    for value, of_whole in ((part.mean, whole.mean), (part.sample(key), whole.sample(key))):
        np.testing.assert_array_equal(value, np.where(HIDDEN, of_whole, np.float32(GREY)))


def test_partial_reads_nothing_at_hidden_places(key):
    part = FAMILIES["partial"]
    other = part._replace(given=jnp.where(HIDDEN, jnp.nan, part.given))
    for one, two in (
        (part.mean, other.mean),
        (part.sample(key), other.sample(key)),
        (part.log_prob(jnp.float32(GREY)), other.log_prob(jnp.float32(GREY))),
    ):
        np.testing.assert_array_equal(one, two)


def test_no_gradient_reaches_what_is_given():
    def score(logits):
        return Partial(Bernoulli(logits), jnp.asarray(HIDDEN), jnp.float32(GREY)).log_prob(jnp.float32(GREY)).sum()

    gradient = np.asarray(jax.jit(jax.grad(score))(jnp.float32(LOGITS)))
    assert np.all(gradient[~HIDDEN] == 0)
    np.testing.assert_allclose(gradient[HIDDEN], (GREY - special.expit(LOGITS))[HIDDEN], atol=1e-6)


def rung(state, number, above):
    """Three layers of two latents each, every mean a sum over the layers above."""
    base, slope = state
    centre = base[:, 2 * number : 2 * number + 2] + slope * above.sum(axis=1, keepdims=True)
    return Normal(centre, jnp.full(centre.shape, -0.5 + 0.2 * number))


@pytest.fixture
def ladder():
    """A ladder of three layers for a batch of five."""
    base = jnp.asarray(np.random.default_rng(4).normal(size=(5, 6)), jnp.float32)
    return Ladder((base, jnp.float32(0.7)), rung, 3)


def test_a_ladder_says_of_a_draw_what_it_says_given_it(ladder, key):
    z, conditionals = jax.jit(lambda ladder: ladder.draw(key))(ladder)
    assert z.shape == (5, 6)
    np.testing.assert_array_equal(z, jax.jit(lambda ladder: ladder.sample(key))(ladder))
    for a, b in zip(conditionals, ladder.given(z), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ladder.log_prob(z), conditionals.log_prob(z), rtol=1e-6)


def test_a_ladders_density_is_that_of_its_joint_gaussian(ladder, key):
    """Z = base + N Z + std noise, with N below the diagonal of blocks: mean (1 - N)^-1 base, covariance alike."""
    z = ladder.sample(key)
    layer = np.repeat(np.arange(3), 2)
    forward = np.linalg.inv(np.eye(6) - 0.7 * (layer[:, None] > layer))
    covariance = forward @ np.diag(np.exp(2 * (-0.5 + 0.2 * layer))) @ forward.T
    means = np.asarray(ladder.state[0], np.float64) @ forward.T
    expected = [
        stats.multivariate_normal(m, covariance).logpdf(row) for m, row in zip(means, np.asarray(z), strict=True)
    ]
    np.testing.assert_allclose(ladder.log_prob(z), expected, rtol=1e-4)
    # And a draw at temperature 0 is the mean.
    np.testing.assert_allclose(ladder.sample(key, 0.0), means, rtol=1e-5, atol=1e-5)


def test_a_normal_is_a_ladder_of_one_layer(key):
    normal = Normal(jnp.ones((3, 2)), jnp.zeros((3, 2)))
    z, conditional = normal.draw(key)
    np.testing.assert_array_equal(z, normal.sample(key))
    assert conditional is normal
    assert normal.given(z) is normal
    np.testing.assert_allclose(normal.sample(key, 0.5) - 1, 0.5 * (z - 1), rtol=1e-6)
