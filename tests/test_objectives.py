"""The ELBO against exact answers of linear-Gaussian models, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from tests.oracles import linear_gaussian

SAMPLES = 4000


def spread(oracle) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of the ELBO over many single draws, [3] each."""
    keys = jax.random.split(jax.random.key(5), SAMPLES)
    draws = jax.vmap(lambda key: cvae.elbo(oracle.model, oracle.params, key, oracle.x, oracle.c).value)(keys)
    draws = np.asarray(draws, np.float64)
    return draws.mean(axis=0), draws.std(axis=0, ddof=1) / np.sqrt(SAMPLES)


def test_with_the_exact_posterior_the_elbo_is_log_p():
    oracle = linear_gaussian(exact=True)
    mean, error = spread(oracle)
    assert np.all(np.abs(mean - oracle.exact_log_prob()) < 5 * error)


def test_with_another_posterior_the_elbo_falls_short_by_its_kl():
    oracle = linear_gaussian(exact=False)
    mean, error = spread(oracle)
    q = oracle.model.encode(oracle.params, oracle.x, oracle.c)
    posterior_mean, posterior_covariance = oracle.exact_posterior()
    q_mean, q_variance = np.asarray(q.mean, np.float64), np.exp(2 * np.asarray(q.log_std, np.float64))
    precision = np.linalg.inv(posterior_covariance)
    shift = q_mean - posterior_mean
    gap = 0.5 * (
        q_variance @ np.diag(precision)
        + np.einsum("bi,ij,bj->b", shift, precision, shift)
        - 2
        + np.linalg.slogdet(posterior_covariance)[1]
        - np.log(q_variance).sum(axis=1)
    )
    assert np.all(gap > 10 * error), "the encoder must be wrong by more than the noise, or this proves nothing"
    assert np.all(np.abs(mean - (oracle.exact_log_prob() - gap)) < 5 * error)


def test_the_oracle_is_not_the_library():
    """A model with a swapped KL does not pass: what the other tests rely on."""
    oracle = linear_gaussian(exact=True)
    mean, error = spread(oracle)
    q, p = oracle.model.encode(oracle.params, oracle.x, oracle.c), oracle.model.prior(oracle.params, oracle.c)
    swapped = mean + np.asarray(cvae.kl_divergence(q, p) - cvae.kl_divergence(p, q))
    assert np.all(np.abs(swapped - oracle.exact_log_prob()) > 5 * error)


def test_more_samples_keep_the_mean_and_shrink_the_spread():
    oracle = linear_gaussian(exact=False)

    def draws(num_samples: int) -> np.ndarray:
        def one(key):
            return cvae.elbo(oracle.model, oracle.params, key, oracle.x, oracle.c, num_samples=num_samples).value

        return np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(num_samples), SAMPLES)), np.float64)

    one, many = draws(1), draws(16)
    error = np.sqrt((one.var(axis=0) + many.var(axis=0)) / SAMPLES)
    assert np.all(np.abs(one.mean(axis=0) - many.mean(axis=0)) < 5 * error)
    # Sixteen draws have a sixteenth of the variance; the variance of a variance allows for the rest.
    np.testing.assert_allclose(many.var(axis=0), one.var(axis=0) / 16, rtol=5 * np.sqrt(2 * 3 / SAMPLES))


def test_value_is_the_likelihood_less_the_weighted_kl(labelled, key):
    terms = cvae.elbo(labelled.model, labelled.params, key, labelled.x, labelled.c, beta=0.25)
    np.testing.assert_allclose(terms.value, terms.log_likelihood - 0.25 * terms.kl)
    assert np.all(terms.kl > 0)


def test_beta_is_an_array_that_vmap_runs_over(labelled, key):
    def value(beta):
        return cvae.elbo(labelled.model, labelled.params, key, labelled.x, labelled.c, beta=beta)

    swept = jax.vmap(value)(jnp.array([0.0, 1.0, 4.0]))
    for i, beta in enumerate((0.0, 1.0, 4.0)):
        alone = value(beta)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), swept, alone)


def test_every_example_counts_alone(labelled, key):
    """In nats per example: the terms of a batch are those of its examples, whatever their order."""
    q = labelled.model.encode(labelled.params, labelled.x, labelled.c)
    order = np.array([2, 0, 1])
    c = {"label": labelled.c["label"][order]}
    terms = cvae.elbo(labelled.model, labelled.params, key, labelled.x, labelled.c)
    turned = cvae.elbo(labelled.model, labelled.params, key, labelled.x[order], c)
    np.testing.assert_allclose(turned.kl, terms.kl[order], rtol=1e-5)
    assert q.mean.shape == (3, 4)
    assert terms.log_likelihood.shape == terms.kl.shape == terms.beta.shape == terms.value.shape == (3,)


@pytest.mark.parametrize("num_samples", [0, -1, 1.5, True])
def test_num_samples_must_be_a_whole_number(labelled, key, num_samples):
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1, got"):
        cvae.elbo(labelled.model, labelled.params, key, labelled.x, labelled.c, num_samples=num_samples)
