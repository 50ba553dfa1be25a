"""Masks: the fixed ones as drawn here by hand, the random ones by their distribution."""

import jax
import numpy as np
import pytest

from cvae import masks

# '#' is observed, '.' is hidden: images of height 4 and width 8.
DRAWN = {
    "quadrants_1": ["........", "........", "####....", "####...."],
    "quadrants_2": ["####....", "####....", "####....", "####...."],
    "quadrants_3": ["########", "########", "####....", "####...."],
    "top_half": ["########", "########", "........", "........"],
    "bottom_half": ["........", "........", "########", "########"],
    "left_half": ["####....", "####....", "####....", "####...."],
    "right_half": ["....####", "....####", "....####", "....####"],
    "centre_box": ["########", "##....##", "##....##", "########"],
}
# The same of height 3 and width 5: the middle row and column belong to the lower and right half.
DRAWN_ODD = {
    "quadrants_1": [".....", "##...", "##..."],
    "quadrants_2": ["##...", "##...", "##..."],
    "quadrants_3": ["#####", "##...", "##..."],
    "top_half": ["#####", ".....", "....."],
    "bottom_half": [".....", "#####", "#####"],
    "left_half": ["##...", "##...", "##..."],
    "right_half": ["..###", "..###", "..###"],
    "centre_box": ["#...#", "#...#", "#...#"],
}
RANDOM = ("random_box", "random_pixels")
COUNT, SHAPE = 600, (8, 12, 2)

# Compiled whole: as single operations, the random ones take seconds.
draw = jax.jit(masks.draw, static_argnums=(0, 2, 3))
draw_block = jax.jit(masks.draw_block, static_argnums=(1, 2))


def test_every_mask_is_tested_here():
    assert set(DRAWN) == set(DRAWN_ODD) == set(masks.FIXED)
    assert set(DRAWN) | set(RANDOM) == set(masks.MASKS)


@pytest.mark.parametrize("name", DRAWN)
def test_a_fixed_mask_is_as_drawn_by_hand(name):
    for lines, shape in ((DRAWN[name], (4, 8, 2)), (DRAWN_ODD[name], (3, 5, 1)), (DRAWN_ODD[name], (3, 5))):
        observed = np.array([[character == "#" for character in line] for line in lines])
        expected = np.broadcast_to(observed.reshape(*shape[:2], *[1] * (len(shape) - 2)), shape)
        fixed = masks.fixed(name, shape)
        assert isinstance(fixed, np.ndarray)
        assert fixed.dtype == bool
        np.testing.assert_array_equal(fixed, expected)
        drawn = draw(name, jax.random.key(0), 2, shape)
        np.testing.assert_array_equal(drawn, np.broadcast_to(expected, (2, *shape)))


@pytest.mark.parametrize("name", [*RANDOM, "given"])
def test_a_mask_that_varies_is_not_fixed(name):
    assert masks.fixed(name, (4, 8, 2)) is None


@pytest.mark.parametrize("name", RANDOM)
def test_random_masks_differ_by_image_and_key_and_not_by_channel(name):
    one, two = (np.asarray(draw(name, jax.random.key(seed), COUNT, SHAPE)) for seed in (11, 12))
    assert one.shape == (COUNT, *SHAPE)
    assert one.dtype == bool
    np.testing.assert_array_equal(one[..., 0], one[..., 1])
    # A box has more than a thousand sizes and places: a few of 600 are the same by chance.
    assert len(np.unique(one.reshape(COUNT, -1), axis=0)) > 300
    assert np.any(one != two, axis=(1, 2, 3)).mean() > 0.9
    assert not one.reshape(COUNT, -1).all(axis=1).any()  # something is always hidden
    np.testing.assert_array_equal(one, draw(name, jax.random.key(11), COUNT, SHAPE))


def test_a_random_box_has_sides_from_a_quarter_to_three_quarters():
    hidden = ~np.asarray(draw("random_box", jax.random.key(11), COUNT, SHAPE))[..., 0]
    rows, columns = hidden.any(axis=2), hidden.any(axis=1)
    # A box: exactly the places in its rows and its columns, and both are unbroken.
    np.testing.assert_array_equal(hidden, rows[:, :, None] & columns[:, None, :])
    for inside, length in ((rows, 8), (columns, 12)):
        first, last = inside.argmax(axis=1), length - 1 - inside[:, ::-1].argmax(axis=1)
        np.testing.assert_array_equal(last - first + 1, inside.sum(axis=1))
        assert set(inside.sum(axis=1)) == set(range(length // 4, 3 * length // 4 + 1))
        assert first.min() == 0
        assert last.max() == length - 1


def test_a_block_has_sides_from_a_fifth_to_two_fifths():
    blocks = np.asarray(draw_block(jax.random.key(3), COUNT, (10, 20, 1)))[..., 0]
    heights, widths = blocks.any(axis=2).sum(axis=1), blocks.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(heights * widths, blocks.sum(axis=(1, 2)))  # nothing but a box
    assert set(heights) == {2, 3, 4}
    assert set(widths) == set(range(4, 9))
    assert blocks.any(axis=0).all()  # anywhere
    assert draw_block(jax.random.key(3), 2, (10,)).shape == (2, 10)


def test_random_pixels_are_observed_with_a_probability_of_their_image():
    observed = np.asarray(draw("random_pixels", jax.random.key(11), COUNT, SHAPE))[..., 0]
    share = observed.mean(axis=(1, 2))
    # The probability is uniform on (0, 1), of variance 1/12 and fourth central moment 1/80; the pixels add theirs.
    assert abs(share.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / COUNT)
    assert abs(share.var() - 1 / 12 - 1 / 6 / 96) < 5 * np.sqrt((1 / 80 - 1 / 144) / COUNT)
    # No place is favoured.
    assert np.all(np.abs(observed.mean(axis=0) - 1 / 2) < 5 * np.sqrt(1 / 4 / COUNT))


@pytest.mark.parametrize(("name", "shape"), [("random_box", (2, 2, 1)), ("random_pixels", (2,))])
def test_a_random_mask_hides_something_of_the_smallest_x(name, shape):
    mask = np.asarray(draw(name, jax.random.key(11), 300, shape))
    assert mask.shape == (300, *shape)
    assert not mask.reshape(300, -1).all(axis=1).any()
    assert mask.any()


KEY = jax.random.key(0)
BAD = {
    "name": (masks.draw, ("top", KEY, 3, (4, 6, 1)), "mask must be one of quadrants_1, .*random_pixels, got 'top'"),
    "fixed name": (masks.fixed, ("top", (4, 6, 1)), "mask must be one of .*random_pixels, given, got 'top'"),
    "key": (masks.draw, ("top_half", 3, 3, (4, 6, 1)), r"key must be a random key, jax\.random\.key\(seed\), got 3"),
    "row": (masks.fixed, ("left_half", (5,)), r"event_shape must be an image \(H, W, C\), at least .* got \(5,\)"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        function(*arguments)
