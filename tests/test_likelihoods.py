"""Likelihoods: what the decoder's outputs mean, which x they score, and standardisation to the data's own units."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy import special, stats

import cvae
from tests.conftest import BATCH, CLASSES, EVENT, LATENT, build

FAMILIES = {
    "bernoulli": cvae.Bernoulli(),
    "continuous bernoulli": cvae.ContinuousBernoulli(),
    "normal": cvae.Normal(std=0.7, location=(0.5,), scale=(0.25,)),
    "normal, learned": cvae.Normal(location=(0.5,), scale=(0.25,)),
}
RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(3, 12)).astype(np.float32)
GREY = np.linspace(0, 1, 18, dtype=np.float32).reshape(3, *EVENT)


@pytest.mark.parametrize("name", ["bernoulli", "continuous bernoulli"])
def test_outputs_are_logits(name):
    assert FAMILIES[name].num_outputs(EVENT) == 6
    distribution = FAMILIES[name].distribution(jnp.asarray(OUTPUTS[:, :6]), EVENT)
    np.testing.assert_array_equal(distribution.logits, OUTPUTS[:, :6].reshape(3, *EVENT))
    np.testing.assert_array_equal(FAMILIES[name].features(GREY), GREY)


def test_outputs_of_a_fixed_std_are_standardised_means():
    family = FAMILIES["normal"]
    assert family.num_outputs(EVENT) == 6
    distribution = family.distribution(jnp.asarray(OUTPUTS[:, :6]), EVENT)
    np.testing.assert_allclose(distribution.base.mean, 0.1 * OUTPUTS[:, :6].reshape(3, *EVENT), rtol=1e-6)
    np.testing.assert_allclose(distribution.base.std, 0.7, rtol=1e-6)
    expected = 0.5 + 0.25 * 0.1 * OUTPUTS[:, :6].reshape(3, *EVENT)
    np.testing.assert_allclose(distribution.mean, expected, rtol=1e-5)
    log_prob = stats.norm(expected, 0.25 * 0.7).logpdf(GREY).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(distribution.log_prob(GREY), log_prob, rtol=1e-5)


def test_a_learned_std_is_the_second_output_within_its_bounds_and_1_where_that_is_0():
    family = cvae.Normal(bounds=(0.5, 8.0))
    assert family.num_outputs((5,)) == 10
    second = np.array([-1e4, -1.0, 0.0, 2.0, 1e4], np.float32)
    outputs = jnp.stack([jnp.arange(5.0), second], axis=-1)[None]
    std = np.asarray(family.distribution(outputs, (5,)).base.std[0])
    np.testing.assert_allclose(std, 0.5 * 16 ** special.expit(0.1 * second + special.logit(0.25)), rtol=1e-5)
    assert std[2] == pytest.approx(1)
    np.testing.assert_allclose(std[[0, 4]], [0.5, 8], rtol=1e-6)
    slope = jax.grad(lambda o: family.distribution(o, (5,)).log_prob(jnp.ones((1, 5))).sum())(outputs)
    assert np.isfinite(slope).all()
    # Where 1 is outside the bounds, it starts near the bound that is nearer, and can still be learned.
    for bounds, start in (((2.0, 8.0), 2 * 4**0.05), ((0.1, 0.4), 0.1 * 4**0.95)):
        distribution = cvae.Normal(bounds=bounds).distribution(jnp.zeros((1, 2)), (1,))
        assert distribution.base.std[0, 0] == pytest.approx(start, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_model_decodes_to_the_distribution_of_its_likelihood(family):
    model, params, _, c = build(cvae.Label(CLASSES), likelihood=family, hidden=(7,))
    found = jax.eval_shape(model.decode, params, jnp.zeros((BATCH, LATENT)), c)
    expected = jax.eval_shape(lambda: family.distribution(jnp.zeros((BATCH, family.num_outputs(EVENT))), EVENT))
    assert jax.tree.structure(found) == jax.tree.structure(expected)


def test_bytes_are_255ths_and_only_a_normal_scores_x_beyond_the_unit_interval():
    for name, family in FAMILIES.items():
        np.testing.assert_allclose(family.spec(EVENT).cast(np.full((1, *EVENT), 51, np.uint8)), 0.2, rtol=1e-6)
        if name.startswith("normal"):
            family.spec(EVENT).check("x", 300 * GREY - 1)
        else:
            with pytest.raises(ValueError, match=r"^x must be floats, or uint8 in 255ths, in \[0, 1\], got "):
                family.spec(EVENT).check("x", 300 * GREY - 1)


# Standardisation

DATA = {
    "far": RNG.normal(5e4, 2e4, (400, 3)),
    "farther": RNG.normal(1e9, 1, (400, 3)),
    "channels": RNG.normal([-60, 3], [706, 0.35], (400, 32, 2)),
    "unix seconds within 20 minutes": 1.7e9 + RNG.uniform(0, 1200, (400, 1)),
    "whole seconds": 1_700_000_000 + RNG.integers(0, 1200, (400, 1)),
    "bytes": RNG.integers(0, 256, (400, 4, 3), np.uint8),
    "half precision": RNG.normal(2, 0.5, (400, 2)).astype(np.float16),
    "bfloat16": RNG.normal(2, 0.5, (400, 2)).astype(ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("x", DATA.values(), ids=DATA.keys())
def test_a_fitted_normal_is_that_of_the_data_in_the_units_of_x(x):
    values = np.asarray(x, np.float64) / (255 if x.dtype == np.uint8 else 1)
    axes = tuple(range(x.ndim - 1))
    location, scale = values.mean(axis=axes), values.std(axis=axes)
    family = cvae.Normal.fitted(x, std=1.0)
    np.testing.assert_allclose(family.location, location, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(family.scale, scale, rtol=1e-6)
    assert len(family.scale) == x.shape[-1]
    event = x.shape[1:]
    distribution = family.distribution(jnp.zeros((len(x), family.num_outputs(event))), event)
    expected = stats.norm(location, scale).logpdf(values).reshape(len(x), -1).sum(axis=1)
    visible = values if x.dtype == np.uint8 else x
    np.testing.assert_allclose(distribution.log_prob(visible), expected, rtol=1e-4, atol=1e-4)
    features = np.asarray(family.features(visible), np.float64)
    np.testing.assert_allclose(features.mean(axis=axes), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=axes), 1, rtol=1e-5)


def test_a_fitted_normal_learns_its_std_unless_that_is_fixed():
    assert cvae.Normal.fitted(DATA["far"]).std is None
    assert cvae.Normal.fitted(DATA["far"], bounds=(0.1, 2.0)).bounds == (0.1, 2.0)
    on_device = cvae.Normal.fitted(jnp.asarray(DATA["channels"], jnp.float32))
    np.testing.assert_allclose(on_device.scale, cvae.Normal.fitted(DATA["channels"]).scale, rtol=1e-5)


def test_missing_elements_are_left_out_of_location_and_scale():
    x = np.where(RNG.random(DATA["far"].shape) < 0.3, np.nan, DATA["far"])
    family = cvae.Normal.fitted(x)
    np.testing.assert_allclose(family.location, np.nanmean(x, axis=0), rtol=1e-9)
    np.testing.assert_allclose(family.scale, np.nanstd(x, axis=0), rtol=1e-9)
    with pytest.raises(ValueError, match=r"^x must be floats, .*, all finite, got nan"):
        family.spec((3,)).check("x", x)  # only `Missing` scores them


def test_a_constant_channel_has_scale_0_and_counts_0_nats():
    x = np.stack([DATA["far"][:, 0], np.full(400, 0.1 * 3), np.full(400, 1e9)], axis=1)
    family = cvae.Normal.fitted(x, std=0.5)
    assert family.scale[1:] == (0.0, 0.0)
    outputs = jnp.asarray(RNG.normal(size=(400, 3)), jnp.float32)
    whole = family.distribution(outputs, (3,))
    alone = cvae.Normal.fitted(x[:, :1], std=0.5).distribution(outputs[:, :1], (1,))
    np.testing.assert_allclose(whole.log_prob(x), alone.log_prob(x[:, :1]), rtol=1e-6)
    draws = np.asarray(whole.sample(jax.random.key(0)))
    np.testing.assert_array_equal(draws[:, 1:], np.broadcast_to(np.float32(x[0, 1:]), (400, 2)))
    np.testing.assert_array_equal(np.asarray(family.features(x))[:, 1:], 0)


BAD_FITS = {
    "constant": (np.full((5, 2), 3.0), "^x must vary, got 3 throughout"),
    "infinite": (np.array([[1.0, np.inf]]), r"^x must be real numbers, all finite.*, got inf at row 0, element \(1,\)"),
    "missing": (np.array([[1.0, np.nan], [1.0, np.nan]]), "^x must vary, got 1 throughout"),
    "row": (np.ones(3), r"^x must have shape \[N, \*event\], got \(3,\)"),
    "empty event": (np.ones((3, 0)), r"^x must have shape \[N, \*event\], got \(3, 0\)"),
}


@pytest.mark.parametrize(("x", "message"), BAD_FITS.values(), ids=BAD_FITS.keys())
def test_a_normal_is_not_fitted_to_bad_data(x, message):
    with pytest.raises(ValueError, match=message):
        cvae.Normal.fitted(x)


BAD_NORMALS = {
    "zero": ({"std": 0.0}, "^std must be greater than or equal to 0.000001, got 0.0"),
    "word": ({"std": "learned"}, "^std must be a valid number.* got 'learned'"),
    "infinite bound": ({"bounds": (0.1, float("inf"))}, r"^bounds\[1\] must be less .* got inf"),
    "order": ({"bounds": (2.0, 1.0)}, r"^bounds must be two numbers, the lower first, got \(2.0, 1.0\)"),
    "negative scale": ({"scale": (-1.0,)}, r"^scale\[0\] must be greater than or equal to 0, got -1.0"),
    "lengths": ({"location": (1.0, 2.0)}, "^scale must have one number per location, 2, got 1"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_NORMALS.values(), ids=BAD_NORMALS.keys())
def test_bad_normals_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Normal(**fields)


def test_a_scale_of_another_number_of_channels_is_refused():
    family = cvae.Normal(location=(0.0, 1.0), scale=(1.0, 2.0))
    with pytest.raises(ValueError, match=r"^scale must have 1 or 3 numbers, got 2"):
        cvae.make(cvae.Architecture((4, 3), likelihood=family))
