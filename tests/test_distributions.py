"""Densities against scipy, the KL against an integral, samples against their moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from cvae.distributions import Bernoulli, Normal, kl_divergence

RNG = np.random.default_rng(0)
MEAN, LOG_STD, X = RNG.normal(size=(3, 3, 5)).astype(np.float32)


def test_normal_log_prob_is_scipys():
    expected = stats.norm(MEAN, np.exp(LOG_STD)).logpdf(X).sum(axis=1)
    np.testing.assert_allclose(Normal(MEAN, LOG_STD).log_prob(X), expected, rtol=1e-5)


def test_log_prob_sums_over_the_event_and_not_over_the_batch():
    shape = (3, 2, 4, 1)
    for distribution in (Normal(jnp.zeros(shape), jnp.zeros(shape)), Bernoulli(jnp.zeros(shape))):
        assert distribution.log_prob(jnp.ones(shape)).shape == (3,)


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
