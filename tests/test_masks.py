"""Masks: the fixed ones as drawn here by hand, the random ones by what they promise."""

import jax
import numpy as np
import pytest

from cvae import masks

# '#' is seen, '.' is hidden: pictures of height 4 and width 8.
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


def seen(lines: list[str]) -> np.ndarray:
    return np.array([[character == "#" for character in line] for line in lines])


def test_every_mask_is_tested_here():
    assert set(DRAWN) | set(RANDOM) == set(masks.MASKS)


@pytest.mark.parametrize("name", DRAWN)
def test_a_fixed_mask_is_its_picture(name, key):
    for lines, shape in ((DRAWN[name], (4, 8, 2)), (DRAWN_ODD[name], (3, 5, 1)), (DRAWN_ODD[name], (3, 5))):
        mask = np.asarray(masks.draw(name, key, 3, shape))
        assert mask.dtype == bool
        assert mask.shape == (3, *shape)
        expected = seen(lines).reshape(1, *shape[:2], *[1] * (len(shape) - 2))
        np.testing.assert_array_equal(mask, np.broadcast_to(expected, mask.shape))


@pytest.mark.parametrize("name", [*DRAWN, *RANDOM, "given"])
def test_what_is_the_same_for_every_picture_is_known_beforehand(name, key):
    for shape in ((4, 8, 2), (3, 5, 1), (3, 5)):
        fixed = masks.fixed(name, shape)
        assert (fixed is not None) == (name in DRAWN)
        if fixed is not None:
            np.testing.assert_array_equal(masks.draw(name, key, 2, shape), np.broadcast_to(fixed, (2, *shape)))


@pytest.mark.parametrize(("quadrants", "missing"), [(1, 588), (2, 392), (3, 196)])
def test_quadrants_leave_three_two_and_one_quarter_of_mnist(quadrants, missing, key):
    assert (~np.asarray(masks.draw(f"quadrants_{quadrants}", key, 2, (28, 28, 1)))).sum() == 2 * missing


# Compiled whole: as single operations, the random ones take seconds.
draw = jax.jit(masks.draw, static_argnums=(0, 2, 3))


@pytest.fixture(scope="module", params=RANDOM)
def drawn(request) -> tuple[np.ndarray, np.ndarray]:
    """Masks of 600 pictures, and of another key."""
    return tuple(np.asarray(draw(request.param, jax.random.key(seed), 600, (8, 12, 2))) for seed in (11, 12))


def test_a_random_mask_is_drawn_for_every_picture_alike_in_all_channels(drawn):
    one, two = drawn
    assert one.shape == (600, 8, 12, 2)
    assert one.dtype == bool
    np.testing.assert_array_equal(one[..., 0], one[..., 1])
    # A box has more than a thousand sizes and places: a few of 600 are the same by chance.
    assert len(np.unique(one.reshape(600, -1), axis=0)) > 300
    assert np.any(one != two, axis=(1, 2, 3)).mean() > 0.9
    assert not one.reshape(600, -1).all(axis=1).any()


def test_a_random_box_has_sides_from_a_quarter_to_three_quarters():
    hidden = ~np.asarray(draw("random_box", jax.random.key(11), 600, (8, 12, 2)))[..., 0]
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
    blocks = np.asarray(jax.jit(masks.block, static_argnums=(1, 2))(jax.random.key(3), 600, (10, 20, 1)))[..., 0]
    heights, widths = blocks.any(axis=2).sum(axis=1), blocks.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(heights * widths, blocks.sum(axis=(1, 2)))  # nothing but a box
    assert set(heights) == {2, 3, 4}
    assert set(widths) == set(range(4, 9))
    assert blocks.any(axis=0).all()  # anywhere


def test_random_pixels_are_seen_with_a_probability_of_their_picture():
    seen = np.asarray(draw("random_pixels", jax.random.key(11), 600, (8, 12, 2)))[..., 0]
    share = seen.mean(axis=(1, 2))
    # The probability is uniform on (0, 1), of variance 1/12 and fourth central moment 1/80; the pixels add theirs.
    assert abs(share.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / 600)
    assert abs(share.var() - 1 / 12 - 1 / 6 / 96) < 5 * np.sqrt((1 / 80 - 1 / 144) / 600)
    # No place is favoured.
    assert np.all(np.abs(seen.mean(axis=0) - 1 / 2) < 5 * np.sqrt(1 / 4 / 600))


@pytest.mark.parametrize(("name", "shape"), [("random_box", (2, 2, 1)), ("random_pixels", (2,))])
def test_a_random_mask_hides_something_of_the_smallest_x(name, shape, key):
    mask = np.asarray(draw(name, key, 300, shape))
    assert mask.shape == (300, *shape)
    assert not mask.reshape(300, -1).all(axis=1).any()
    assert mask.any()


def test_jit_changes_nothing(key):
    np.testing.assert_array_equal(draw("random_pixels", key, 4, (7,)), masks.draw("random_pixels", key, 4, (7,)))


def test_an_unknown_name_is_refused(key):
    with pytest.raises(ValueError, match=r"mask must be one of quadrants_1, .*random_pixels, got 'top'"):
        masks.draw("top", key, 3, (4, 6, 1))
