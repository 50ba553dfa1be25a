"""Fidelity: whether generated pictures are what was asked for, and as varied as real ones. Host arrays only.

The measures know no model: the class of a picture is said by a judge, its attributes are measured on the picture.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from cvae import checks
from cvae.evaluation import Estimate, mean


def agreement(judged: Any, asked: Any) -> Estimate:
    """Share of generated pictures that a judge takes for the class they were asked to be.

    Shapes: classes [N], [N].
    Raises: ValueError for other shapes, none at all, or what is no whole number.
    """
    judged, asked = checks.classes("judged", judged), checks.classes("asked", asked)
    checks.require(asked.shape == judged.shape, "asked", f"have the shape of judged, {judged.shape}", asked.shape)
    return mean(judged == asked)


def correlation(asked: Any, measured: Any) -> list[Estimate]:
    """Pearson's r between each attribute that was asked for and what was measured on the generated picture.

    The standard error is that of normal samples, (1 - r^2) / sqrt(N - 1). A picture whose attribute cannot be
    measured (NaN) is refused rather than left out: it is a failure of the generator.

    Shapes: [N, attributes], [N, attributes] -> an estimate an attribute.
    Raises: ValueError for other shapes, fewer than 3 rows, values that are not finite, or a constant column.
    """
    what = "real numbers, shape [N, attributes]"
    asked, measured = checks.real_numbers("asked", asked, what), checks.real_numbers("measured", measured, what)
    checks.require(asked.ndim == 2 and len(asked) > 2, "asked", "have shape [N, attributes], N > 2", asked.shape)
    checks.require(measured.shape == asked.shape, "measured", f"have the shape of asked, {asked.shape}", measured.shape)
    for name, values in (("asked", asked), ("measured", measured)):
        bad = int((~np.isfinite(values)).sum())
        checks.require(bad == 0, name, "be finite", f"{bad} NaN or infinite")
        constant = np.flatnonzero(np.ptp(values, axis=0) == 0)  # a mean of equal floats may be another float
        checks.require(not constant.size, name, "vary in every column", f"constant columns {constant.tolist()}")
    estimates = []
    for column in range(asked.shape[1]):
        # In units of their own, lest the square of a number be infinite, or 0.
        pair = (_scaled(values[:, column]) for values in (asked, measured))
        r = float(np.corrcoef(list(pair))[0, 1])
        estimates.append(Estimate(r, (1 - r**2) / math.sqrt(len(asked) - 1)))
    return estimates


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values that vary, moved and scaled to lie between 0 and 1."""
    halved = values / 2 - values.min() / 2  # the distance of two floats may be none
    return np.asarray(halved / halved.max())


class Diversity(NamedTuple):
    """Mean distance between two pictures of one class."""

    overall: Estimate  # mean over the classes
    by_class: dict[int, Estimate]


def diversity(x: Any, label: Any, *, seed: int = 0) -> Diversity:
    """How far apart pictures of one class are: the mean Euclidean distance of random pairs, class by class.

    No picture is in two pairs, so that distances are independent, as their standard error takes them to be. Compare
    generated pictures with as many real ones; a collapsed generator falls short of them.

    Shapes: x [N, *event] floats in [0, 1] or uint8, label [N].
    Raises: ValueError for other shapes or dtypes, values that are not finite, or a class with fewer than two pictures.
    """
    x, label = checks.array("x", x, "pictures [N, *event]"), checks.classes("label", label)
    checks.require(x.ndim > 0, "x", "be pictures [N, *event]", "a single number")
    checks.same_length("x", len(x), "label", len(label))
    checks.seed("seed", seed)
    if x.dtype != np.uint8:
        checks.real_line("x", x)
    flat = x.reshape(len(x), -1).astype(np.float64) / (255 if x.dtype == np.uint8 else 1)
    rng = np.random.default_rng(seed)
    by_class = {}
    for k in np.unique(label).tolist():
        rows = np.flatnonzero(label == k)
        checks.require(len(rows) > 1, "label", "have two pictures of every class", f"one of class {k}")
        first, second = rng.permutation(rows)[: len(rows) // 2 * 2].reshape(2, -1)
        by_class[k] = mean(np.linalg.norm(flat[first] - flat[second], axis=1))
    values = list(by_class.values())
    error = math.sqrt(sum(v.standard_error**2 for v in values)) / len(values)
    return Diversity(Estimate(float(np.mean([v.value for v in values])), error), by_class)
