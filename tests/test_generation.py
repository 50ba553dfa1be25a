"""Samples from a condition, reconstructions, and counterfactuals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae.generation import sample_each
from cvae.keys import threefry
from tests.conftest import BATCH, CLASSES, EVENT, build
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


def test_draws_for_a_data_set_of_conditions_are_those_of_each_row():
    oracle = linear_gaussian(exact=True)
    model, params, _, c = oracle
    key = jax.random.key(4)
    drawn = sample_each(model, params, key, c, count=BATCH, batch_size=2)
    for row in range(BATCH):
        one = {name: values[row : row + 1] for name, values in c.items()}
        expected = cvae.sample(model, params, jax.random.fold_in(threefry(key), row), one)
        np.testing.assert_allclose(drawn[row], expected[0], rtol=1e-5)


def test_draws_far_from_0_keep_their_digits(key):
    """A column of 1.7e9 +- 3 would be drawn in steps of 128 in float32."""
    likelihood = cvae.Normal(location=(1.7e9, 0.0), scale=(3.0, 1.0))
    condition = cvae.Continuous(1, (1e9,), (2.0,), "when")
    model, params, *_ = build(condition, event_shape=(2,), likelihood=likelihood)
    when = 1e9 + np.arange(200.0)[:, None] % 5
    drawn = sample_each(model, params, key, {"when": when}, count=200)
    assert len(np.unique(drawn[:, 0])) > 190
    assert np.abs(drawn[:, 0] - 1.7e9).max() < 100
    changed = cvae.counterfactual(model, params, key, drawn, {"when": when}, {"when": when + 1})
    assert len(np.unique(changed[:, 0])) > 190


@pytest.mark.parametrize("mean", [True, False])
def test_a_counterfactual_changes_what_depends_on_the_condition_alone(mean):
    """Of a linear-Gaussian model, x' - x = V (f' - f) + W (z' - z), and z moves as the mean of its prior."""
    model, params, x, c = oracle = linear_gaussian(exact=True)
    key, new = jax.random.key(2), {"row": c["row"][::-1] + 1}
    before = cvae.counterfactual(model, params, key, x, c, c, mean=mean)
    after = cvae.counterfactual(model, params, key, x, c, new, mean=mean)
    weights = oracle.double()[0]
    moved = np.subtract(*(np.asarray(model.prior(params, each).mean, np.float64) for each in (new, c)))
    expected = (new["row"] - c["row"]) @ weights["V"].T + moved @ weights["W"].T
    np.testing.assert_allclose(after - before, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_counterfactual_under_the_same_condition_is_the_reconstruction(layers, key):
    model, params, x, c = build(cvae.Label(3), prior="learned", latent_size=4, latent_layers=layers)
    found = cvae.counterfactual(model, params, key, x, c, c, mean=True, batch_size=2)
    for row in range(BATCH):
        one = {name: values[row : row + 1] for name, values in c.items()}
        row_key = jax.random.fold_in(threefry(key), row)
        expected = cvae.reconstruct(model, params, row_key, x[row : row + 1], one)
        # Of a hierarchy z is computed anew from its noise, and rounds differently: by float32, at probabilities near 0.
        rounding = 0 if layers == 1 else 4 * np.finfo(np.float32).eps
        np.testing.assert_allclose(found[row], expected[0], rtol=1e-5, atol=rounding)


def test_conditions_of_another_length_are_refused(labelled, key):
    model, params, x, c = labelled
    with pytest.raises(ValueError, match=r"new_c must hold one entry per example of x, 3, got \[2, 3\]"):
        cvae.counterfactual(model, params, key, x, c, {"label": np.array([0, 1])})
