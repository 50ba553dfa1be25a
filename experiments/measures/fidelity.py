"""Fidelity: whether generated images follow their condition, and whether they vary as real images do.

The measures know no model. Host arrays in, estimates with standard errors out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cvae import checks
from cvae.evaluation import Estimate, mean

_CLASSES = checks.Spec((), "integer", 0, 2**31)


def conditioning_accuracy(predicted: Any, requested: Any) -> Estimate:
    """Share of generated images whose predicted class is the class they were conditioned on.

    Shapes: integers [N], [N].
    """
    predicted, requested = np.asarray(predicted), np.asarray(requested)
    checks.require(requested.shape == predicted.shape, "requested", f"have shape {predicted.shape}", requested.shape)
    _CLASSES.check("predicted", predicted)
    _CLASSES.check("requested", requested)
    return mean(predicted == requested)


def correlation(requested: Any, measured: Any) -> list[Estimate]:
    """Pearson's r between each requested attribute and the one measured on the generated image.

    The standard error is that of normal samples, (1 - r^2) / sqrt(N - 1). An attribute that cannot be measured (NaN)
    raises an error rather than being left out: it is a failure of the generator.

    Shapes: [N, attributes], [N, attributes] -> one estimate per attribute.
    """
    requested, measured = np.asarray(requested, np.float64), np.asarray(measured, np.float64)
    shape = requested.shape
    checks.require(len(shape) == 2 and len(requested) > 2, "requested", "have shape [N, attributes], N > 2", shape)
    checks.require(measured.shape == shape, "measured", f"have the shape of requested, {shape}", measured.shape)
    for name, values in (("requested", requested), ("measured", measured)):
        invalid = np.count_nonzero(~np.isfinite(values))
        checks.require(invalid == 0, name, "be finite", f"{invalid} NaN or infinite values")
        constant = np.flatnonzero(np.ptp(values, axis=0) == 0)
        checks.require(constant.size == 0, name, "vary in every column", f"constant columns {constant.tolist()}")
    estimates = []
    for column in range(shape[1]):
        r = float(np.corrcoef(requested[:, column], measured[:, column])[0, 1])
        estimates.append(Estimate(r, (1 - r**2) / math.sqrt(len(requested) - 1)))
    return estimates


def diversity(x: Any, label: Any, seed: int = 0) -> Estimate:
    """Mean Euclidean distance between two images of the same class, averaged over the classes with equal weight.

    Images are paired at random, each at most once, so that the distances are independent, as the standard error
    assumes. Compare generated images with the same number of real ones: a collapsed generator has a smaller diversity.

    Shapes: x [N, *event], uint8 255ths or floats; label [N], integers, each class at least twice.
    """
    pixels, label = checks.Spec(checks.shape_of("x", x)[1:], "pixels"), np.asarray(label)
    batch = pixels.check("x", x)
    _CLASSES.check("label", label, batch)
    flat = np.asarray(pixels.cast(x), np.float64).reshape(batch, -1)
    rng = np.random.default_rng(checks.integer("seed", seed, least=0))
    by_class = []
    for k in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == k))
        checks.require(len(rows) > 1, "label", "hold every class at least twice", f"one example of class {k}")
        half = len(rows) // 2
        by_class.append(mean(np.linalg.norm(flat[rows[:half]] - flat[rows[half : 2 * half]], axis=1)))
    error = math.sqrt(sum(estimate.standard_error**2 for estimate in by_class)) / len(by_class)
    return Estimate(float(np.mean([estimate.value for estimate in by_class])), error)
