"""Preparation: grey levels, black and white drawn or drawn once, and what the condition draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae.preparation import binarise, preparation

BYTES = np.arange(0, 256, 15, dtype=np.uint8).reshape(3, 2, 3, 1)  # 0, 15, ..., 255
EVENT = (2, 3, 1)


def test_bytes_become_255ths_and_floats_stay(key):
    c = {"label": np.array([0, 4, 2])}
    x, same = cvae.prepare(key, jnp.asarray(BYTES), c)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, BYTES / 255, rtol=1e-6)
    assert same is c
    floats = jnp.asarray(BYTES / 7, jnp.float32)
    assert cvae.prepare(key, floats, c)[0] is floats


def test_grey_targets_draw_nothing(key):
    c = {"label": np.array([0, 4, 2])}
    for targets in ("grey", "static"):
        x, same = preparation(cvae.Label(5), targets)(key, jnp.asarray(BYTES), c)
        np.testing.assert_array_equal(x, cvae.prepare(key, jnp.asarray(BYTES), c)[0])
        assert same is c


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_dynamic_targets_are_black_or_white_with_the_grey_level_as_mean(key, dtype):
    grey = BYTES / 255
    x = jnp.asarray(BYTES if dtype == np.uint8 else grey, dtype)
    prepare = preparation(targets="dynamic")
    many = jax.jit(lambda key: prepare(key, jnp.broadcast_to(x, (4000, *x.shape)), {})[0])(key)
    draws = np.asarray(many, np.float64)
    assert set(np.unique(draws)) == {0.0, 1.0}
    error = np.sqrt(grey * (1 - grey) / len(draws))
    # Black and white have no error: every draw of them is exact.
    assert np.all(np.abs(draws.mean(axis=0) - grey) <= 5 * error)
    assert error.min() == 0
    # Every pixel is drawn alone: the variance of a picture's sum is the sum of the variances.
    sums = draws.sum(axis=(2, 3, 4))
    variance = (grey * (1 - grey)).sum(axis=(1, 2, 3))
    assert np.all(np.abs(sums.var(axis=0) - variance) < 5 * variance * np.sqrt(2 / len(draws)))


def test_dynamic_targets_are_drawn_afresh_by_every_key(key):
    prepare = jax.jit(preparation(targets="dynamic"))
    x = jnp.full((3, 40, 30, 1), 0.5)
    one, again, two = (prepare(k, x, {})[0] for k in (key, key, jax.random.key(12)))
    np.testing.assert_array_equal(one, again)
    assert one.dtype == jnp.float32
    # Half of 3600 pixels differ, and so do half of any two pictures'.
    for differs in (one != two, one[:1] != one[1:]):
        assert abs(differs.mean() - 0.5) < 5 * np.sqrt(0.25 / differs.size)


def test_what_was_binarised_stays(key):
    x = binarise(3, BYTES)
    drawn, _ = jax.jit(preparation(targets="dynamic"))(key, jnp.asarray(x), {})
    np.testing.assert_array_equal(drawn, x / 255)


def test_the_image_is_cut_from_the_pixels_as_drawn(key):
    prepare = jax.jit(preparation(cvae.Image(EVENT, "random_box"), "dynamic"))
    x, c = prepare(key, jnp.asarray(BYTES), {})
    assert set(np.unique(x)) == {0.0, 1.0}
    assert set(c) == {"image", "observed"}
    np.testing.assert_array_equal(c["image"], np.where(c["observed"], x, 0))
    other = prepare(jax.random.key(12), jnp.asarray(BYTES), {})[1]
    assert np.any(other["observed"] != c["observed"])


def test_pictures_are_moved_by_whole_pixels():
    x = np.random.default_rng(0).random((4, 5, 6, 2)).astype(np.float32)
    by = np.array([[0, 0], [1, 0], [-2, 1], [0, -1]])
    moved = np.asarray(cvae.preparation.move(jnp.asarray(x), jnp.asarray(by)))
    np.testing.assert_array_equal(moved[0], x[0])
    np.testing.assert_array_equal(moved[1], np.concatenate([np.zeros((1, 6, 2)), x[1, :-1]]))
    np.testing.assert_array_equal(moved[2, :3, 1:], x[2, 2:, :-1])
    assert not moved[2, 3:].any()
    assert not moved[2, :, 0].any()
    np.testing.assert_array_equal(moved[3, :, :-1], x[3, :, 1:])
    with pytest.raises(ValueError, match=r"x must hold pictures \(H, W, C\) to be moved, got shape \(4, 60\)"):
        cvae.preparation.move(jnp.ones((4, 60)), jnp.asarray(by))


def test_a_share_of_the_pictures_is_moved_and_told_so(key):
    n = 4000
    x = np.zeros((n, 5, 5, 1), np.uint8)
    x[:, 2, 2] = 255
    condition = cvae.Mixed(part=cvae.Image((5, 5, 1), "top_half"), shift=cvae.Continuous(2))
    stored = {"shift": np.zeros((n, 2), np.float32)}
    moved, c = jax.jit(preparation(condition, shift=1, moved=0.6))(key, x, stored)
    place = np.argwhere(np.asarray(moved)[..., 0])[:, 1:] - 2
    np.testing.assert_array_equal(place, c["shift"])
    np.testing.assert_array_equal(c["part"], np.where(c["observed"], moved, 0))  # cut from the moved picture
    # Of the moved, a ninth is moved by nothing; the other eight places are alike.
    share = 0.6 / 9
    for down, right in np.ndindex(3, 3):
        found = (place == (down - 1, right - 1)).all(axis=1).mean()
        expected = share + 0.4 * ((down, right) == (1, 1))
        assert abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / n)
    untold = jax.jit(preparation(shift=1, moved=0.6))(key, x, {})
    np.testing.assert_array_equal(untold[0], moved)
    assert untold[1] == {}


def test_a_stored_picture_moves_with_x(key):
    x = np.random.default_rng(1).integers(0, 256, (40, 6, 6, 1)).astype(np.uint8)
    condition = cvae.Image((6, 6, 1), "top_half", stored=True)
    moved, c = jax.jit(preparation(condition, shift=2))(key, x, {"image": x})
    np.testing.assert_array_equal(c["image"], np.where(c["observed"], moved, 0))
    drawn, c = jax.jit(preparation(condition, "dynamic"))(key, x, {"image": x})
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(c["image"], np.where(c["observed"], x / 255, 0), rtol=1e-6)  # grey, and not as drawn


def test_omission_leaves_the_targets_alone(key):
    x = np.full((50, 10, 10, 1), 255, np.uint8)
    prepare = jax.jit(preparation(cvae.Image((10, 10, 1), "quadrants_3"), omission=1.0))
    targets, c = prepare(key, x, {})
    np.testing.assert_array_equal(targets, np.ones(x.shape))
    assert np.any(np.asarray(c["image"]) != np.asarray(c["observed"]))


def test_a_preparation_runs_inside_jit(key):
    prepare = preparation(cvae.Mixed(digit=cvae.Label(5), part=cvae.Image(EVENT, "random_pixels")), "dynamic")
    c = {"digit": np.array([0, 4, 2])}
    inside, outside = jax.jit(prepare)(key, BYTES, c), prepare(key, jnp.asarray(BYTES), c)
    assert set(inside[1]) == {"digit", "part", "observed"}
    jax.tree.map(np.testing.assert_array_equal, inside, outside)


def test_the_same_arguments_give_the_same_function():
    assert preparation(cvae.Label(5), "dynamic") is preparation(cvae.Label(5), "dynamic")
    assert preparation(cvae.Label(5), "dynamic") is not preparation(cvae.Label(6), "dynamic")


def test_unknown_targets_are_refused():
    with pytest.raises(ValueError, match="targets must be one of grey, dynamic, static, got 'binary'"):
        preparation(cvae.Nothing(), "binary")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_binarise_draws_every_pixel_once_by_its_grey_level(dtype):
    many = np.broadcast_to(BYTES, (4000, *BYTES.shape))
    drawn = binarise(3, many if dtype == np.uint8 else (many / 255).astype(dtype))
    assert drawn.dtype == np.uint8
    assert drawn.shape == many.shape
    assert set(np.unique(drawn)) == {0, 255}
    grey = BYTES / 255
    assert np.all(np.abs((drawn / 255).mean(axis=0) - grey) <= 5 * np.sqrt(grey * (1 - grey) / 4000))


def test_binarise_depends_on_the_seed_alone():
    x = np.full((3, 20, 30, 1), 128, np.uint8)
    before = x.copy()
    np.testing.assert_array_equal(binarise(3, x), binarise(3, jnp.asarray(x)))
    assert np.any(binarise(3, x) != binarise(4, x))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(binarise(4, binarise(3, x)), binarise(3, x))


BAD = {
    "range": (3, np.full((3, 2), 1.5, np.float32), r"x must be floats in \[0, 1\], got values from 1.5 to 1.5"),
    "nan": (3, np.full((3, 2), np.nan, np.float32), r"x must be floats in \[0, 1\], got 6 NaN"),
    "integers": (3, np.zeros((3, 2), np.int64), r"x must be floats in \[0, 1\] .*, got int64 values"),
    "a list": (3, [0.5, 0.5], "x must be an array, got a list"),
    "negative seed": (-1, BYTES, "seed must be a whole number of at least 0, got -1"),
    "large seed": (2**32, BYTES, r"seed must be below 2\*\*32, got 4294967296"),
    "no seed": (None, BYTES, "seed must be a whole number of at least 0, got None"),
}


@pytest.mark.parametrize(("seed", "x", "message"), BAD.values(), ids=BAD.keys())
def test_binarise_refuses(seed, x, message):
    with pytest.raises(ValueError, match=message):
        binarise(seed, x)
