"""Generated digits of a model conditioned on the label, and how they compare with real ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

import cvae
from cvae.evaluation import Estimate
from experiments.measures import fidelity
from experiments.measures.reference_classifier import ReferenceClassifier

BATCH = 1000  # images generated at a time


def generate(
    model: cvae.CVAE, params: Any, key: jax.Array, label: np.ndarray, *, mean: bool, temperature: float = 1.0
) -> np.ndarray:
    """An image per label: z ~ p(z | y), then a draw of p(x | z, y), or its mean.

    Shapes: [N] -> [N, H, W, 1].
    """
    assert model.architecture is not None
    sample = jax.jit(cvae.sample, static_argnames=("model", "mean"))
    parts = np.array_split(label, max(1, len(label) // BATCH))
    images = []
    for each, part in zip(jax.random.split(key, len(parts)), parts, strict=True):
        arrays = {"shift": np.zeros((len(part), 2), np.float32)}
        c = {name: arrays.get(name, part) for name in model.architecture.condition.spec}
        images.append(np.asarray(sample(model, params, each, c, mean=mean, temperature=temperature)))
    return np.concatenate(images)


class Measured(NamedTuple):
    """Generated or real images by class, as the reference classifier and their distances describe them."""

    conditioning_accuracy: Estimate
    diversity: Estimate  # within a class


def measure(classifier: ReferenceClassifier, images: np.ndarray, label: np.ndarray) -> Measured:
    """Measure images that are to be of these classes.  Shapes: [N, H, W, 1], [N]."""
    accuracy = fidelity.conditioning_accuracy(classifier.predict(images), label)
    return Measured(accuracy, fidelity.diversity(images, label))
