"""Likelihood families: what the decoder's outputs mean, and which x they can score."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy import special, stats

import cvae
from cvae import likelihoods
from tests.conftest import BATCH, CLASSES, EVENT, build

FAMILIES = {
    "bernoulli": likelihoods.Bernoulli(),
    "continuous bernoulli": likelihoods.ContinuousBernoulli(),
    "normal": likelihoods.Normal(scale=0.7),
    "normal, learned": likelihoods.Normal(),
}
ON_UNIT_INTERVAL = ("bernoulli", "continuous bernoulli")


@pytest.mark.parametrize("name", ON_UNIT_INTERVAL)
def test_one_output_is_the_logit(name):
    outputs = jnp.arange(6.0).reshape(2, 3, 1)
    distribution = FAMILIES[name].distribution(outputs)
    assert FAMILIES[name].outputs == 1
    np.testing.assert_array_equal(distribution.logits, outputs[..., 0])


def test_a_fixed_scale_is_the_standard_deviation():
    outputs = jnp.arange(6.0).reshape(2, 3, 1)
    distribution = likelihoods.Normal(scale=0.7).distribution(outputs)
    assert likelihoods.Normal(scale=0.7).outputs == 1
    np.testing.assert_array_equal(distribution.mean, outputs[..., 0])
    np.testing.assert_allclose(distribution.std, np.full((2, 3), 0.7), rtol=1e-6)


def test_a_learned_scale_is_the_second_output_within_its_bounds():
    family = likelihoods.Normal(bounds=(0.5, 8.0))
    outputs = jnp.stack([jnp.arange(5.0), jnp.array([-1e4, -1.0, 0.0, 2.0, 1e4])], axis=-1)[None]
    distribution = family.distribution(outputs)
    assert family.outputs == 2
    np.testing.assert_array_equal(distribution.mean, outputs[..., 0])
    expected = 0.5 * 16 ** special.expit(np.array([-1e4, -1.0, 0.0, 2.0, 1e4]))
    np.testing.assert_allclose(distribution.std[0], expected, rtol=1e-5)
    assert distribution.std[0, 2] == pytest.approx(2.0)  # the geometric middle
    slope = jax.grad(lambda o: family.distribution(o).log_prob(jnp.ones((1, 5))).sum())(outputs)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_scores_by_its_likelihood(name):
    """The density against scipy's, given the decoder's outputs; one decoder output each, or two."""
    family = FAMILIES[name]
    model, params, x, c = build(cvae.Label(CLASSES), likelihood=family, hidden=(7,))
    assert params["decoder"]["outputs"]["kernel"].shape == (7, 6 * family.outputs)
    z = np.random.default_rng(0).normal(size=(BATCH, 4)).astype(np.float32)
    distribution = model.decode(params, z, c)
    if isinstance(family, likelihoods.Normal):
        log_prob = stats.norm(np.float64(distribution.mean), np.float64(distribution.std)).logpdf(x)
    else:
        logits = np.float64(distribution.logits)
        log_prob = x * logits - np.logaddexp(0, logits)
    if name == "continuous bernoulli":
        log_prob += np.log(logits / np.tanh(logits / 2))
    np.testing.assert_allclose(distribution.log_prob(x), log_prob.sum(axis=(1, 2, 3)), rtol=1e-4)
    assert distribution.mean.shape == (BATCH, *EVENT)


def test_a_learned_scale_depends_on_z_and_on_the_condition():
    model, params, _, c = build(cvae.Label(CLASSES), likelihood=likelihoods.Normal(), hidden=(7,))
    z = np.random.default_rng(0).normal(size=(BATCH, 4)).astype(np.float32)
    other = {"label": (c["label"] + 1) % CLASSES}
    first = model.decode(params, z, c)
    for moved in (model.decode(params, z, other), model.decode(params, z + 1, c)):
        assert np.all(np.any(first.log_std != moved.log_std, axis=(1, 2, 3)))
        assert np.all(np.any(first.mean != moved.mean, axis=(1, 2, 3)))


GREY = np.linspace(0, 1, 18, dtype=np.float32).reshape(3, *EVENT)
GOOD = {
    "zero to one": (GREY, tuple(FAMILIES)),
    "half precision": (GREY.astype(np.float16), tuple(FAMILIES)),
    "brain floats": (GREY.astype(ml_dtypes.bfloat16), tuple(FAMILIES)),
    "on the device": (jnp.asarray(GREY), tuple(FAMILIES)),
    "beyond one": (3 * GREY - 1, ("normal", "normal, learned")),
}


@pytest.mark.parametrize(("x", "names"), GOOD.values(), ids=GOOD.keys())
def test_what_is_in_the_support_passes(x, names):
    for name in names:
        FAMILIES[name].check("x", x)
        FAMILIES[name].check_stored("x", x)


def with_one(value: float) -> np.ndarray:
    x = GREY.copy()
    x[1, 1, 2] = value
    return x


UNIT = r"x must be floats in \[0, 1\]"
BAD = {
    "above": (with_one(1.25), ON_UNIT_INTERVAL, UNIT + ", got values from 0 to 1.25"),
    "below": (with_one(-0.5), ON_UNIT_INTERVAL, UNIT + ", got values from -0.5 to 1"),
    "nan": (with_one(np.nan), ON_UNIT_INTERVAL, UNIT + ", got 1 NaN"),
    "infinite": (with_one(np.inf), ON_UNIT_INTERVAL, UNIT + ", got values from 0 to inf"),
    "nan for a normal": (with_one(np.nan), ("normal", "normal, learned"), "x must be finite floats, got 1 NaN"),
    "infinite for a normal": (
        with_one(-np.inf),
        ("normal", "normal, learned"),
        "x must be finite floats, got 1 NaN or",
    ),
    "integers": (GREY.astype(np.int32), ON_UNIT_INTERVAL, "got int32 values"),
    "booleans": (GREY > 0, ON_UNIT_INTERVAL, "got bool values"),
    "complex": (GREY.astype(np.complex64), tuple(FAMILIES), "got complex64 values"),
    "integers for a normal": (GREY.astype(np.int32), ("normal",), r"x must be finite floats \(.*, got int32 values"),
}


@pytest.mark.parametrize(("x", "names", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_outside_the_support_is_refused(x, names, message):
    for name in names:
        with pytest.raises(ValueError, match=message):
            FAMILIES[name].check("x", x)
        with pytest.raises(ValueError, match=r"^x must be .*, got "):
            FAMILIES[name].check_stored("x", x)


@pytest.mark.parametrize("name", FAMILIES)
def test_bytes_are_stored_and_not_scored(name):
    x = np.arange(18, dtype=np.uint8).reshape(3, *EVENT)
    FAMILIES[name].check_stored("x", x)
    with pytest.raises(ValueError, match=r"`cvae.prepare` scales uint8 pixels\), got uint8 values"):
        FAMILIES[name].check("x", x)


@pytest.mark.parametrize("name", FAMILIES)
def test_inside_jit_dtypes_are_refused_and_values_are_not_looked_at(name):
    def checked(x):
        FAMILIES[name].check("x", x)
        return x

    jax.jit(checked)(with_one(np.nan))
    with pytest.raises(ValueError, match="got int32 values"):
        jax.jit(checked)(GREY.astype(np.int32))


BAD_NORMALS = {
    "scale": ({"scale": 0.0}, "scale must be a finite number above 0, got 0.0"),
    "too small": ({"scale": 1e-45}, "scale must be from 1e-15 to 1e\\+15, got 1e-45"),
    "too large": ({"bounds": (1.0, 1e40)}, r"bounds\[1\] must be from 1e-15 to 1e\+15, got 1e\+40"),
    "word": ({"scale": "learned"}, "scale must be a finite number above 0, got 'learned'"),
    "bound": ({"bounds": (0.0, 1.0)}, r"bounds\[0\] must be a finite number above 0, got 0.0"),
    "infinite bound": ({"bounds": (0.1, float("inf"))}, r"bounds\[1\] must be a finite number above 0, got inf"),
    "order": ({"bounds": (2.0, 1.0)}, r"bounds must be two numbers, the lower first, got \(2.0, 1.0\)"),
    "equal": ({"bounds": (1.0, 1.0)}, "bounds must be two numbers, the lower first"),
    "three": ({"bounds": (1.0, 2.0, 3.0)}, "bounds must be two numbers, the lower first"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_NORMALS.values(), ids=BAD_NORMALS.keys())
def test_bad_scales_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        likelihoods.Normal(**fields)


def test_families_are_hashable_settings():
    assert likelihoods.Normal(bounds=[0.5, 2.0]) == likelihoods.Normal(bounds=(0.5, 2.0))
    assert len({*FAMILIES.values(), likelihoods.Bernoulli()}) == 4
