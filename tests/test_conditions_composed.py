"""Optional conditions and exposures: what is dropped, what networks see of it, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae import checks
from cvae.origin import at_origin
from cvae.settings import from_json, replace, to_json
from tests.conftest import CLASSES, build

RNG = np.random.default_rng(0)
LABEL = cvae.Optional(cvae.Label(CLASSES, "grade"))
AGE = cvae.Optional(cvae.Continuous(2, (40.0, 1.7e9), (10.0, 300.0), "age"), 0.4)
MONTHS = cvae.Exposure(0.7, 0.5, "months")
MIXED = cvae.Mixed((LABEL, AGE, MONTHS))
C = {
    "grade": np.array([0, 4, -1]),
    "age": np.array([[30.0, 1.7e9 + 150], [np.nan, 1.7e9], [60.0, 1.7e9 - 300]]),
    "months": np.array([0.5, 1.0, 12.0]),
}


def test_networks_see_0_where_a_condition_is_missing_and_whether_it_is_there():
    checks.arrays("c", C, MIXED.spec, 3)
    label = np.concatenate([np.eye(CLASSES)[[0, 4, 0]], [[1], [1], [1]]], axis=1)
    label[2] = 0
    np.testing.assert_array_equal(LABEL.encode(C).flat, label)
    # One of two numbers is missing: so is the condition.
    age = [[-1, 0.5, 1], [0, 0, 0], [2, -1, 1]]
    np.testing.assert_allclose(AGE.encode(C).flat, age, atol=1e-5)
    np.testing.assert_allclose(MIXED.encode(C).flat[:, :-1], np.concatenate([label, age], axis=1), atol=1e-5)
    np.testing.assert_allclose(MIXED.encode(C).flat[:, -1], (np.log(C["months"]) - 0.7) / 0.5, rtol=1e-5)


def test_a_label_out_of_range_is_nan_and_not_missing():
    features = np.asarray(jax.jit(LABEL.encode)({"grade": np.array([CLASSES, -1, -2])}).flat)
    assert np.isnan(features[[0, 2], :CLASSES]).all()
    np.testing.assert_array_equal(features[1], 0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, bool])
def test_numbers_of_every_dtype_can_be_dropped(dtype):
    """An integer -1 is a number like any other."""
    condition = cvae.Optional(cvae.Continuous(1, name="size"), 0.3)
    values = np.array([[-1], [0], [1]] * 1000).astype(dtype)
    dropped = jax.jit(condition.augment)(jax.random.key(0), jnp.zeros((3000, 1)), {"size": values})["size"]
    missing = np.isnan(dropped[:, 0])
    assert abs(missing.mean() - 0.3) < 5 * np.sqrt(0.21 / 3000)
    np.testing.assert_array_equal(dropped[~missing], np.float32(values[~missing]))
    np.testing.assert_array_equal(condition.encode({"size": dropped}).flat[:, 1], ~missing)


def test_training_drops_parts_of_a_mix_independently_and_leaves_the_rest():
    n = 4000
    c = {"grade": np.arange(n) % CLASSES, "age": np.tile(C["age"][:1], (n, 1)), "months": np.ones(n)}
    noisy = jax.jit(MIXED.augment)(jax.random.key(1), jnp.zeros((n, 1)), c)
    no_grade, no_age = np.asarray(noisy["grade"]) == -1, np.isnan(noisy["age"]).any(axis=1)
    for share, expected in ((no_grade.mean(), 0.2), (no_age.mean(), 0.4), ((no_grade & no_age).mean(), 0.08)):
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)
    np.testing.assert_array_equal(noisy["grade"][~no_grade], c["grade"][~no_grade])
    np.testing.assert_array_equal(noisy["months"], 1)
    for probability in (0.0, 1.0):
        found = replace(LABEL, drop_prob=probability).augment(jax.random.key(0), jnp.zeros((n, 1)), c)["grade"]
        assert (np.asarray(found) == -1).mean() == probability


def test_a_model_takes_a_condition_and_its_absence():
    model, params, x, _ = build(MIXED, likelihood=cvae.Poisson(), prior="learned", hidden=(7,))
    x, key = RNG.poisson(2.0, x.shape), jax.random.key(0)
    gone = C | {"grade": np.full(3, -1), "age": np.full((3, 2), np.nan)}
    one, two = (np.asarray(cvae.elbo(model, params, key, x, c).value) for c in (C, gone))
    assert np.isfinite([one, two]).all()
    assert np.all(one != two)
    slopes = jax.grad(lambda p: cvae.elbo(model, p, key, x, gone).value.mean())(params)
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
    moved, moved_x, moved_c = at_origin(model, x, C)
    np.testing.assert_allclose(moved_c["age"], C["age"] - [40.0, 1.7e9])
    np.testing.assert_allclose(cvae.elbo(moved, params, key, moved_x, moved_c).value, one, rtol=1e-4)


def test_an_exposure_is_fitted_to_its_logarithm_and_read_from_a_mix():
    values = RNG.gamma(2.0, 3.0, 400)
    fitted = cvae.Exposure.fitted(values, "months")
    assert fitted.location == pytest.approx(np.log(values).mean())
    assert fitted.scale == pytest.approx(np.log(values).std())
    assert cvae.Exposure.fitted(np.full(5, 12.0)).scale == 1
    np.testing.assert_allclose(MIXED.exposure(C), C["months"])
    assert cvae.Mixed((LABEL, AGE)).exposure(C) is LABEL.exposure(C) is None


BAD = {
    "not simple": (lambda: cvae.Optional(cvae.Image((4,), "random_pixels")), "^base must be a Label or a Continuous"),
    "no condition": (lambda: cvae.Optional(3), r"^condition must be a cvae\.Condition"),
    "probability": (lambda: cvae.Optional(cvae.Label(3), 1.5), "^drop_prob must be less than or equal to 1, got 1.5"),
    "scale": (lambda: cvae.Exposure(0.0, 0.0), "^scale must be greater than 0, got 0"),
    "no exposure": (lambda: cvae.Exposure.fitted(np.array([1.0, 0.0])), r"^c\['exposure'\] must be .* got 0 at row 1"),
    "column": (lambda: cvae.Exposure.fitted(np.ones((3, 1))), r"^c\['exposure'\] must have shape \[B\], got \(3, 1\)"),
}
BAD_ARRAYS = {
    "label": ({"grade": np.array([0, 5, -1])}, r"^c\['grade'\] must be integers in \[-1, 5\), got 5 at row 1"),
    "below": ({"grade": np.array([0, -2, -1])}, r"^c\['grade'\] must be integers in \[-1, 5\), got -2 at row 1"),
    "float label": ({"grade": np.array([0, np.nan, 1])}, r"^c\['grade'\] must be integers .*, got float64 values"),
    "infinite": ({"age": C["age"] + np.inf}, r"^c\['age'\] must be real numbers, all finite, or NaN .*, got inf"),
    "missing": (
        {"months": np.array([1.0, np.nan, 2.0])},
        r"^c\['months'\] must be real numbers, in \[1e-30, inf\], got",
    ),
    "negative": ({"months": np.array([1.0, -1.0, 2.0])}, r"^c\['months'\] must be .*, got -1 at row 1"),
}


@pytest.mark.parametrize(("construct", "message"), BAD.values(), ids=BAD.keys())
def test_bad_settings_are_refused(construct, message):
    with pytest.raises(ValueError, match=message):
        construct()


@pytest.mark.parametrize(("change", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_arrays_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        checks.arrays("c", C | change, MIXED.spec, 3)


def test_settings_go_to_json_and_back():
    for condition in (LABEL, AGE, MONTHS, MIXED):
        architecture = cvae.Architecture((4,), condition)
        copy = from_json(cvae.Architecture, to_json(architecture))
        assert copy == architecture
        assert hash(copy) == hash(architecture)
