"""Strokes of known width and slant are measured as such, each image independently of the others."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import moments_central

from cvae import data
from experiments.measures import strokes

SIZE, FINE = 28, 12  # pixels of a drawn image; parts per pixel at which it is drawn


def drawn(inside, shifts=((0.0, 0.0),), size=SIZE):
    """Anti-aliased images [N, size, size, 1] of the points where `inside(down, right)` holds, one per shift."""
    place = (np.arange(size * FINE) + 0.5) / FINE - size / 2
    fine = [inside(place[:, None] - down, place[None, :] - right) for down, right in shifts]
    images = [image.reshape(size, FINE, size, FINE).mean(axis=(1, 3)) for image in fine]
    return np.array(images, np.float32)[..., None]


def line(width, degrees, length=18.0):
    """A straight stroke with round ends, at an angle from the horizontal."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))

    def inside(down, right):
        along, across = cosine * right + sine * down, cosine * down - sine * right
        return np.hypot(np.maximum(np.abs(along) - length / 2, 0), across) < width / 2

    return inside


def ring(width, radius=7.0):
    """A round stroke: every direction, no ends."""
    return lambda down, right: np.abs(np.hypot(down, right) - radius) < width / 2


def leaning(shear, width=3.0, height=16.0):
    """An upright stroke, sheared to the right by `shear` pixels per pixel upwards."""
    return lambda down, right: (np.abs(down) < height / 2) & (np.abs(right + shear * down) < width / 2)


def shifts(count, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 2))


def thickness(x):
    return strokes.measure(x)[:, 0]


def slant(x):
    return strokes.measure(x)[:, 1]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits").train.x[:60]


@pytest.mark.parametrize("width", [1.5, 2.7, 4.4, 5.5])
def test_thickness_is_the_width_that_was_drawn(width):
    # Edges are located to a third of a pixel, and a stroke has two; a ring meets the grid in every direction.
    np.testing.assert_allclose(thickness(drawn(ring(width), shifts(5))), width, atol=0.2)
    straight = np.array([thickness(drawn(line(width, a), shifts(5, a))) for a in (0, 20, 45, 70, 90)])
    np.testing.assert_allclose(straight, width, atol=0.6)
    assert abs(straight.mean() - width) < 0.15


@pytest.mark.parametrize("width", [2.0, 5.0])
def test_thickness_is_robust_to_soft_edges_and_low_contrast(width):
    sharp = drawn(ring(width), shifts(3))
    soft = np.array([gaussian_filter(image, (0.6, 0.6, 0)) for image in sharp])
    np.testing.assert_allclose(thickness(soft), width, atol=0.3)
    np.testing.assert_allclose(thickness(0.01 * sharp), thickness(sharp), rtol=1e-6)


def test_thickness_grows_with_the_width_in_small_steps():
    widths = np.arange(1.5, 5.5, 0.05)
    measured = thickness(np.concatenate([drawn(ring(width), [(0.1, 0.3)]) for width in widths]))
    assert np.abs(np.diff(measured)).max() < 0.2
    assert np.corrcoef(widths, measured)[0, 1] > 0.995


@pytest.mark.parametrize("shear", [-0.7, 0.0, 0.4, 1.0])
def test_slant_is_the_angle_of_the_shear(shear):
    # The position of ink within its pixel is lost: a variance of 1/12 beside that of the height, about 256/12.
    np.testing.assert_allclose(np.tan(slant(drawn(leaning(shear), shifts(4)))), shear, atol=0.01)


def test_slant_agrees_with_the_moments_of_scikit_image():
    x = np.random.default_rng(1).random((7, 9, 5, 1))
    moments = np.array([moments_central(image[..., 0], order=2) for image in x])
    np.testing.assert_allclose(slant(x), np.arctan(-moments[:, 1, 1] / moments[:, 2, 0]), rtol=1e-5)


def test_mirroring_negates_slant_and_rotation_by_half_a_turn_keeps_both(digits):
    before, turned = strokes.measure(digits), strokes.measure(digits[:, ::-1, ::-1])
    np.testing.assert_allclose(slant(digits[:, :, ::-1]), -before[:, 1], atol=1e-6)
    np.testing.assert_allclose(turned[:, 1], before[:, 1], atol=1e-6)
    # The skeleton of a stroke of even width lies on one of its two middle pixels: on the other once turned.
    np.testing.assert_allclose(turned[:, 0], before[:, 0], atol=0.35)


def test_translation_changes_nothing(digits):
    expected = strokes.measure(digits)
    for top, left in ((0, 0), (3, 9)):
        moved = np.zeros((len(digits), 13, 17, 1), np.uint8)
        moved[:, top : top + 8, left : left + 8] = digits
        measured = strokes.measure(moved)
        np.testing.assert_array_equal(measured[:, 0], expected[:, 0])
        np.testing.assert_allclose(measured[:, 1], expected[:, 1], atol=1e-5)


def test_every_image_is_measured_independently(digits):
    # More than one chunk, with ink at the border, next to blank, full and noisy images.
    rng = np.random.default_rng(2)
    noise = rng.random((20, 8, 8, 1))
    x = np.concatenate([digits / 255, noise, np.zeros((2, 8, 8, 1)), np.ones((2, 8, 8, 1))]).astype(np.float32)
    x = x[rng.permutation(len(x))]
    one_by_one = np.concatenate([strokes.measure(x[n : n + 1]) for n in range(len(x))])
    np.testing.assert_array_equal(strokes.measure(x), one_by_one)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_uint8_and_floats_agree(digits, dtype):
    measured = strokes.measure((digits / 255).astype(dtype))
    # Half precision rounds grey levels to about 1/2000, which moves some edges.
    np.testing.assert_allclose(measured, strokes.measure(digits), atol=0.2 if dtype == np.float16 else 1e-5)


def test_columns_dtype_and_progress(digits, capfd):
    measured = strokes.measure(digits, progress=True)
    assert "60/60" in capfd.readouterr().err
    assert strokes.NAMES == ("thickness", "slant")
    assert measured.shape == (60, 2)
    assert measured.dtype == np.float32
    assert 0.7 < measured[:, 0].min() < measured[:, 0].max() < 5
    assert np.abs(measured[:, 1]).max() < 1.2


def test_blank_images_and_single_rows_of_ink_are_nan():
    x = np.zeros((2, 8, 8, 1), np.uint8)
    x[1, 3, 2:6] = 200
    measured = strokes.measure(x)
    np.testing.assert_array_equal(np.isnan(measured), [[True, True], [False, True]])
    assert measured[1, 0] == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 8, 8, 3)), r"x must have shape \[B, 8, 8, 1\], got \(2, 8, 8, 3\)"),
        (np.full((2, 8, 8, 1), 255.0), r"x must be .*in \[0, 1\], got 255"),
    ],
)
def test_invalid_images_raise(x, message):
    with pytest.raises(ValueError, match=message):
        strokes.measure(x)
