"""The reference classifier on the 8x8 digits, which every machine has."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cvae import data
from experiments.measures import reference_classifier


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def classifier(digits):
    return reference_classifier.train(*digits.train)


def test_it_generalises(classifier, digits):
    assert classifier.accuracy(*digits.test) >= 0.97
    predicted = classifier.predict(digits.test.x)
    assert predicted.shape == (300,)
    assert np.issubdtype(predicted.dtype, np.integer)
    assert classifier.accuracy(digits.test.x, predicted) == 1
    assert classifier.accuracy(digits.test.x, (predicted + 1) % 10) == 0


def test_it_is_robust_to_dtype_contrast_and_blur(classifier, digits):
    x = digits.test.x.astype(np.float32) / 255
    predicted = classifier.predict(digits.test.x)
    np.testing.assert_array_equal(classifier.predict(x), predicted)
    np.testing.assert_array_equal(classifier.predict(x / 2), predicted)
    soft = gaussian_filter(x, (0, 0.5, 0.5, 0)).clip(0, 1)
    assert classifier.accuracy(soft, digits.test.label) >= 0.95


def test_every_image_is_classified_independently(classifier, digits):
    together = classifier.predict(digits.test.x[:20])
    np.testing.assert_array_equal([classifier.predict(x[None])[0] for x in digits.test.x[:20]], together)


def test_training_is_reproducible(digits):
    few = digits.train.x[:150], digits.train.label[:150]
    one, two = (reference_classifier.train(*few).predict(digits.validation.x) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_images_need_not_be_square():
    """Horizontal against vertical bars on 9x14 images, from few examples; blank images are classified too."""
    rng = np.random.default_rng(3)
    x, label = np.zeros((40, 9, 14, 1), np.uint8), np.arange(40) % 2
    for image, vertical in zip(x, label, strict=True):
        start = rng.integers(2, 6)
        image[(slice(1, 8), start) if vertical else (start, slice(2, 12))] = rng.integers(100, 256)
    classifier = reference_classifier.train(x[:30], label[:30])
    assert classifier.accuracy(x[30:], label[30:]) == 1
    assert len(set(classifier.predict(np.zeros_like(x)))) == 1


def test_invalid_arguments_raise(classifier, digits):
    x, label = digits.train
    with pytest.raises(ValueError, match=r"x must have shape \[B, 8, 8, 1\], got \(2, 9, 8, 1\)"):
        classifier.predict(np.zeros((2, 9, 8, 1), np.uint8))
    with pytest.raises(ValueError, match=r"x must have shape \[B, 8, 8, 1\]"):
        reference_classifier.train(x.repeat(3, -1), label)
    with pytest.raises(ValueError, match="label must hold one entry per example of x, 1297, got 5"):
        reference_classifier.train(x, label[:5])
    with pytest.raises(ValueError, match="label must hold one entry per example"):
        classifier.accuracy(x, label[:5])
