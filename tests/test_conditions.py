"""Conditions: what is refused, what is completed, what is encoded, and what of x is given away."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from tests.conftest import BATCH, CLASSES, CONDITIONS, EVENT, LATENT, build, stored

LABEL, CONTINUOUS = cvae.Label(5), cvae.Continuous(2)
IMAGE, GIVEN = cvae.Image(EVENT), cvae.Image(EVENT, "given")
GOOD = np.array([0, 4, 2])
NUMBERS = np.array([[0.5, -1.0], [2.0, 3.0], [-0.25, 8.0]], np.float32)
PICTURE = np.random.default_rng(0).random((3, *EVENT), dtype=np.float32)
SEEN = np.array([[1, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1]], bool).reshape(3, *EVENT)


def test_a_label_enters_one_hot():
    np.testing.assert_array_equal(LABEL.encode({"label": GOOD}), np.eye(5)[GOOD])
    assert LABEL.width == 5


def test_nothing_is_one_row_of_no_features():
    assert cvae.Nothing().encode({}).shape == (1, 0)
    assert cvae.Nothing().width == 0
    assert cvae.Nothing().reveals({}) is None


def changed(values, at, value):
    copy = np.array(values)
    copy[at] = value
    return copy


BAD_LABELS = {
    "too large": (np.array([0, 5, 2]), r"c\['label'\] must be integers in \[0, 5\), shape \[B\], got 5 at row 1"),
    "negative": (np.array([0, 1, -1]), "got -1 at row 2"),
    "float": (np.array([0.0, 1.0, 2.0]), r"got float64 of shape \(3,\)"),
    "one-hot": (np.eye(5)[GOOD], r"got float64 of shape \(3, 5\) \(one-hot\? pass its argmax\)"),
    "one-hot integers": (np.eye(5, dtype=int)[GOOD], "one-hot"),
    "scalar": (np.array(3), r"got int64 of shape \(\)"),
    "bool": (np.array([True, False, True]), "got bool"),
    "empty": (np.array([], dtype=int), r"hold at least one label, got shape \(0,\)"),
    "too few": (np.array([0, 1]), "hold one entry an example of x, 3 of them, got 2"),
    "a list": ([0, 1, 2], "must be an array, got a list"),
}


@pytest.mark.parametrize(("label", "message"), BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_bad_labels_are_refused(label, message):
    for refuse in (LABEL.check, LABEL.check_stored):
        with pytest.raises(ValueError, match=message):
            refuse({"label": label}, batch=3)


BAD_NUMBERS = {
    "a column too many": (
        np.ones((3, 3)),
        r"must be finite real numbers, shape \[B, 2\], got float64 of shape \(3, 3\)",
    ),
    "flat": (np.ones(3), r"got float64 of shape \(3,\) \(add an axis: \[:, None\]\)"),
    "rank": (np.ones((3, 2, 1)), r"got float64 of shape \(3, 2, 1\)"),
    "scalar": (np.array(1.0), r"got float64 of shape \(\)"),
    "bool": (np.ones((3, 2), bool), r"got bool of shape \(3, 2\)"),
    "complex": (np.ones((3, 2), complex), "got complex128"),
    "words": (np.array([["a", "b"]] * 3), "got <U1"),
    "nan": (changed(NUMBERS, (1, 1), np.nan), "got nan at row 1, column 1"),
    "infinite": (changed(NUMBERS, (2, 0), -np.inf), "got -inf at row 2, column 0"),
    "empty": (np.ones((0, 2)), r"hold at least one row, got shape \(0, 2\)"),
    "too few": (NUMBERS[:2], r"c\['continuous'\] must hold one entry an example of x, 3 of them, got 2"),
    "a list": ([[0.0, 1.0]] * 3, "must be an array, got a list"),
}


@pytest.mark.parametrize(("numbers", "message"), BAD_NUMBERS.values(), ids=BAD_NUMBERS.keys())
def test_bad_numbers_are_refused(numbers, message):
    for refuse in (CONTINUOUS.check, CONTINUOUS.check_stored):
        with pytest.raises(ValueError, match=message):
            refuse({"continuous": numbers}, batch=3)


BAD_IMAGES = {
    "picture's shape": ("image", PICTURE[:, :1], r"c\['image'\] must have shape \[B, 2, 3, 1\], got \(3, 1, 3, 1\)"),
    "mask's shape": ("observed", SEEN[..., 0], r"c\['observed'\] must have shape \[B, 2, 3, 1\], got \(3, 2, 3\)"),
    "mask's dtype": ("observed", SEEN.astype(int), r"c\['observed'\] must be boolean, True where .* got int64 values"),
    "grey mask": ("observed", PICTURE, r"c\['observed'\] must be boolean, .* got float32 values"),
    "all seen": (
        "observed",
        changed(SEEN, 1, True),
        "must hide something of every example, got nothing hidden at row 1",
    ),
    "few masks": ("observed", SEEN[:2], r"c\['observed'\] must hold one entry an example of x, 3 of them, got 2"),
    "few pictures": ("image", PICTURE[:2], r"c\['image'\] must hold one entry an example of x, 3 of them, got 2"),
    "bytes": (
        "image",
        np.ones((3, *EVENT), np.uint8),
        r"c\['image'\] must be .* scales uint8 pixels\), got uint8 values",
    ),
    "nan": ("image", changed(PICTURE, (0, 0, 0), np.nan), r"c\['image'\] must be finite floats, got 1 NaN or infinite"),
    "infinite": ("image", changed(PICTURE, (0, 0, 0), np.inf), r"c\['image'\] must be finite floats, got 1 NaN or"),
    "a list": ("observed", [True], r"c\['observed'\] must be an array, got a list"),
}


@pytest.mark.parametrize(("name", "value", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_images_are_refused(name, value, message):
    c = {"image": PICTURE, "observed": SEEN} | {name: value}
    with pytest.raises(ValueError, match=message):
        IMAGE.check(c, batch=3)
    if name == "observed":
        with pytest.raises(ValueError, match=message):
            GIVEN.check_stored({"observed": value}, batch=3)


def test_without_x_the_arrays_of_an_image_are_as_long_as_each_other():
    with pytest.raises(ValueError, match=r"c\['observed'\] must hold one entry an .* c\['image'\], 3 of them, got 2"):
        IMAGE.check({"image": PICTURE, "observed": SEEN[:2]})


MIXED = cvae.Mixed(digit=LABEL, stroke=CONTINUOUS)
BAD_NAMES = {
    "missing": (LABEL, {}, r"c must be a dict with the keys \['label'\], got \[\]: \['label'\] missing"),
    "unexpected": (LABEL, {"label": GOOD, "age": GOOD}, r"\['age'\] unexpected"),
    "misspelt": (LABEL, {"labels": GOOD}, r"\['label'\] missing"),
    "no dict": (LABEL, GOOD, "got a ndarray"),
    "unconditional": (cvae.Nothing(), {"label": GOOD}, "no keys: this model is unconditional"),
    "no numbers": (
        CONTINUOUS,
        {"label": GOOD},
        r"the keys \['continuous'\], got \['label'\]: \['continuous'\] missing",
    ),
    "no mask": (IMAGE, {"image": PICTURE}, r"got \['image'\]: \['observed'\] missing"),
    "half": (MIXED, {"digit": GOOD}, r"the keys \['digit', 'stroke'\], got \['digit'\]: \['stroke'\] missing"),
    "kinds for names": (MIXED, {"label": GOOD, "continuous": NUMBERS}, r"\['digit', 'stroke'\] missing"),
    "one more": (MIXED, {"digit": GOOD, "stroke": NUMBERS, "label": GOOD}, r"\['label'\] unexpected"),
}


@pytest.mark.parametrize(("condition", "c", "message"), BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_bad_names_are_refused(condition, c, message):
    with pytest.raises(ValueError, match=message):
        condition.check(c)


def test_a_data_set_stores_no_picture():
    for condition, c in ((IMAGE, {"image": PICTURE, "observed": SEEN}), (GIVEN, {"image": PICTURE, "observed": SEEN})):
        with pytest.raises(ValueError, match=r"\['image'.*\] unexpected"):
            condition.check_stored(c, batch=3)
    with pytest.raises(ValueError, match=r"\['observed'\] missing"):
        GIVEN.check_stored({}, batch=3)


def test_good_conditions_pass():
    LABEL.check({"label": GOOD}, batch=3)
    LABEL.check({"label": jnp.asarray(GOOD, jnp.uint8)}, batch=3)
    cvae.Nothing().check({}, batch=3)
    cvae.Nothing().check_stored({}, batch=3)
    for dtype in (np.float16, np.float64, np.int32):
        CONTINUOUS.check({"continuous": NUMBERS.astype(dtype)}, batch=3)
    IMAGE.check({"image": PICTURE, "observed": SEEN}, batch=3)
    IMAGE.check_stored({}, batch=3)
    GIVEN.check_stored({"observed": SEEN}, batch=3)


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_what_is_stored_and_completed_passes(condition, key):
    c = stored(condition, np.random.default_rng(1))
    condition.check_stored(c, BATCH)
    before = dict(c)
    whole = condition.complete(key, PICTURE, c)
    condition.check(whole, BATCH)
    assert set(c) == set(before) == set(condition.stored_names)
    assert set(whole) == set(condition.names)
    assert all(whole[name] is c[name] for name in c)


# Arrays with one fault that shows while tracing, and one that does not.
TRACED = {
    "label": (LABEL, {"label": np.array([0, 5, 2])}, {"label": np.eye(5)[GOOD]}, "one-hot"),
    "continuous": (
        CONTINUOUS,
        {"continuous": changed(NUMBERS, (1, 1), np.nan)},
        {"continuous": NUMBERS[:, 0]},
        "add an axis",
    ),
    "image": (
        IMAGE,
        {"image": changed(PICTURE, 0, np.nan), "observed": changed(SEEN, 1, True)},
        {"image": PICTURE, "observed": SEEN.astype(int)},
        "must be boolean",
    ),
    "mixed": (
        MIXED,
        {"digit": np.array([0, 5, 2]), "stroke": changed(NUMBERS, (1, 1), np.nan)},
        {"digit": GOOD, "stroke": NUMBERS[:2]},
        r"c\['stroke'\] must hold one entry an example of c\['digit'\], 3 of them, got 2",
    ),
}


@pytest.mark.parametrize(("condition", "values", "shapes", "message"), TRACED.values(), ids=TRACED.keys())
def test_inside_jit_shapes_and_dtypes_are_refused_and_values_are_not_looked_at(condition, values, shapes, message):
    def checked(c):
        condition.check(c)
        return c

    with pytest.raises(ValueError, match="got"):
        condition.check(values)
    jax.jit(checked)(values)
    with pytest.raises(ValueError, match=message):
        jax.jit(checked)(shapes)


@pytest.mark.parametrize("num_classes", [0, 1, -3, 2.0, "ten"])
def test_a_label_has_two_classes_at_least(num_classes):
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 2, got"):
        cvae.Label(num_classes)


BAD_CONTINUOUS = {
    "dim": ({"dim": 0}, "dim must be a whole number of at least 1, got 0"),
    "means": ({"dim": 2, "mean": (1.0,)}, "mean must hold dim = 2 numbers, got 1"),
    "stds": ({"dim": 2, "std": (1.0, 1.0, 1.0)}, "std must hold dim = 2 numbers, got 3"),
    "no std": ({"dim": 2, "std": (1.0, 0.0)}, r"std\[1\] must be a finite number above 0, got 0.0"),
    "nan": ({"mean": (float("nan"),)}, r"mean\[0\] must be a finite number, got nan"),
    "word": ({"mean": ("one",)}, r"mean\[0\] must be a finite number, got 'one'"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_CONTINUOUS.values(), ids=BAD_CONTINUOUS.keys())
def test_bad_statistics_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Continuous(**fields)


def test_fitted_statistics_are_numpys_and_standardise():
    values = np.array([0.0, -90.0, 2000.0]) + np.random.default_rng(4).gamma(2.0, [0.01, 3.0, 500.0], (400, 3))
    condition = cvae.Continuous.fitted(values, name="size")
    np.testing.assert_allclose(condition.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(condition.std, values.std(axis=0), rtol=1e-12)
    assert (condition.dim, condition.width, condition.names) == (3, 3, ("size",))
    features = np.asarray(condition.encode({"size": values}), np.float64)
    # A float32 holds a value to 6e-8 of it: of 3000, 2e-4; beside a standard deviation of 700, nothing.
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(features, (values - values.mean(axis=0)) / values.std(axis=0), atol=1e-4)


def test_statistics_left_out_leave_the_numbers_alone():
    np.testing.assert_array_equal(CONTINUOUS.encode({"continuous": NUMBERS}), NUMBERS)
    assert cvae.Continuous(2) == cvae.Continuous(2, (0.0, 0.0), (1.0, 1.0))


CONSTANT = {
    "whole": (7.0, "7 in every row of column 1"),
    "rounding": (0.1 * 3, "0.3 in every row of column 1"),
    "nought": (0.0, "0 in every row of column 1"),
    "large": (1e9, r"1e\+09 in every row of column 1"),
}


@pytest.mark.parametrize(("value", "message"), CONSTANT.values(), ids=CONSTANT.keys())
def test_a_constant_column_is_refused(value, message):
    values = np.stack([np.arange(7.0), np.full(7, value)], axis=1)
    with pytest.raises(ValueError, match=rf"c\['size'\] must vary, got {message}"):
        cvae.Continuous.fitted(values, name="size")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (NUMBERS[:, 0], r"shape \[B, dim\], got float32 of shape \(3,\) \(add an axis: \[:, None\]\)"),
        (changed(NUMBERS, (1, 1), np.nan), "got nan at row 1, column 1"),
        (np.ones((3, 0)), r"got float64 of shape \(3, 0\)"),
        ([[1.0], [2.0]], r"c\['continuous'\] must be an array, got a list"),
    ],
)
def test_statistics_of_bad_numbers_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        cvae.Continuous.fitted(values)


def test_an_image_is_cut_from_x_by_a_mask_of_its_own(key):
    c = IMAGE.complete(key, PICTURE, {})
    np.testing.assert_array_equal(c["observed"], cvae.masks.draw("random_box", key, 3, EVENT))
    np.testing.assert_array_equal(c["image"], np.where(c["observed"], PICTURE, 0))
    assert np.any(IMAGE.complete(jax.random.key(12), PICTURE, {})["observed"] != c["observed"])
    assert (IMAGE.names, IMAGE.stored_names) == (("image", "observed"), ())


def test_a_given_mask_is_stored_and_used(key):
    assert GIVEN.stored_names == ("observed",)
    c = GIVEN.complete(key, PICTURE, {"observed": SEEN})
    np.testing.assert_array_equal(c["observed"], SEEN)
    np.testing.assert_array_equal(c["image"], np.where(SEEN, PICTURE, 0))


def test_an_image_enters_as_its_seen_values_and_its_mask():
    features = IMAGE.encode({"image": PICTURE, "observed": SEEN})
    assert features.shape == (3, IMAGE.width) == (3, 12)
    np.testing.assert_array_equal(features[:, :6], (PICTURE * SEEN).reshape(3, 6))
    np.testing.assert_array_equal(features[:, 6:], SEEN.reshape(3, 6))
    seen, values = IMAGE.reveals({"image": PICTURE, "observed": SEEN})
    np.testing.assert_array_equal(seen, SEEN)
    np.testing.assert_array_equal(values, PICTURE)


def test_an_image_behind_a_mask_that_is_always_the_same_enters_as_what_is_seen(key):
    image = cvae.Image(EVENT, "quadrants_1")
    c = image.complete(key, PICTURE, {})
    seen = cvae.masks.fixed("quadrants_1", EVENT)
    assert image.width == seen.sum()
    np.testing.assert_array_equal(image.encode(c), PICTURE[:, seen])
    image.check(c, 3)
    other = {**c, "observed": ~np.asarray(c["observed"])}
    with pytest.raises(ValueError, match=r"c\['observed'\] must be the mask quadrants_1, got another at row 0"):
        image.check(other, 3)


def test_a_stored_picture_is_cut_in_the_place_of_x(key):
    """Grey levels are seen of an x whose pixels are drawn; what is hidden of them is cut off."""
    image = cvae.Image(EVENT, "quadrants_3", stored=True)
    grey = np.random.default_rng(0).integers(0, 256, (3, *EVENT)).astype(np.uint8)
    assert image.stored_names == ("image",)
    image.check_stored({"image": grey}, 3)
    c = image.complete(key, PICTURE, {"image": grey})
    seen = np.asarray(c["observed"])
    assert not seen.all()
    np.testing.assert_allclose(c["image"], np.where(seen, grey / 255, 0), rtol=1e-6)
    with pytest.raises(ValueError, match=r"c must be a dict with the keys \['image'\]"):
        image.check_stored({}, 3)
    with pytest.raises(ValueError, match=r"c\['image'\] must be finite floats"):
        image.check_stored({"image": np.full((3, *EVENT), np.nan)}, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_stored_picture_may_have_a_given_mask(dtype, key):
    image = cvae.Image(EVENT, "given", stored=True)
    rng = np.random.default_rng(0)
    picture = (rng.random((BATCH, *EVENT)) * (255 if dtype == np.uint8 else 1)).astype(dtype)
    observed = rng.random((BATCH, *EVENT)) < 0.5
    c = {"image": picture, "observed": observed}
    image.check_stored(c, batch=BATCH)
    completed = image.complete(key, jnp.zeros((BATCH, *EVENT)), c)
    image.check(completed, batch=BATCH)
    grey = picture / 255 if dtype == np.uint8 else picture
    np.testing.assert_allclose(completed["image"], np.where(observed, grey, 0), rtol=1e-6)
    with pytest.raises(ValueError, match=r"c\['image'\] must be finite floats"):
        image.check({**completed, "image": picture.astype(int)}, batch=BATCH)
    with pytest.raises(ValueError, match=r"c\['observed'\] must hide something of every example"):
        image.check_stored({**c, "observed": np.ones_like(observed)}, batch=BATCH)


def test_a_block_is_omitted_from_what_is_seen_of_so_many_examples(key):
    event, n = (10, 10, 1), 2000
    mixed = cvae.Mixed(digit=cvae.Label(5), part=cvae.Image(event, "quadrants_3"))
    c = mixed.complete(key, np.ones((n, *event), np.float32), {"digit": np.arange(n) % 5})
    noisy = jax.jit(mixed.omit, static_argnums=2)(key, c, 0.3)
    for name in ("digit", "observed"):  # what is predicted stays
        np.testing.assert_array_equal(noisy[name], c[name])
    lost = np.asarray(c["part"] != noisy["part"]).reshape(n, -1).sum(axis=1)
    seen = np.asarray(c["observed"][0]).sum()
    # A block may lie where nothing is seen, of at most the hidden 25 of 100 places; it has 4 to 16.
    share = (lost > 0).mean()
    assert 0.3 * 0.7 - 5 * np.sqrt(0.21 / n) < share < 0.3 + 5 * np.sqrt(0.21 / n)
    assert lost.max() == 16 < seen
    assert not np.asarray(noisy["part"])[np.asarray(c["part"] != noisy["part"])].any()
    label = cvae.Label(5)
    assert label.omit(key, {"label": np.arange(3)}, 1.0)["label"].tolist() == [0, 1, 2]


SPLIT = {**CONDITIONS, "fixed mask": cvae.Image(EVENT, "quadrants_1")}


@pytest.mark.parametrize("condition", SPLIT.values(), ids=SPLIT.keys())
def test_features_are_split_into_pictures_and_numbers(condition):
    _, _, _, c = build(condition, hidden=(7,))
    features = condition.encode(c)
    pictures, numbers = condition.split(features)
    assert (len(pictures), numbers.shape) == (condition.pictures, (len(features), condition.numbers))
    parts = getattr(condition, "parts", (condition,))
    images = [part for part in parts if isinstance(part, cvae.Image)]
    expected = [np.where(c["observed"], c[image.name], 0) for image in images] + [c["observed"] for _ in images]
    assert len(pictures) == len(expected)
    for picture, values in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(picture, values)
    others = [part.encode(c) for part in parts if not isinstance(part, cvae.Image)]
    np.testing.assert_array_equal(numbers, np.concatenate([features[:, :0], *others], axis=1))


@pytest.mark.parametrize("value", [7.0, np.nan, np.inf])
def test_hidden_places_of_an_image_are_never_read(value, key):
    """Not by the door, not by a network, not by the likelihood."""
    model, params, x, c = build(CONDITIONS["image"], prior="learned", hidden=(7,))
    z = np.random.default_rng(0).normal(size=(BATCH, LATENT)).astype(np.float32)

    def everything(c):
        likelihood = model.decode(params, z, c)
        scores = likelihood.log_prob(x), likelihood.mean, likelihood.sample(key)
        return model.encode(params, x, c), model.prior(params, c), scores

    other = c | {"image": np.where(c["observed"], c["image"], np.float32(value))}
    assert np.any(other["image"] != c["image"])
    jax.tree.map(np.testing.assert_array_equal, everything(c), everything(other))


BAD_SETTINGS = {
    "no such mask": ({"mask": "top"}, r"mask must be one of quadrants_1, .*, random_pixels, given, got 'top'"),
    "a box of a row": (
        {"event_shape": (5,)},
        r"mask must be random_pixels or given for x of shape \(5,\), got 'random_",
    ),
    "half of a line": ({"event_shape": (1, 5, 1), "mask": "top_half"}, r"for x of shape \(1, 5, 1\), got 'top_half'"),
    "half of a column": ({"event_shape": (5, 1), "mask": "right_half"}, r"for x of shape \(5, 1\), got 'right_half'"),
    "named as the mask": ({"name": "observed"}, "name must be another than the mask's, got 'observed'"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
def test_bad_settings_of_an_image_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        cvae.Image(**{"event_shape": EVENT} | fields)


def test_rows_are_seen_by_pixels_or_by_given_masks(key):
    for mask, given in (("random_pixels", {}), ("given", {"observed": SEEN.reshape(3, 6)})):
        condition = cvae.Image((6,), mask)
        c = condition.complete(key, PICTURE.reshape(3, 6), given)
        condition.check(c, batch=3)
        assert condition.encode(c).shape == (3, 12)


def test_mixed_conditions_stand_side_by_side_under_their_own_names():
    mixed = cvae.Mixed(stroke=CONTINUOUS, digit=LABEL, part=GIVEN)
    assert [part.name for part in mixed.parts] == ["stroke", "digit", "part"]
    assert mixed.names == ("stroke", "digit", "part", "observed")
    assert mixed.stored_names == ("stroke", "digit", "observed")
    assert mixed.width == 2 + 5 + 12
    assert (LABEL.name, CONTINUOUS.name, GIVEN.name) == ("label", "continuous", "image")
    c = {"part": PICTURE, "observed": SEEN, "digit": GOOD, "stroke": NUMBERS}
    mixed.check(c, batch=3)
    alone = [CONTINUOUS.encode({"continuous": NUMBERS}), LABEL.encode({"label": GOOD})]
    alone.append(IMAGE.encode({"image": PICTURE, "observed": SEEN}))
    np.testing.assert_array_equal(mixed.encode(c), np.concatenate(alone, axis=1))
    np.testing.assert_array_equal(mixed.reveals(c)[1], PICTURE)
    assert MIXED.reveals({"digit": GOOD, "stroke": NUMBERS}) is None


def test_a_part_may_have_any_name():
    condition = cvae.Mixed(**{"self": cvae.Label(3), "named": cvae.Continuous(2)})
    assert condition.names == ("self", "named")


def test_mixed_conditions_refuse_for_their_parts():
    for c, message in (
        ({"digit": np.array([0, 5, 2]), "stroke": NUMBERS}, r"c\['digit'\] must be integers .* got 5 at row 1"),
        ({"digit": GOOD, "stroke": NUMBERS[:, 0]}, r"c\['stroke'\] must be finite real numbers"),
        ({"digit": GOOD, "stroke": NUMBERS[:2]}, r"c\['stroke'\] .* example of c\['digit'\], 3 of them, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            MIXED.check(c)
    mixed = cvae.Mixed(part=GIVEN)
    with pytest.raises(ValueError, match="nothing hidden at row 1"):
        mixed.check_stored({"observed": changed(SEEN, 1, True)}, batch=3)


def test_a_mix_may_store_nothing(key):
    mixed = cvae.Mixed(part=IMAGE)
    mixed.check_stored({}, batch=3)
    mixed.check(mixed.complete(key, PICTURE, {}), batch=3)


BAD_MIXES = {
    "empty": ({}, "Mixed must name at least one condition, got none"),
    "nothing": ({"none": cvae.Nothing()}, r"none must be a Label, Continuous or Image, got Nothing\(\)"),
    "mixed": ({"both": MIXED}, r"both must be a Label, Continuous or Image, got Mixed\("),
    "a class": ({"digit": cvae.Label}, "digit must be a Label, Continuous or Image"),
    "two images": (
        {"one": IMAGE, "two": GIVEN},
        r"Mixed must read every array once, got \['one', 'observed', 'two', 'obs",
    ),
    "a label named observed": ({"part": IMAGE, "observed": LABEL}, "Mixed must read every array once"),
    "an image named observed": ({"observed": IMAGE}, "name must be another than the mask's"),
}


@pytest.mark.parametrize(("parts", "message"), BAD_MIXES.values(), ids=BAD_MIXES.keys())
def test_bad_mixes_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        cvae.Mixed(**parts)


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_conditions_are_hashable_settings(condition):
    names = {part.name: part for part in getattr(condition, "parts", ())}
    copy = cvae.Mixed(**names) if names else type(condition)(**vars(condition))
    assert copy == condition
    assert hash(copy) == hash(condition)
    assert re.match(type(condition).__name__, repr(condition))
    assert cvae.Label(CLASSES, "digit") != cvae.Label(CLASSES)
