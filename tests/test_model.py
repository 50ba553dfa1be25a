"""The contracts of the four functions: pure, under jit, vmap and grad; and the door before them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from tests.conftest import BATCH, CLASSES, EVENT, LATENT


def close(a, b, rtol=1e-4):
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=rtol, atol=1e-5), a, b)


def z_of(example, key):
    return example.model.encode(example.params, example.x, example.c).sample(key)


def test_shapes(example, key):
    model, params, x, c = example
    q = model.encode(params, x, c)
    assert q.mean.shape == q.log_std.shape == (BATCH, LATENT)
    p = model.prior(params, c)
    assert p.mean.shape == (len(c.get("label", [0])), LATENT)
    assert not p.mean.any()
    assert not p.log_std.any()
    likelihood = model.decode(params, z_of(example, key), c)
    assert likelihood.mean.shape == likelihood.sample(key).shape == (BATCH, *EVENT)
    assert likelihood.log_prob(x).shape == (BATCH,)


def test_parameters_are_a_plain_nested_dict(example):
    def walk(tree):
        assert type(tree) in (dict,) or isinstance(tree, jax.Array)
        for name, branch in tree.items() if type(tree) is dict else ():
            assert type(name) is str
            walk(branch)

    walk(example.params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(example.params))


def test_jit_changes_nothing(example, key):
    model, params, x, c = example
    close(jax.jit(model.init)(key), model.init(key))
    close(jax.jit(model.encode)(params, x, c), model.encode(params, x, c))
    close(jax.jit(model.prior)(params, c), model.prior(params, c))
    z = z_of(example, key)
    close(jax.jit(model.decode)(params, z, c), model.decode(params, z, c))


def test_vmap_over_examples_is_the_batch(example):
    model, params, x, c = example
    alone = jax.vmap(lambda x, c: model.encode(params, x[None], {name: v[None] for name, v in c.items()}))(x, c)
    batch = model.encode(params, x, c)
    close((alone.mean[:, 0], alone.log_std[:, 0]), (batch.mean, batch.log_std))


def test_vmap_over_keys_and_parameters_is_a_population(example, key):
    model, _, x, c = example
    keys = jax.random.split(key, 3)
    population = jax.vmap(model.init)(keys)
    values = jax.vmap(lambda params, key: cvae.elbo(model, params, key, x, c).value)(population, keys)
    assert values.shape == (3, BATCH)
    for i in range(3):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], population)
        close(member, model.init(keys[i]))
        close(values[i], cvae.elbo(model, member, keys[i], x, c).value)


def test_grad_reaches_every_parameter_and_the_picture(example, key):
    model, params, x, c = example
    gradient, pixels = jax.grad(lambda p, x: cvae.elbo(model, p, key, x, c).value.mean(), argnums=(0, 1))(params, x)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
    assert np.abs(pixels).max() > 0


def test_gradient_is_the_finite_difference(labelled, key):
    model, params, x, c = labelled

    def value(step, direction):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return cvae.elbo(model, moved, key, x, c).value.mean()

    direction = model.init(jax.random.key(9))
    slope = float(jax.grad(value)(0.0, direction))
    step = 1e-2
    difference = float(value(step, direction) - value(-step, direction)) / (2 * step)
    # Central differences are off by the third derivative times step^2, and by float32 rounding over the step.
    assert slope == pytest.approx(difference, rel=1e-2, abs=1e-2)


def test_calls_leave_their_arguments_alone(example, key):
    model, params, x, c = example
    before = jax.tree.map(np.array, (params, x, c))
    cvae.elbo(model, params, key, x, c)
    jax.tree.map(np.testing.assert_array_equal, before, (params, x, c))


def test_the_label_reaches_the_encoder_and_the_decoder(labelled, key):
    model, params, x, c = labelled
    other = {"label": (c["label"] + 1) % CLASSES}
    q, changed = model.encode(params, x, c), model.encode(params, x, other)
    assert np.all(np.any(q.mean != changed.mean, axis=1))
    assert np.all(np.any(q.log_std != changed.log_std, axis=1))
    z = q.sample(key)
    likelihood, moved = model.decode(params, z, c), model.decode(params, z, other)
    assert np.all(np.any(likelihood.logits != moved.logits, axis=(1, 2, 3)))


def test_the_scale_is_bounded_whatever_the_weights(labelled):
    model, params, x, c = labelled
    wild = jax.tree.map(lambda leaf: 1e6 * jnp.ones_like(leaf), params)
    q = model.encode(wild, x, c)
    assert np.all(np.abs(q.log_std) <= 7)
    assert np.all(np.isfinite(cvae.kl_divergence(cvae.Normal(0 * q.mean, q.log_std), model.prior(params, c))))


BAD_X = {
    "shape": (np.zeros((3, 6), np.float32), r"x must have shape \[B, 2, 3, 1\], got \(3, 6\)"),
    "rank": (np.zeros((2, 3, 1), np.float32), r"x must have shape \[B, 2, 3, 1\], got \(2, 3, 1\)"),
    "empty": (np.zeros((0, 2, 3, 1), np.float32), r"x must hold at least one example, got shape \(0, 2, 3, 1\)"),
    "range": (np.full((3, 2, 3, 1), 1.5, np.float32), r"x must be floats in \[0, 1\], got values from 1.5 to 1.5"),
    "negative": (np.full((3, 2, 3, 1), -0.1, np.float32), "got values from -0.1 to -0.1"),
    "nan": (np.full((3, 2, 3, 1), np.nan, np.float32), r"x must be floats in \[0, 1\], got 18 NaN"),
    "uint8": (np.zeros((3, 2, 3, 1), np.uint8), r"x must be floats in \[0, 1\] \(`cvae.prepare` .* got uint8 values"),
    "integers": (np.zeros((3, 2, 3, 1), np.int32), "got int32 values"),
    "a list": ([0.5, 0.5, 0.5], "x must be an array, got a list"),
}


@pytest.mark.parametrize(("x", "message"), BAD_X.values(), ids=BAD_X.keys())
def test_bad_pictures_are_refused(labelled, x, message):
    with pytest.raises(ValueError, match=message):
        labelled.model.encode(labelled.params, x, labelled.c)


def test_bad_latents_and_conditions_are_refused(labelled, key):
    model, params, x, c = labelled
    with pytest.raises(ValueError, match=r"z must have shape \[B, 4\], got \(3, 5\)"):
        model.decode(params, jnp.zeros((3, 5)), c)
    with pytest.raises(ValueError, match="one entry an example of x, 2 of them, got 3"):
        model.encode(params, x[:2], c)
    with pytest.raises(ValueError, match=r"got \[\]: \['label'\] missing"):
        model.prior(params, {})
    with pytest.raises(ValueError, match="got 5 at row 0"):
        cvae.elbo(model, params, key, x, {"label": np.array([CLASSES, 0, 0])})


def test_shapes_are_refused_inside_jit_too(labelled):
    model, params, x, c = labelled
    with pytest.raises(ValueError, match=r"x must have shape \[B, 2, 3, 1\], got \(3, 6\)"):
        jax.jit(model.encode)(params, x.reshape(3, 6), c)
