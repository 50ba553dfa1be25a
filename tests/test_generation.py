"""Pictures from a condition, and from a picture."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

import cvae
from tests.conftest import BATCH, CLASSES, EVENT
from tests.oracles import linear_gaussian


def test_a_picture_a_condition(labelled, plain, key):
    drawn = cvae.sample(labelled.model, labelled.params, key, {"label": jnp.arange(CLASSES)})
    assert drawn.shape == (CLASSES, *EVENT)
    assert np.all((drawn > 0) & (drawn < 1))
    assert cvae.sample(plain.model, plain.params, key, {}).shape == (1, *EVENT)


def test_vmap_over_keys_draws_many(labelled, key):
    keys = jax.random.split(key, 4)
    many = jax.vmap(lambda k: cvae.sample(labelled.model, labelled.params, k, labelled.c))(keys)
    assert many.shape == (4, BATCH, *EVENT)
    assert len(np.unique(np.asarray(many)[:, 0, 0, 0, 0])) == 4


def test_temperature_nought_is_the_mean_of_the_prior(labelled, key):
    model, params, _, c = labelled
    drawn = cvae.sample(model, params, key, c, temperature=0.0)
    expected = model.decode(params, jnp.zeros((BATCH, 4)), c).mean
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)


def test_samples_have_the_moments_of_the_model():
    """Of a linear-Gaussian model: the mean of x is W prior mean + V c, the spread W diag(temperature s0)^2 W'."""
    oracle = linear_gaussian(exact=True)
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.vmap(lambda k: cvae.sample(oracle.model, oracle.params, k, oracle.c, temperature=0.5))
    drawn = np.asarray(draw(keys), np.float64)
    p = {name: np.asarray(value, np.float64) for name, value in oracle.params.items()}
    row = np.asarray(oracle.c["row"], np.float64)
    mean = (p["m0"] + row @ p["M"].T) @ p["W"].T + row @ p["V"].T
    variance = np.diag(p["W"] @ np.diag(0.25 * np.exp(2 * p["log_s0"])) @ p["W"].T)
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 5 * np.sqrt(variance / len(drawn)))
    assert np.all(np.abs(drawn.var(axis=0) - variance) < 5 * variance * np.sqrt(2 / len(drawn)))


def test_a_reconstruction_decodes_a_draw_of_the_posterior(example, key):
    model, params, x, c = example
    z = model.encode(params, x, c).sample(key)
    drawn = cvae.reconstruct(model, params, key, x, c)
    np.testing.assert_allclose(drawn, expit(np.asarray(model.decode(params, z, c).logits)), rtol=1e-5)
    assert drawn.shape == x.shape
