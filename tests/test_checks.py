"""Checks: one sentence that names the argument, the rule and the value, and one meaning of every dtype."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from cvae import checks
from cvae.checks import Spec

UNIT = Spec((2, 3), "pixels", 0, 1)
PIXELS, REAL, MASK, LABEL = Spec((2, 3), "pixels"), Spec((2, 3)), Spec((2, 3), "mask"), Spec((), "integer", 0, 5)
GREY = np.linspace(0, 1, 18, dtype=np.float32).reshape(3, 2, 3)
LABELS = np.array([0, 4, 2])


def with_one(value, dtype=np.float32):
    x = GREY.astype(dtype)
    x[1, 1, 2] = value
    return x


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, bool, np.uint8])
@pytest.mark.parametrize("spec", [UNIT, PIXELS, REAL])
def test_every_dtype_of_pixels_passes_on_host_and_device(spec, dtype):
    x = (GREY * (255 if dtype == np.uint8 else 1)).astype(dtype)
    assert spec.check("x", x) == spec.check("x", jnp.asarray(x), 3) == 3


def test_rounding_beyond_the_range_is_tolerated():
    for value in (1.0000001, -1e-7):
        UNIT.check("x", with_one(value))
    with pytest.raises(ValueError, match=r"got 1\.00001001 at row 1, element \(1, 2\) \(values from 0 to 1\.00001001"):
        UNIT.check("x", with_one(1.00001))


IN_UNIT = r"^x must be floats, or uint8 in 255ths, in \[0, 1\], got "
BAD_VALUES = {
    "above": (UNIT, with_one(1.25), IN_UNIT + r"1\.25 at row 1, element \(1, 2\) \(values from 0 to 1\.25\)$"),
    "below": (UNIT, with_one(-0.5), IN_UNIT + r"-0\.5 at row 1, .*from -0\.5 to 1\)$"),
    "half precision": (UNIT, with_one(1.5, np.float16), IN_UNIT + r"1\.5 at row 1"),
    "bfloat16": (UNIT, with_one(1.5, ml_dtypes.bfloat16), IN_UNIT + r"1\.5 at row 1"),
    "nan": (UNIT, with_one(np.nan), IN_UNIT + "nan at row 1"),
    "nan alone": (UNIT, np.full((3, 2, 3), np.nan), IN_UNIT + r"nan at row 0, element \(0, 0\)$"),
    "infinite": (UNIT, with_one(np.inf), IN_UNIT + r"inf at row 1, .* \(values from 0 to inf\)$"),
    "infinite in float32": (REAL, with_one(1e39, np.float64), r"must be real numbers, all finite, got 1e\+39 at row 1"),
    "integer pixels": (UNIT, GREY.astype(np.int32), IN_UNIT + "int32 values$"),
    "label": (LABEL, np.array([0, 5, 2]), r"^x must be integers in \[0, 5\), got 5 at row 1$"),
    "negative label": (LABEL, np.array([0, 1, -1]), "got -1 at row 2$"),
    "large label": (LABEL, np.array([0, 1, 1234567891]), "got 1234567891 at row 2$"),
    "float label": (LABEL, LABELS * 1.0, "got float64 values$"),
    "bool label": (LABEL, LABELS > 1, "got bool values$"),
    "integer mask": (MASK, np.ones((3, 2, 3), int), "must be boolean, True where x is observed, got int64 values$"),
    "grey mask": (MASK, GREY, "must be boolean, .* got float32 values$"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("spec", "x", "message"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_bad_values_are_refused(spec, x, message):
    with pytest.raises(ValueError, match=message):
        spec.check("x", x)


BAD_ARRAYS = {
    "one-hot": (LABEL, np.eye(5)[LABELS], r"must have shape \[B\], got \(3, 5\) \(one-hot\? pass its argmax\)$"),
    "one-hot integers": (LABEL, np.eye(5, dtype=int)[LABELS], r"one-hot\? pass its argmax"),
    "scalar": (LABEL, np.array(3), r"got \(\)"),
    "no channel": (Spec((2, 3, 1)), GREY, r"shape \[B, 2, 3, 1\], got \(3, 2, 3\) \(add an axis: \[..., None\]\)$"),
    "rank": (REAL, GREY[..., None], r"must have shape \[B, 2, 3\], got \(3, 2, 3, 1\)$"),
    "transposed": (REAL, GREY.swapaxes(1, 2), r"got \(3, 3, 2\)$"),
    "empty": (LABEL, LABELS[:0], r"must hold at least one example, got shape \(0,\)$"),
    "batch": (LABEL, LABELS[:2], "must hold one entry per example of x, 3, got 2$"),
    "list": (LABEL, [0, 1, 2], "must be an array, got a list$"),
    "none": (REAL, None, "must be an array, got a NoneType$"),
    "complex": (REAL, GREY.astype(complex), "must be an array of real numbers, got complex128 values$"),
    "words": (REAL, np.array(["a"]), "got <U1 values$"),
    "times": (REAL, np.array([3], "m8[s]"), r"got timedelta64\[s\] values$"),
    "key": (REAL, jax.random.key(0), "got key<fry> values$"),
    "byte order": (REAL, GREY.astype(">f4"), r"must be in native byte order, x\.astype.* got >f4$"),
}


@pytest.mark.parametrize(("spec", "x", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS.keys())
def test_bad_arrays_are_refused(spec, x, message):
    with pytest.raises(ValueError, match=f"^c must .*{message}|^c {message}"):
        spec.check("c", x, 3)


def test_inside_jit_shapes_and_dtypes_are_checked_and_values_are_not():
    def checked(x, spec):
        spec.check("x", x)
        return x

    for x, spec in ((with_one(np.nan), UNIT), (np.array([0, 5, 2]), LABEL)):
        jax.jit(checked, static_argnums=1)(x, spec)
    for x, spec, message in (
        (GREY.astype(np.int32), UNIT, "int32 values"),
        (np.eye(5)[LABELS], LABEL, "one-hot"),
        (GREY, MASK, "boolean"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.jit(checked, static_argnums=1)(x, spec)


def test_pixels_are_cast_to_one_meaning():
    """uint8 are 255ths, bool are 0 and 1, floats and labels stay as they are."""
    levels = np.array([[0, 51, 255]], np.uint8)
    for array in (levels, jnp.asarray(levels)):
        np.testing.assert_allclose(PIXELS.cast(array), [[0, 0.2, 1]], rtol=1e-6)
        np.testing.assert_array_equal(REAL.cast(array), [[0, 51, 255]])
        assert PIXELS.cast(array).dtype == np.float32
        np.testing.assert_array_equal(PIXELS.cast(array > 99), [[0, 0, 1]])
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        x = GREY.astype(dtype)
        assert PIXELS.cast(x) is x
    assert LABEL.cast(LABELS) is LABELS
    seconds = np.array([[1_700_000_001], [1_700_000_003]])  # float32 has a spacing of 128 there
    np.testing.assert_array_equal(REAL.cast(seconds), seconds)


def test_bytes_of_0_and_1_are_black_and_white():
    x = np.array([[0, 1, 0]], np.uint8)
    with pytest.warns(UserWarning, match="^x holds only 0 and 1, and is read as black and white, not as 255ths$"):
        y = checks.binary("x", x, PIXELS)
    assert y.dtype == bool
    np.testing.assert_array_equal(y, x)
    for array, spec in ((2 * x, PIXELS), (0 * x, PIXELS), (x.astype(np.float32), PIXELS), (x, REAL)):
        assert checks.binary("x", array, spec) is array
    assert jax.jit(lambda x: checks.binary("x", x, PIXELS))(x).dtype == np.uint8


BAD_DICTS = {
    "missing": ({}, r"be a dict with the keys \['label', 'part'\], got \[\]: \['label', 'part'\] missing$"),
    "misspelt": ({"labels": LABELS, "part": GREY}, r"\['label'\] missing$"),
    "unexpected": ({"label": LABELS, "part": GREY, "age": LABELS}, r"got \[.*\]: \['age'\] unexpected$"),
    "no dict": (LABELS, "got a ndarray$"),
    "of different lengths": ({"label": LABELS[:2], "part": GREY}, r"^c\['part'\] must hold one entry per .* 2, got 3"),
}


@pytest.mark.parametrize(("c", "message"), BAD_DICTS.values(), ids=BAD_DICTS.keys())
def test_bad_dicts_are_refused(c, message):
    specs = {"label": LABEL, "part": REAL}
    checks.arrays("c", {"part": GREY, "label": LABELS}, specs, 3)
    with pytest.raises(ValueError, match=message):
        checks.arrays("c", c, specs)


def test_a_condition_of_an_unconditional_model_is_refused():
    checks.arrays("c", {}, {}, 3)
    with pytest.raises(ValueError, match=r"no keys: this model is unconditional, got \['label'\]"):
        checks.arrays("c", {"label": LABELS}, {})


def test_numbers_and_integers_of_any_type_pass():
    for value in (3, np.int8(3), np.uint64(3)):
        assert type(checks.integer("n", value)) is int
    for value in (0.5, np.float16(0.5), np.float32(0.5), np.float64(0.5)):
        assert type(checks.number("n", value, 0, 1)) is float
    for value in (0.5, np.ones(3), jnp.ones(3), np.float32(2), jnp.asarray(2)):
        checks.scalar("beta", value, 3)


def list_of_itself():
    values = []
    values.append(values)
    return values


BAD_SCALARS = {
    "bool": (checks.integer, (True,), "be an integer of at least 1, got True"),
    "numpy bool": (checks.integer, (np.True_,), "be an integer of at least 1, got "),
    "float": (checks.integer, (2.0,), "be an integer of at least 1, got 2.0"),
    "word": (checks.integer, ("3",), "got '3'"),
    "span of time": (checks.integer, (np.timedelta64(3, "s"),), "be an integer"),
    "least": (checks.integer, (1, 2), "be an integer of at least 2, got 1"),
    "int32": (checks.integer, (2**31,), "be below 2147483648, got 2147483648"),
    "too long to write": (checks.integer, (10**5000,), "be below 2147483648, got a int"),
    "nan": (checks.number, (np.nan,), "be a finite number, got nan"),
    "overflow": (checks.number, (10**400,), "be a finite number, got 1000"),
    "lower": (checks.number, (3, 4), "be a finite number of at least 4, got 3"),
    "upper": (checks.number, (1.0001, 0, 1), r"be a finite number in \[0, 1\], got 1.0001"),
    "array": (checks.number, (np.ones(3),), r"be a finite number, got array"),
    "per example": (checks.scalar, (np.ones(2), 3), r"of shape \(\) or \(3,\), got float64 of shape \(2,\)"),
    "per nothing": (checks.scalar, (np.ones(3),), r"of shape \(\), got float64 of shape \(3,\)"),
    "element": (checks.scalar, (np.array([1.0, -1.0]), 2, 0), "be a finite number of at least 0, got -1.0"),
    "choice": (checks.one_of, ("b", ("a", "c")), "be one of a, c, got 'b'"),
    "no choice": (checks.one_of, (["a"], ("a", "c")), r"be one of a, c, got \['a'\]"),
    "class": (checks.instance, (3, str, "a word"), "be a word, got 3"),
    "no path": (checks.path, (3,), "be a path, got 3"),
    "long path": (checks.path, ("a/" + "b" * 256,), "be a path that a file can have, got 'a/bb"),
    "null": (checks.path, ("a\0b",), "be a path that a file can have, got "),
    "seed": (checks.key, (0,), r"be a random key, jax\.random\.key\(seed\), got 0"),
    "keys": (checks.key, (jax.random.split(jax.random.key(0), 3),), r"a random key, .*got key<fry> of shape \(3,\)"),
    "recursive": (checks.integer, (list_of_itself(),), r"got \[\[...\]\]"),
}  # fmt: skip


@pytest.mark.parametrize(("check", "arguments", "message"), BAD_SCALARS.values(), ids=BAD_SCALARS.keys())
def test_bad_scalars_are_refused_on_one_line(check, arguments, message):
    with pytest.raises(ValueError, match=rf"^n must .*{message}") as caught:
        check("n", *arguments)
    assert len(str(caught.value)) < 350


def test_keys_of_every_kind_pass():
    for key in (jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg"), np.zeros(2, np.uint32)):
        checks.key("key", key)


def test_values_are_shown_on_one_line():
    assert checks.shown(np.eye(2)) == "array([[1., 0.], [0., 1.]])"
    assert checks.shown("a\nb") == repr("a\nb")
    assert len(checks.shown("a" * 1000)) == 203
    assert re.fullmatch(r".*/x", checks.path("p", "~/x").as_posix())
