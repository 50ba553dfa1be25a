"""Conditions: what is refused, what is encoded, what is drawn anew in training, and what of x is observed."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import cvae
from cvae import checks, masks
from cvae.origin import at_origin
from cvae.settings import replace
from tests.conftest import BATCH, CONDITIONS, EVENT, LATENT, build

LABEL, CONTINUOUS = cvae.Label(5), cvae.Continuous(2, name="stroke")
IMAGE, GIVEN, FIXED = (cvae.Image(EVENT, mask) for mask in ("random_box", "given", "quadrants_1"))
MIXED = cvae.Mixed((CONTINUOUS, LABEL, GIVEN))
RNG = np.random.default_rng(0)
GOOD = np.array([0, 4, 2])
NUMBERS = np.array([[0.5, -1.0], [2.0, 3.0], [-0.25, 8.0]], np.float32)
PIXELS = RNG.random((3, *EVENT), dtype=np.float32)
OBSERVED = np.array([[1, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1]], bool).reshape(3, *EVENT)
C = {"stroke": NUMBERS, "label": GOOD, "image": PIXELS, "observed": OBSERVED}


def check(condition, c, batch=3):
    checks.arrays("c", c, condition.spec, batch)


def test_every_condition_names_its_arrays():
    names = {
        cvae.Unconditional(): [], LABEL: ["label"], CONTINUOUS: ["stroke"], IMAGE: ["image", "observed"],
        GIVEN: ["image", "observed"], FIXED: ["image"], MIXED: ["stroke", "label", "image", "observed"],
        cvae.Image(EVENT, "given", "part", separate=True): ["part", "observed"],
    }  # fmt: skip
    for condition, expected in names.items():
        assert list(condition.spec) == expected
        check(condition, {name: C.get(name, PIXELS) for name in expected})


BAD = {
    "image": (GIVEN, {"image": PIXELS[:, :1], "observed": OBSERVED}, r"c\['image'\] must have .* got \(3, 1, 3, 1\)"),
    "few masks": (GIVEN, {"image": PIXELS, "observed": OBSERVED[:2]}, r"c\['observed'\] must hold one entry per .* 3"),
    "mask that is fixed": (FIXED, {"image": PIXELS, "observed": OBSERVED}, r"\['observed'\] unexpected"),
    "half a mix": (MIXED, {"label": GOOD}, r"\['stroke', 'image', 'observed'\] missing"),
}  # fmt: skip


@pytest.mark.parametrize(("condition", "c", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arrays_are_refused(condition, c, message):
    with pytest.raises(ValueError, match=message):
        check(condition, c)


# Features


def test_unconditional_is_one_row_of_no_features():
    assert [part.shape for part in cvae.Unconditional().encode({})] == [(1, 0), (1, 0), (1, 1, 1, 0)]
    assert cvae.Unconditional().observed({}) is None


def test_a_label_is_encoded_one_hot_and_one_out_of_range_is_nan():
    for dtype in (np.int64, np.uint8):
        np.testing.assert_array_equal(LABEL.encode({"label": GOOD.astype(dtype)}).flat, np.eye(5)[GOOD])
    features = np.asarray(jax.jit(LABEL.encode)({"label": np.array([0, 5, -1])}).flat)
    np.testing.assert_array_equal(features, [np.eye(5)[0], [np.nan] * 5, [np.nan] * 5])


def test_numbers_are_standardised():
    condition = cvae.Continuous(2, (0.5, -1.0), (2.0, 0.25), "stroke")
    expected = (NUMBERS - [0.5, -1.0]) / [2.0, 0.25]
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        for values in (NUMBERS.astype(dtype), jnp.asarray(NUMBERS.astype(dtype))):
            np.testing.assert_allclose(condition.encode({"stroke": values}).flat, expected, rtol=1e-5)
    np.testing.assert_allclose(condition.encode({"stroke": np.array([[3, 4]])}).flat, [[1.25, 20]])
    np.testing.assert_array_equal(CONTINUOUS.encode({"stroke": NUMBERS}).flat, NUMBERS)


def test_an_image_is_encoded_as_its_observed_values_and_its_mask():
    features = GIVEN.encode(C)
    expected = np.concatenate([np.where(OBSERVED, PIXELS, 0).reshape(3, 6), OBSERVED.reshape(3, 6)], axis=1)
    np.testing.assert_array_equal(features.flat, expected)
    np.testing.assert_array_equal(features.image, np.concatenate([np.where(OBSERVED, PIXELS, 0), OBSERVED], axis=-1))
    assert features.numbers.shape == (3, 0)
    mask, values = GIVEN.observed(C)
    np.testing.assert_array_equal(mask, OBSERVED)
    np.testing.assert_array_equal(values, np.where(OBSERVED, PIXELS, 0))
    row = cvae.Image((6,), "given").encode({"image": PIXELS.reshape(3, 6), "observed": OBSERVED.reshape(3, 6)})
    np.testing.assert_array_equal(row.flat, expected)
    assert row.image.shape == (3, 1, 1, 0)


def test_an_image_with_a_fixed_mask_is_encoded_as_its_observed_values():
    mask = masks.fixed("quadrants_1", EVENT)
    features = FIXED.encode({"image": PIXELS})
    np.testing.assert_array_equal(features.flat, PIXELS[:, mask])
    np.testing.assert_array_equal(features.image[..., :1], np.where(mask, PIXELS, 0))
    np.testing.assert_array_equal(FIXED.observed({"image": PIXELS})[0], np.broadcast_to(mask, PIXELS.shape))


def test_images_are_standardised_where_they_are_observed():
    pixels = RNG.normal([100, -3], [20, 0.5], (3, 2, 3, 2)).astype(np.float32)
    observed = np.broadcast_to(OBSERVED, pixels.shape)
    condition = cvae.Image((2, 3, 2), "given", location=(100.0, -3.0), scale=(20.0, 0.5))
    expected = np.where(observed, (pixels - [100, -3]) / [20, 0.5], 0)
    features = condition.encode({"image": pixels, "observed": observed})
    np.testing.assert_allclose(features.image[..., :2], expected, atol=1e-5)
    np.testing.assert_array_equal(condition.observed({"image": pixels, "observed": observed})[1], pixels * observed)


def test_mixed_conditions_are_encoded_side_by_side():
    features = MIXED.encode(C)
    expected = [CONTINUOUS.encode(C).flat, LABEL.encode(C).flat, GIVEN.encode(C).flat]
    np.testing.assert_array_equal(features.flat, np.concatenate(expected, axis=1))
    np.testing.assert_array_equal(features.image, GIVEN.encode(C).image)
    np.testing.assert_array_equal(MIXED.observed(C)[0], OBSERVED)
    assert cvae.Mixed((CONTINUOUS, LABEL)).observed(C) is None


# Statistics


def test_fitted_statistics_are_numpys_and_standardise():
    values = np.array([0.0, -90.0, 1.7e9]) + RNG.gamma(2.0, [0.01, 3.0, 500.0], (400, 3))
    condition = cvae.Continuous.fitted(values, name="size")
    np.testing.assert_allclose(condition.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(condition.std, values.std(axis=0), rtol=1e-9)
    assert (condition.dim, list(condition.spec)) == (3, ["size"])
    features = np.asarray(condition.encode({"size": values}).flat, np.float64)
    np.testing.assert_allclose(features, (values - values.mean(axis=0)) / values.std(axis=0), atol=1e-5)


def test_a_constant_column_has_std_0_and_is_centred():
    values = np.stack([np.arange(7.0), np.full(7, 0.1 * 3), np.full(7, 1e9)], axis=1)
    condition = cvae.Continuous.fitted(values)
    assert condition.std[1:] == (0.0, 0.0)
    np.testing.assert_array_equal(np.asarray(condition.encode({"continuous": values}).flat)[:, 1:], 0)


def test_two_values_of_bool_are_numbers():
    """Case 11: a multi-hot condition."""
    values = RNG.random((50, 3)) < 0.3
    condition = cvae.Continuous.fitted(values, name="tags")
    np.testing.assert_allclose(condition.mean, values.mean(axis=0))
    expected = (values - values.mean(axis=0)) / values.std(axis=0)
    for array in (values, jnp.asarray(values)):
        check(condition, {"tags": array}, 50)
        np.testing.assert_allclose(condition.encode({"tags": array}).flat, expected, atol=1e-5)


BAD_FITS = {
    "constant": (np.full((3, 2), 1e9), r"^c\['size'\] must vary, got 1e\+09 in every row"),
    "row": (NUMBERS[:, 0], r"^c\['size'\] must have shape \[N, dim\], got \(3,\) \(add an axis: \[:, None\]\)"),
    "no columns": (np.ones((3, 0)), r"^c\['size'\] must have shape \[N, dim\], got \(3, 0\)"),
}


@pytest.mark.parametrize(("values", "message"), BAD_FITS.values(), ids=BAD_FITS.keys())
def test_statistics_of_bad_numbers_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        cvae.Continuous.fitted(values, name="size")


def test_at_the_origin_features_are_the_same():
    condition = cvae.Mixed((LABEL, cvae.Continuous(1, (1.7e9,), (300.0,), "time"), replace(GIVEN, location=(0.5,))))
    assert condition.origin == {"time": (1.7e9,), "image": (0.5,)}
    assert CONTINUOUS.origin == LABEL.origin == GIVEN.origin == {}
    model, _, x, _ = build(condition, hidden=(7,))
    c = C | {"time": np.array([[1_700_000_100], [1_700_000_101], [1_699_999_000]])}
    del c["stroke"]
    moved, same_x, moved_c = at_origin(model, x, c)
    np.testing.assert_array_equal(same_x, x)
    np.testing.assert_array_equal(moved_c["time"], [[100], [101], [-1000]])
    one, two = condition.encode(c), moved.architecture.condition.encode(moved_c)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one, two)


# Training


def test_training_takes_the_image_from_x_and_draws_masks_anew():
    augment = jax.jit(IMAGE.augment)
    key = jax.random.key(11)
    c = augment(key, PIXELS, {"image": 0 * PIXELS, "observed": OBSERVED})
    np.testing.assert_array_equal(c["image"], PIXELS)
    np.testing.assert_array_equal(
        c["observed"], jax.jit(masks.draw, static_argnums=(0, 2, 3))("random_box", key, 3, EVENT)
    )
    assert np.any(augment(jax.random.key(12), PIXELS, C)["observed"] != c["observed"])
    for condition in (GIVEN, FIXED):  # their masks stay
        again = condition.augment(key, PIXELS, C)
        assert again["observed"] is OBSERVED
    separate = replace(IMAGE, separate=True).augment(key, 1 - PIXELS, C)
    assert separate["image"] is PIXELS
    np.testing.assert_array_equal(separate["observed"], c["observed"])
    assert LABEL.augment(key, PIXELS, C) is C


def test_a_mix_augments_every_part():
    c = cvae.Mixed((LABEL, IMAGE)).augment(jax.random.key(1), 1 - PIXELS, C)
    np.testing.assert_array_equal(c["image"], 1 - PIXELS)
    assert c["label"] is GOOD
    assert np.any(c["observed"] != OBSERVED)


def test_a_block_is_dropped_from_a_share_of_the_images():
    event, n = (10, 10, 1), 2000
    mixed = cvae.Mixed((LABEL, cvae.Image(event, "quadrants_3")))
    c = {"image": np.ones((n, *event), np.float32), "label": np.arange(n) % 5}
    noisy = jax.jit(mixed.drop_block, static_argnums=2)(jax.random.key(3), c, 0.3)
    np.testing.assert_array_equal(noisy["label"], c["label"])
    lost = np.asarray(noisy["image"] == 0).reshape(n, -1).sum(axis=1)
    assert abs((lost > 0).mean() - 0.3) < 5 * np.sqrt(0.21 / n)
    assert set(lost) == {0, 4, 6, 8, 9, 12, 16}  # sides of 2, 3 and 4 of 10
    np.testing.assert_array_equal(mixed.observed(noisy)[0], mixed.observed(c)[0])  # what is predicted stays


@pytest.mark.parametrize("value", [7.0, np.nan, np.inf])
def test_hidden_places_of_an_image_are_never_read(value):
    """Not by a network, not by the likelihood."""
    model, params, x, c = build(CONDITIONS["image"], prior="learned", hidden=(7,))
    z = RNG.normal(size=(BATCH, LATENT)).astype(np.float32)

    @jax.jit
    def everything(c):
        px = model.decode(params, z, c)
        return model.encode(params, x, c), model.prior(params, c), px.log_prob(x), px.mean, px.sample(jax.random.key(0))

    other = c | {"image": np.where(c["observed"], c["image"], np.float32(value))}
    assert np.any(other["image"] != c["image"])
    jax.tree.map(np.testing.assert_array_equal, everything(c), everything(other))


# Settings

BAD_SETTINGS = {
    "one class": (lambda: cvae.Label(1), "^num_classes must be greater than or equal to 2, got 1"),
    "no name": (lambda: cvae.Label(3, ""), "^name must have at least 1 character, got ''"),
    "words": (lambda: cvae.Label(3, categories=("a", "b")), r"^categories must be 3 different words, or none, got"),
    "dim": (lambda: cvae.Continuous(0), "^dim must be greater than or equal to 1, got 0"),
    "means": (lambda: cvae.Continuous(2, mean=(1.0,)), "^mean must have dim = 2 numbers, got 1"),
    "negative std": (lambda: cvae.Continuous(1, std=(-1.0,)), r"^std\[0\] must be greater than or equal to 0, got -1"),
    "mask": (lambda: cvae.Image(EVENT, "top"), "^mask must be 'quadrants_1', .* or 'given', got 'top'"),
    "box of a row": (lambda: cvae.Image((5,)), r"^mask must be random_pixels or given for x of shape \(5,\), got 'ra"),
    "half of a line": (lambda: cvae.Image((1, 5, 1), "top_half"), r"^mask must .* \(1, 5, 1\), got 'top_half'"),
    "half of a column": (lambda: cvae.Image((5, 1), "right_half"), r"^mask must .* \(5, 1\), got 'right_half'"),
    "named as the mask": (lambda: cvae.Image(EVENT, name="observed"), "^name must be another than the mask's, got"),
    "locations": (lambda: cvae.Image((2, 3, 3), location=(1.0, 2.0)), "^location must have 1 or 3 numbers, got 2"),
    "negative scale": (lambda: cvae.Image(EVENT, scale=(-1.0,)), r"^scale\[0\] must be greater than or equal to 0"),
    "class": (lambda: cvae.Mixed((cvae.Label,)), r"^condition must be a cvae\.Condition, .* got <class"),
    "unconditional part": (lambda: cvae.Mixed((cvae.Unconditional(), LABEL)), "^parts must be conditions that read"),
    "mix in a mix": (lambda: cvae.Mixed((MIXED,)), r"^parts must be .*, and not Mixed, got \(Mixed"),
    "two images": (lambda: cvae.Mixed((IMAGE, cvae.Image(EVENT, "given", "b"))), "^parts must each read arrays of"),
    "two labels": (lambda: cvae.Mixed((LABEL, cvae.Label(3))), r"^parts must each .* got \['label', 'label'\]"),
}  # fmt: skip


@pytest.mark.parametrize(("construct", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
def test_bad_settings_are_refused(construct, message):
    with pytest.raises(ValueError, match=message):
        construct()
