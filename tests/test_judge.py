"""The judge of generated digits: what it reads, on the small digits that every machine has."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cvae import data
from experiments import judge


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def reader(digits):
    return judge.train(*digits.train)


def test_it_reads_digits_it_has_not_seen(reader, digits):
    assert reader.accuracy(*digits.test) >= 0.97
    predicted = reader.predict(digits.test.x)
    assert predicted.shape == (300,)
    assert np.issubdtype(predicted.dtype, np.integer)
    assert reader.accuracy(digits.test.x, predicted) == 1


def test_it_reads_floats_faint_ink_and_soft_ink(reader, digits):
    x = digits.test.x.astype(np.float32) / 255
    np.testing.assert_array_equal(reader.predict(x), reader.predict(digits.test.x))
    np.testing.assert_array_equal(reader.predict(x / 2), reader.predict(x))
    soft = gaussian_filter(x, (0, 0.5, 0.5, 0)).clip(0, 1)
    assert reader.accuracy(soft, digits.test.label) >= 0.95


def test_it_is_at_a_loss_without_ink(reader, digits):
    blank = reader.predict(np.zeros_like(digits.test.x))
    assert len(set(blank)) == 1


def test_pictures_are_read_one_by_one(reader, digits, monkeypatch):
    together = reader.predict(digits.test.x)
    monkeypatch.setattr(judge, "ROWS", 7)
    np.testing.assert_array_equal(reader.predict(digits.test.x[::-1])[::-1], together)


def test_the_same_pictures_make_the_same_judge(reader, digits):
    again = judge.train(*digits.train)
    np.testing.assert_array_equal(again.predict(digits.validation.x), reader.predict(digits.validation.x))


def test_strokes_do_not_depend_on_which_side_is_longer():
    ink = np.random.default_rng(2).random((3, 12, 15), np.float32)
    directions, cells = judge.DIRECTIONS, judge.CELLS
    upright = judge._strokes(ink).reshape(3, directions, cells, cells)
    lying = judge._strokes(ink.swapaxes(1, 2)).reshape(3, directions, cells, cells)
    # Transposing a picture mirrors its directions about the diagonal: turn t becomes a quarter less t.
    mirrored = (directions // 4 - np.arange(directions)) % directions
    np.testing.assert_allclose(lying, upright[:, mirrored].swapaxes(2, 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (np.zeros((2, 9, 8, 1), np.uint8), r"x must have shape \[B, 8, 8, 1\], got \(2, 9, 8, 1\)"),
        (np.zeros((2, 8, 8), np.uint8), r"x must have shape \[B, 8, 8, 1\]"),
        (np.zeros((0, 8, 8, 1), np.uint8), "x must hold at least one example"),
        (np.full((2, 8, 8, 1), 16.0), r"x must be floats in \[0, 1\]"),
        (np.full((2, 8, 8, 1), np.nan), r"x must be floats in \[0, 1\]"),
        (np.zeros((2, 8, 8, 1), np.int64), r"x must be floats in \[0, 1\]"),
    ],
)
def test_what_it_cannot_read(reader, x, match):
    with pytest.raises(ValueError, match=match):
        reader.predict(x)


def test_what_it_cannot_learn_from(digits, reader):
    x, label = digits.train
    with pytest.raises(ValueError, match=r"x must have shape \[N, H, W, 1\], got \(1297, 8, 8\)"):
        judge.train(x[..., 0], label)
    with pytest.raises(ValueError, match=r"x must have shape \[B, 8, 8, 1\]"):
        judge.train(x.repeat(3, -1), label)
    with pytest.raises(ValueError, match="label must hold one entry an example of x, 1297 of them, got 5"):
        judge.train(x, label[:5])
    with pytest.raises(ValueError, match="label must hold one entry"):
        reader.accuracy(x, label[:5])
    with pytest.raises(ValueError, match="seed must be"):
        judge.train(x, label, seed=-1)
