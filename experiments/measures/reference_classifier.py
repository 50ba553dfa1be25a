"""A reference classifier of digits, to tell which class a generated image shows.

It shares nothing with a CVAE: histograms of oriented gradients (HOG), their principal components, and a support vector
machine with a Gaussian kernel, trained on real images only.

Trained on MNIST's 55,000 training images, in 46 seconds of one core, it is right for 99.34 % of the validation images
and 99.33 % of the test images, and for 98.97 % of the test images after a Gaussian blur of 0.7 pixels, as soft as means
of a decoder may be. On the 8x8 digits it is right for 299 of 300 test images. The settings were chosen by accuracy on
MNIST's validation images after training on 10,000 images: there, 9 or 16 orientations, a third of the penalty, no
resizing, more blocks and a blur before HOG were no better, the closest by less than 0.1 %.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from skimage.feature import hog
from skimage.transform import resize
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from cvae import checks

SIZE = 56  # pixels to which every side is resized; twice MNIST's, so that edges fall between cells gradually
CELLS = 7  # per side
ORIENTATIONS = 12
COMPONENTS = 100
PENALTY = 10.0


class ReferenceClassifier(NamedTuple):
    """A classifier trained on images of one shape."""

    event_shape: tuple[int, ...]  # (H, W, 1)
    pipeline: Pipeline

    def predict(self, x: Any) -> np.ndarray:
        """Predict the class of every image.  Shapes: [N, H, W, 1], uint8 or floats in [0, 1] -> [N], integers."""
        return np.asarray(self.pipeline.predict(_grey(x, self.event_shape)))

    def accuracy(self, x: Any, label: np.ndarray) -> float:
        """Return the share of images whose predicted class is `label`.  Shapes: [N, H, W, 1], [N] -> ()."""
        _check_label(label, len(x))
        return float(np.mean(self.predict(x) == label))


def train(x: Any, label: np.ndarray, seed: int = 0) -> ReferenceClassifier:
    """Train a reference classifier on real images.

    Args:
        x: images [N, H, W, 1], uint8 255ths or floats in [0, 1].
        label: integers [N], the classes.
        seed: seed of the randomised PCA that is used for small training sets.

    References:
        Dalal & Triggs 2005, Histograms of oriented gradients for human detection.
    """
    event_shape = (*checks.shape_of("x", x)[1:3], 1)
    grey = _grey(x, event_shape)
    _check_label(label, len(x))
    components = PCA(min(COMPONENTS, len(x)), random_state=checks.integer("seed", seed, least=0))
    pipeline = make_pipeline(FunctionTransformer(_features), components, SVC(C=PENALTY))
    return ReferenceClassifier(event_shape, pipeline.fit(grey, label))


def _grey(x: Any, event_shape: tuple[int, ...]) -> np.ndarray:
    """Check images and return them as floats in [0, 1]: [N, H, W, 1] -> [N, H, W]."""
    pixels = checks.Spec(event_shape, "pixels", 0, 1)
    pixels.check("x", x)
    return np.asarray(pixels.cast(x), np.float32)[..., 0]


def _check_label(label: np.ndarray, batch: int) -> None:
    checks.Spec((), "integer", 0, 2**31).check("label", label, batch)


def _features(grey: np.ndarray) -> np.ndarray:
    """HOG of every image.  Shapes: [N, H, W] -> [N, CELLS * CELLS * ORIENTATIONS]."""
    # A single block covers the image: normalising it removes contrast, and its root lessens the weight of strong edges.
    settings = {
        "orientations": ORIENTATIONS,
        "pixels_per_cell": (SIZE // CELLS, SIZE // CELLS),
        "cells_per_block": (CELLS, CELLS),
        "block_norm": "L1-sqrt",
    }
    resized = (resize(image, (SIZE, SIZE)) for image in grey)  # type: ignore[no-untyped-call]
    return np.array([hog(image, **settings) for image in resized], np.float32)
