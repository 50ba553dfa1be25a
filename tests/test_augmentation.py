"""Augmentation: pixels drawn anew or once, images moved, and what the condition draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae.data.augmentation import as_floats, augmentation, binarize, move

GREY = np.arange(0, 256, 15, dtype=np.uint8).reshape(3, 2, 3, 1)  # 0, 15, ..., 255
EVENT = (2, 3, 1)
LABEL = {"label": np.array([0, 4, 2])}
DYNAMIC = cvae.Training(binarization="dynamic")


def augmented(condition, key, x, c, **settings):
    """What one training step makes of x and c."""
    return jax.jit(augmentation(condition, cvae.Training(**settings)))(key, x, c)


@pytest.mark.parametrize("binarization", ["none", "static"])
def test_without_settings_pixels_only_become_floats(key, binarization):
    for x, expected in ((GREY, GREY / 255), (GREY > 99, GREY > 99), (np.float32(GREY / 7), np.float32(GREY / 7))):
        floats, c = augmented(cvae.Label(5), key, x, LABEL, binarization=binarization)
        assert floats.dtype == jnp.float32
        np.testing.assert_allclose(floats, expected, rtol=1e-6)
        np.testing.assert_allclose(as_floats(x), expected, rtol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, c, LABEL)


def assert_drawn(draws, grey) -> None:
    """Pixels 0 or 1 with the grey level as mean, each drawn alone.  Shapes: [N, B, *event], [B, *event]."""
    draws, axes = np.asarray(draws, np.float64), tuple(range(1, grey.ndim))
    assert set(np.unique(draws)) == {0, 1}
    error = np.sqrt(grey * (1 - grey) / len(draws))
    assert error.min() == 0  # black and white: every draw of them is exact
    assert np.all(np.abs(draws.mean(axis=0) - grey) <= 5 * error)
    # Drawn independently, the variance of an image's sum is the sum of the variances.
    variance = (grey * (1 - grey)).sum(axis=axes)
    sums = draws.sum(axis=tuple(axis + 1 for axis in axes))
    assert np.all(np.abs(sums.var(axis=0) - variance) < 5 * variance * np.sqrt(2 / len(draws)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_binarization_draws_each_pixel_by_its_grey_level(key, dtype):
    grey = GREY / 255
    x = np.broadcast_to(GREY if dtype == np.uint8 else grey.astype(dtype), (4000, *GREY.shape))
    drawn, _ = augmented(cvae.Unconditional(), key, x, {}, binarization="dynamic")
    assert drawn.dtype == jnp.float32
    assert_drawn(drawn, grey)
    once = binarize(3, x)
    assert once.dtype == bool
    assert_drawn(once, grey)
    # What is binarised already stays as it is, however it is drawn again.
    again, _ = augmented(cvae.Unconditional(), key, once, {}, binarization="dynamic")
    np.testing.assert_array_equal(again, once)
    np.testing.assert_array_equal(binarize(4, once), once)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_dark_pixels_of_few_bits_are_drawn_by_their_grey_level(key, dtype):
    """Uniform numbers of as few bits would be below 1/255 too often."""
    x = jnp.full((100, 40, 50, 1), 1 / 255, dtype)
    drawn, _ = augmented(cvae.Unconditional(), key, x, {}, binarization="dynamic")
    assert drawn.dtype == dtype
    grey = float(x[0, 0, 0, 0])  # 0.0039
    for draws in (drawn, binarize(3, x)):
        assert abs(np.asarray(draws, np.float32).mean() - grey) < 5 * np.sqrt(grey / x.size)


def test_every_key_draws_anew(key):
    x = jnp.full((3, 40, 30, 1), 0.5)
    augment = jax.jit(augmentation(cvae.Unconditional(), DYNAMIC))
    one, again, two = (augment(k, x, {})[0] for k in (key, key, jax.random.key(12)))
    np.testing.assert_array_equal(one, again)
    # Half of 3600 pixels differ, and so do half of any two images'.
    for differs in (one != two, one[:1] != one[1:]):
        assert abs(differs.mean() - 0.5) < 5 * np.sqrt(0.25 / differs.size)


def test_binarize_depends_on_the_seed_alone():
    x = np.full((3, 20, 30, 1), 128, np.uint8)
    np.testing.assert_array_equal(binarize(3, x), binarize(3, jnp.asarray(x)))
    assert np.any(binarize(3, x) != binarize(4, x))
    assert np.all(x == 128)


BAD = {
    "range": (3, np.full((3, 2), 1.5, np.float32), r"x must be .* in \[0, 1\], got 1.5 at row 0, element \(0,\)"),
    "negative seed": (-1, GREY, "seed must be an integer of at least 0, got -1"),
}


@pytest.mark.parametrize(("seed", "x", "message"), BAD.values(), ids=BAD.keys())
def test_binarize_refuses(seed, x, message):
    with pytest.raises(ValueError, match=message):
        binarize(seed, x)


def test_images_are_moved_by_whole_pixels():
    x = np.random.default_rng(0).random((4, 5, 6, 2)).astype(np.float32)
    moved = np.asarray(move(jnp.asarray(x), jnp.array([[0, 0], [1, 0], [-2, 1], [0, -1]])))
    expected = np.zeros_like(x)
    expected[0] = x[0]
    expected[1, 1:] = x[1, :-1]
    expected[2, :3, 1:] = x[2, 2:, :-1]
    expected[3, :, :-1] = x[3, :, 1:]
    np.testing.assert_array_equal(moved, expected)


def test_a_share_of_the_images_is_moved_and_the_condition_knows(key):
    n = 4000
    x = np.zeros((n, 5, 5, 1), np.uint8)
    x[:, 2, 2] = 255
    condition = cvae.Mixed((cvae.Image((5, 5, 1), "top_half", "part"), cvae.Continuous(2, name="shift")))
    c = {"part": x, "shift": np.zeros((n, 2), np.float32)}
    moved, c = augmented(condition, key, x, c, shift=1, shift_prob=0.6)
    place = np.argwhere(np.asarray(moved)[..., 0])[:, 1:] - 2
    np.testing.assert_array_equal(place, c["shift"])
    np.testing.assert_array_equal(c["part"], moved)
    # Of the moved, a ninth is moved by nothing; the other eight places are alike.
    for down, right in np.ndindex(3, 3):
        share = (place == (down - 1, right - 1)).all(axis=1).mean()
        expected = 0.6 / 9 + 0.4 * ((down, right) == (1, 1))
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)
    alone, c = augmented(cvae.Unconditional(), key, x, {}, shift=1, shift_prob=0.6)
    np.testing.assert_array_equal(alone, moved)
    assert c == {}


def test_the_image_is_the_augmented_x_with_a_mask_drawn_anew(key):
    c = {"image": GREY, "observed": np.ones(GREY.shape, bool)}
    x, first = augmented(cvae.Image(EVENT, "random_box"), key, GREY, c, binarization="dynamic")
    _, second = augmented(cvae.Image(EVENT, "random_box"), jax.random.key(12), GREY, c, binarization="dynamic")
    assert set(np.unique(x)) == {0, 1}
    np.testing.assert_array_equal(first["image"], x)
    assert np.any(first["observed"] != second["observed"])


def test_a_separate_image_moves_with_x_and_stays_grey(key):
    x = np.random.default_rng(1).integers(0, 256, (40, 6, 6, 1)).astype(np.uint8)
    condition, c = cvae.Image((6, 6, 1), "top_half", separate=True), {"image": x}
    moved, same = augmented(condition, key, x, c, shift=2)
    np.testing.assert_array_equal(same["image"], moved)
    assert np.any(moved != x / np.float32(255))
    drawn, grey = augmented(condition, key, x, c, binarization="dynamic")
    assert set(np.unique(drawn)) == {0, 1}
    np.testing.assert_allclose(as_floats(grey["image"]), x / 255, rtol=1e-6)


def test_dropped_blocks_leave_x_alone(key):
    x = np.full((50, 10, 10, 1), 255, np.uint8)
    whole, c = augmented(cvae.Image((10, 10, 1), "quadrants_3"), key, x, {"image": x}, drop_block_prob=1.0)
    np.testing.assert_array_equal(whole, np.ones(x.shape))
    dropped = (np.asarray(c["image"]) == 0).mean(axis=(1, 2, 3))
    assert np.all((dropped >= 0.04) & (dropped <= 0.16))  # a fifth to two fifths of either side


def test_hidden_elements_are_nan_and_the_others_as_they_were(key):
    x = np.arange(8000.0, dtype=np.float32).reshape(2000, 4)
    seen, _ = augmented(cvae.Unconditional(), key, x, {}, hide_prob=0.3)
    hidden = np.isnan(seen)
    np.testing.assert_array_equal(np.asarray(seen)[~hidden], x[~hidden])
    assert np.all(np.abs(hidden.mean(axis=0) - 0.3) < 5 * np.sqrt(0.21 / 2000))


def test_the_same_arguments_give_the_same_function():
    """So that what was compiled with it is used again."""
    assert augmentation(cvae.Label(5), DYNAMIC) is augmentation(cvae.Label(5), cvae.Training(binarization="dynamic"))
    assert augmentation(cvae.Label(5), DYNAMIC) is not augmentation(cvae.Label(6), DYNAMIC)
