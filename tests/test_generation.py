"""Samples from a condition, and reconstructions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from tests.conftest import BATCH, CLASSES, EVENT
from tests.oracles import NOISE, linear_gaussian


def test_shapes(labelled, plain, key):
    run = jax.jit(cvae.sample, static_argnums=0, static_argnames=("mean", "num_samples"))
    c = {"label": np.arange(CLASSES)}
    drawn = run(labelled.model, labelled.params, key, c)
    assert drawn.shape == (CLASSES, *EVENT)
    assert set(np.unique(drawn)) == {0, 1}
    mean = run(labelled.model, labelled.params, key, c, mean=True)
    assert np.all((mean > 0) & (mean < 1))
    assert jax.eval_shape(lambda: cvae.sample(plain.model, plain.params, key, {})).shape == (1, *EVENT)
    many = run(labelled.model, labelled.params, key, labelled.c, mean=True, num_samples=4)
    assert many.shape == (4, BATCH, *EVENT)
    assert len(np.unique(np.asarray(many)[:, 0, 0, 0, 0])) == 4


def test_temperature_0_is_the_mean_of_the_prior(labelled, key):
    model, params, _, c = labelled
    drawn = jax.jit(lambda: cvae.sample(model, params, key, c, mean=True, temperature=0.0))()
    np.testing.assert_allclose(drawn, model.decode(params, jnp.zeros((BATCH, 4)), c).mean, rtol=1e-6)


@pytest.mark.parametrize("mean", [True, False])
def test_samples_have_the_moments_of_the_model(mean):
    """Of a linear-Gaussian model: W prior mean + V c, and W diag(temperature s0)^2 W' (+ noise^2 I in draws)."""
    oracle = linear_gaussian(exact=True)

    @jax.jit
    def draw(key):
        arguments = {"mean": mean, "temperature": 0.5, "num_samples": 4000}
        return cvae.sample(oracle.model, oracle.params, key, oracle.c, **arguments)

    drawn = np.asarray(draw(jax.random.key(0)), np.float64)
    p, _, f, _ = oracle.double()
    expected = (p["m0"] + f @ p["M"].T) @ p["W"].T + f @ p["V"].T
    variance = np.diag(p["W"] @ np.diag(0.25 * np.exp(2 * p["log_s0"])) @ p["W"].T) + (0 if mean else NOISE**2)
    assert np.all(np.abs(drawn.mean(axis=0) - expected) < 5 * np.sqrt(variance / len(drawn)))
    assert np.all(np.abs(drawn.var(axis=0) - variance) < 5 * variance * np.sqrt(2 / len(drawn)))


def test_a_label_out_of_range_shows_inside_jit(labelled, key):
    """No error can be raised there, and a plausible sample would hide it."""
    model, params, _, _ = labelled
    run = jax.jit(lambda c: cvae.sample(model, params, key, c, mean=True))
    drawn = run({"label": np.array([0, CLASSES, -1])})
    np.testing.assert_array_equal(np.isnan(drawn).all(axis=(1, 2, 3)), [False, True, True])
    np.testing.assert_array_equal(np.isnan(drawn).any(axis=(1, 2, 3)), [False, True, True])
    drawn = jax.jit(lambda c: cvae.sample(model, params, key, c))({"label": np.array([0, CLASSES])})
    np.testing.assert_array_equal(np.isnan(drawn).all(axis=(1, 2, 3)), [False, True])


def test_a_reconstruction_decodes_a_draw_of_the_posterior(example, key):
    model, params, x, c = example
    expected = model.decode(params, model.encode(params, x, c).sample(key), c).mean
    np.testing.assert_allclose(cvae.reconstruct(model, params, key, x, c), expected, rtol=1e-5)
    assert expected.shape == x.shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -1.0}, "temperature must be a finite number of at least 0, got -1.0"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(labelled, key, change, message):
    with pytest.raises(ValueError, match=message):
        cvae.sample(labelled.model, labelled.params, key, labelled.c, **change)
