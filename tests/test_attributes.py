"""Attributes: strokes of known width and slant are measured as such, each picture for itself."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import moments_central

from cvae import attributes, data

SIZE, FINE = 28, 12  # pixels of a drawn picture; parts of a pixel at which it is drawn


def drawn(inside, shifts=((0.0, 0.0),), size=SIZE):
    """Pictures [N, size, size, 1] of the points where `inside(down, right)` holds, anti-aliased, each shifted a bit."""
    place = (np.arange(size * FINE) + 0.5) / FINE - size / 2
    fine = [inside(place[:, None] - down, place[None, :] - right) for down, right in shifts]
    pictures = [picture.reshape(size, FINE, size, FINE).mean(axis=(1, 3)) for picture in fine]
    return np.array(pictures, np.float32)[..., None]


def stroke(width, degrees, length=18.0):
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
    """An upright stroke whose upper end is pushed to the right: by `shear` pixels for every pixel upwards."""
    return lambda down, right: (np.abs(down) < height / 2) & (np.abs(right + shear * down) < width / 2)


def shifts(count, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 2))


def digits(count=60):
    return data.load("digits").train.x[:count]


@pytest.mark.parametrize("width", [1.5, 2.0, 2.7, 3.5, 4.4, 5.5])
def test_thickness_is_the_width_that_was_drawn(width):
    # Edges are found to a third of a pixel, and a stroke has two; a ring meets them in every direction.
    rings = attributes.thickness(drawn(ring(width), shifts(5)))
    np.testing.assert_allclose(rings, width, atol=0.2)
    straight = np.array([attributes.thickness(drawn(stroke(width, a), shifts(5, a))) for a in (0, 20, 45, 70, 90)])
    np.testing.assert_allclose(straight, width, atol=0.6)
    assert abs(straight.mean() - width) < 0.15


@pytest.mark.parametrize("width", [2.0, 3.5, 5.0])
def test_thickness_bears_soft_edges_and_low_contrast(width):
    sharp = drawn(ring(width), shifts(3))
    soft = np.array([gaussian_filter(picture, (0.6, 0.6, 0)) for picture in sharp])
    np.testing.assert_allclose(attributes.thickness(soft), width, atol=0.3)
    np.testing.assert_allclose(attributes.thickness(0.3 * sharp), attributes.thickness(sharp), rtol=1e-6)


def test_thickness_grows_with_the_width_in_small_steps():
    widths = np.arange(1.5, 5.5, 0.05)
    measured = attributes.thickness(np.concatenate([drawn(ring(width), [(0.1, 0.3)]) for width in widths]))
    assert np.abs(np.diff(measured)).max() < 0.2
    assert np.corrcoef(widths, measured)[0, 1] > 0.995


@pytest.mark.parametrize("shear", [-0.7, -0.2, 0.0, 0.4, 1.0])
def test_slant_is_the_angle_of_the_shear(shear):
    # Where in a pixel its ink lies is lost: that adds a variance of 1/12 to that of the height, of some 256/12.
    measured = attributes.slant(drawn(leaning(shear), shifts(4)))
    np.testing.assert_allclose(np.tan(measured), shear, atol=0.01)


def test_shearing_a_digit_by_whole_pixels_adds_exactly_that():
    x = np.pad(digits(), ((0, 0), (0, 0), (8, 8), (0, 0)))
    sheared = np.stack([np.roll(x[:, row], 4 - row, axis=1) for row in range(8)], axis=1)
    np.testing.assert_allclose(np.tan(attributes.slant(sheared)), np.tan(attributes.slant(x)) + 1, atol=1e-5)


def test_slant_is_that_of_the_moments_of_scikit_image():
    x = np.random.default_rng(1).random((7, 9, 5, 1))
    moments = np.array([moments_central(picture[..., 0], order=2) for picture in x])
    np.testing.assert_allclose(attributes.slant(x), np.arctan(-moments[:, 1, 1] / moments[:, 2, 0]), rtol=1e-5)


def test_mirrored_and_turned_digits():
    x = digits()
    thickness, slant = attributes.measure(x).T
    np.testing.assert_allclose(attributes.slant(x[:, :, ::-1]), -slant, atol=1e-6)
    np.testing.assert_allclose(attributes.slant(x[:, ::-1, ::-1]), slant, atol=1e-6)
    # The skeleton of an even stroke lies on one of the two pixels in its middle: on the other once mirrored.
    np.testing.assert_allclose(attributes.thickness(x[:, ::-1, ::-1]), thickness, atol=0.35)


def test_translation_changes_nothing():
    x = digits()
    expected = attributes.measure(x)
    for top, left in ((0, 0), (3, 9), (5, 2)):
        moved = np.zeros((len(x), 13, 17, 1), np.uint8)
        moved[:, top : top + 8, left : left + 8] = x
        measured = attributes.measure(moved)
        np.testing.assert_array_equal(measured[:, 0], expected[:, 0])
        np.testing.assert_allclose(measured[:, 1], expected[:, 1], atol=1e-5)


def test_neighbours_in_the_batch_change_nothing():
    # More than a chunk of them, with ink at the very border, next to blank, full and noisy ones.
    rng = np.random.default_rng(2)
    noise = rng.random((20, 8, 8, 1)).astype(np.float32)
    x = np.concatenate([digits() / np.float32(255), noise, np.zeros((2, 8, 8, 1)), np.ones((2, 8, 8, 1))])
    x = x[rng.permutation(len(x))].astype(np.float32)
    one_by_one = np.concatenate([attributes.measure(x[n : n + 1]) for n in range(len(x))])
    np.testing.assert_array_equal(attributes.measure(x), one_by_one)
    order = rng.permutation(len(x))
    np.testing.assert_array_equal(attributes.measure(x[order]), one_by_one[order])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bytes_and_floats_agree(dtype):
    x = digits()
    measured = attributes.measure((x / 255).astype(dtype))
    # Half precision rounds greys to about a two-thousandth, which moves an edge here and there.
    np.testing.assert_allclose(measured, attributes.measure(x), atol=0.2 if dtype == np.float16 else 1e-5)


def test_the_columns_are_those_that_the_names_say(capfd):
    x = digits()
    assert attributes.NAMES == ("thickness", "slant")
    measured = attributes.measure(x, progress=True)
    assert "60/60" in capfd.readouterr().err
    assert measured.shape == (60, 2)
    assert measured.dtype == attributes.thickness(x).dtype == attributes.slant(x).dtype == np.float32
    for column, name in enumerate(attributes.NAMES):
        np.testing.assert_array_equal(measured[:, column], getattr(attributes, name)(x))
    assert np.isfinite(measured).all()
    assert 0.7 < measured[:, 0].min() < measured[:, 0].max() < 5
    assert np.abs(measured[:, 1]).max() < 1.2
    assert attributes.measure(x[:0]).shape == (0, 2)


def test_blank_and_faint_pictures():
    faint = 0.01 * drawn(leaning(0.5), size=20)
    x = np.concatenate([np.zeros((1, 20, 20, 1)), faint])
    measured = attributes.measure(x)
    assert np.isnan(measured[0]).all()
    np.testing.assert_allclose(measured[1], [3 / np.sqrt(1.25), np.arctan(0.5)], atol=0.5)
    level = np.zeros((1, 8, 8, 1), np.uint8)
    level[0, 3, 2:6] = 200
    assert np.isnan(attributes.slant(level)).all()  # no height, no slant
    np.testing.assert_allclose(attributes.thickness(level), 1, atol=0.35)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[0.0]], r"x must be an array, got a list"),
        (np.zeros((2, 8, 8)), r"x must have shape \[N, H, W, 1\], got \(2, 8, 8\)"),
        (np.zeros((2, 8, 8, 3)), r"x must have shape \[N, H, W, 1\], got \(2, 8, 8, 3\)"),
        (np.zeros((2, 0, 8, 1)), r"x must have shape \[N, H, W, 1\], got \(2, 0, 8, 1\)"),
        (np.zeros((2, 8, 8, 1), np.int32), r"x must be uint8 or floats in \[0, 1\], got int32 values"),
        (np.full((2, 8, 8, 1), 255.0), r"x must be floats in \[0, 1\], got values from 255 to 255"),
        (np.full((2, 8, 8, 1), np.nan), r"x must be floats in \[0, 1\], got 128 NaN"),
    ],
)
def test_refusals(x, message):
    for function in (attributes.thickness, attributes.slant, attributes.measure):
        with pytest.raises(ValueError, match=message):
            function(x)
