"""Likelihoods: what the decoder's outputs mean, which x they score, and standardisation to the data's own units."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy import special, stats

import cvae
from cvae.likelihoods import Likelihood
from cvae.settings import replace
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


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_scores_by_its_likelihood(name):
    """The density against scipy's, from the decoder's outputs."""
    model, params, x, c = build(cvae.Label(CLASSES), likelihood=FAMILIES[name], hidden=(7,))
    z = RNG.normal(size=(BATCH, LATENT)).astype(np.float32)
    other = {"label": (c["label"] + 1) % CLASSES}
    decode = jax.jit(model.decode)
    distribution = decode(params, z, c)
    if name.startswith("normal"):
        std = 0.25 * np.exp(np.float64(distribution.base.log_std))
        log_prob = stats.norm(np.float64(distribution.mean), std).logpdf(x)
    else:
        logits = np.float64(distribution.logits)
        log_prob = x * logits - np.logaddexp(0, logits)
        if name == "continuous bernoulli":
            log_prob += np.log(logits / np.tanh(logits / 2))
    np.testing.assert_allclose(distribution.log_prob(x), log_prob.sum(axis=(1, 2, 3)), rtol=1e-4)
    assert distribution.mean.shape == (BATCH, *EVENT)
    # All that the likelihood reads depends on z and on the condition; a fixed std does not.
    for moved in (decode(params, z, other), decode(params, z + 1, c)):
        for one, two in zip(jax.tree.leaves(distribution), jax.tree.leaves(moved), strict=True):
            fixed = np.all(one == one.ravel()[0])
            assert fixed == (name == "normal" and one is jax.tree.leaves(distribution)[1])
            assert fixed or np.all(np.any(one != two, axis=(1, 2, 3)))


@pytest.mark.parametrize("name", FAMILIES)
def test_uint8_and_bool_and_floats_of_every_width_are_scored(name):
    spec = FAMILIES[name].spec(EVENT)
    for dtype in (np.uint8, bool, np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        x = (GREY * (255 if dtype == np.uint8 else 1)).astype(dtype)
        assert spec.check("x", x) == spec.check("x", jnp.asarray(x)) == 3
        np.testing.assert_allclose(np.asarray(spec.cast(x), float), GREY > 0 if dtype is bool else GREY, atol=4e-3)
    for x in (GREY.astype(np.int32), GREY.astype(complex), GREY * np.nan):
        with pytest.raises(ValueError, match=r"^x must be "):
            spec.check("x", x)


def test_only_a_normal_scores_x_beyond_the_unit_interval():
    for name, family in FAMILIES.items():
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


def test_at_the_origin_densities_are_the_same():
    family = cvae.Normal.fitted(DATA["channels"])
    assert family.origin == family.location
    moved = family.at_origin()
    assert moved == replace(family, location=(0.0, 0.0))
    assert moved.origin is cvae.Bernoulli().origin is None
    assert cvae.Bernoulli().at_origin() == cvae.Bernoulli()
    x, outputs = DATA["channels"][:5], jnp.zeros((5, family.num_outputs((32, 2))))
    one, two = (f.distribution(outputs, (32, 2)) for f in (family, moved))
    np.testing.assert_allclose(one.log_prob(x), two.log_prob(x - np.array(family.location)), rtol=1e-6)


BAD_FITS = {
    "constant": (np.full((5, 2), 3.0), "^x must vary, got 3 throughout"),
    "infinite": (np.array([[1.0, np.inf]]), r"^x must be real numbers, all finite.*, got inf at row 0, element \(1,\)"),
    "missing": (np.array([[1.0, np.nan], [1.0, np.nan]]), "^x must vary, got 1 throughout"),
    "row": (np.ones(3), r"^x must have shape \[N, \*event\], got \(3,\)"),
    "empty": (np.ones((0, 3)), "^x must hold at least one example"),
    "empty event": (np.ones((3, 0)), r"^x must have shape \[N, \*event\], got \(3, 0\)"),
    "list": ([[1.0], [2.0]], "^x must be an array, got a list"),
}


@pytest.mark.parametrize(("x", "message"), BAD_FITS.values(), ids=BAD_FITS.keys())
def test_a_normal_is_not_fitted_to_bad_data(x, message):
    with pytest.raises(ValueError, match=message):
        cvae.Normal.fitted(x)


BAD_NORMALS = {
    "zero": ({"std": 0.0}, "^std must be greater than or equal to 0.000001, got 0.0"),
    "tiny": ({"std": 1e-12}, "^std must be greater than or equal to 0.000001, got 1e-12"),
    "word": ({"std": "learned"}, "^std must be a valid number.* got 'learned'"),
    "bound": ({"bounds": (0.0, 1.0)}, r"^bounds\[0\] must be greater than or equal to 0.000001, got 0.0"),
    "infinite bound": ({"bounds": (0.1, float("inf"))}, r"^bounds\[1\] must be less .* got inf"),
    "order": ({"bounds": (2.0, 1.0)}, r"^bounds must be two numbers, the lower first, got \(2.0, 1.0\)"),
    "equal": ({"bounds": (1.0, 1.0)}, "^bounds must be two numbers, the lower first"),
    "three": ({"bounds": (1.0, 2.0, 3.0)}, r"^bounds must have at most 2 items .* got \(1.0, 2.0, 3.0\)"),
    "negative scale": ({"scale": (-1.0,)}, r"^scale\[0\] must be greater than or equal to 0, got -1.0"),
    "nan location": ({"location": (float("nan"),)}, r"^location\[0\] must be a finite number, got nan"),
    "lengths": ({"location": (1.0, 2.0)}, "^scale must have one number per location, 2, got 1"),
    "none": ({"location": (), "scale": ()}, "^scale must have one number per location, 0, got 0"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_NORMALS.values(), ids=BAD_NORMALS.keys())
def test_bad_normals_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Normal(**fields)


def test_a_scale_of_another_number_of_channels_is_refused():
    family = cvae.Normal(location=(0.0, 1.0), scale=(1.0, 2.0))
    with pytest.raises(ValueError, match=r"^scale must have 1 or 3 numbers, got 2"):
        cvae.make(cvae.Architecture((4, 3), likelihood=family))


def test_families_are_hashable_settings():
    assert cvae.Normal(bounds=[0.5, 2]) == cvae.Normal(bounds=(0.5, 2.0))
    assert len({*FAMILIES.values(), cvae.Bernoulli()}) == 4
    assert all(isinstance(family, Likelihood) for family in FAMILIES.values())
