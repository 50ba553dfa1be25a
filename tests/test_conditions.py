"""Conditions: what is refused, and what is encoded."""

import jax.numpy as jnp
import numpy as np
import pytest

import cvae

LABEL = cvae.Label(5)
GOOD = np.array([0, 4, 2])


def test_a_label_enters_one_hot():
    np.testing.assert_array_equal(LABEL.encode({"label": GOOD}), np.eye(5)[GOOD])
    assert LABEL.width == 5


def test_nothing_is_one_row_of_no_features():
    assert cvae.Nothing().encode({}).shape == (1, 0)
    assert cvae.Nothing().width == 0


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
    with pytest.raises(ValueError, match=message):
        LABEL.check({"label": label}, batch=3)


BAD_NAMES = {
    "missing": (LABEL, {}, r"c must be a dict with the keys \['label'\], got \[\]: \['label'\] missing"),
    "unexpected": (LABEL, {"label": GOOD, "age": GOOD}, r"\['age'\] unexpected"),
    "misspelt": (LABEL, {"labels": GOOD}, r"\['label'\] missing"),
    "no dict": (LABEL, GOOD, "got a ndarray"),
    "unconditional": (cvae.Nothing(), {"label": GOOD}, "no keys: this model is unconditional"),
}


@pytest.mark.parametrize(("condition", "c", "message"), BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_bad_names_are_refused(condition, c, message):
    with pytest.raises(ValueError, match=message):
        condition.check(c)


def test_good_conditions_pass():
    LABEL.check({"label": GOOD}, batch=3)
    LABEL.check({"label": jnp.asarray(GOOD, jnp.uint8)}, batch=3)
    cvae.Nothing().check({}, batch=3)


@pytest.mark.parametrize("num_classes", [0, 1, -3, 2.0, "ten"])
def test_a_label_has_two_classes_at_least(num_classes):
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 2, got"):
        cvae.Label(num_classes)
