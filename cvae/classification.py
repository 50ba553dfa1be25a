"""Classification by Bayes' rule: a model of p(x | y) is a classifier with an accuracy and a calibration."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jax import Array
from scipy.special import log_softmax

from cvae import checks
from cvae.checks import Spec
from cvae.conditions import Label, Optional
from cvae.config import parts_of
from cvae.evaluation import Estimate, log_likelihood, mean
from cvae.model import CVAE
from cvae.networks import Params

BINS = 15  # of equal width; Guo et al. 2017
RESAMPLES = 500  # of the bootstrap


def class_log_likelihoods(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    name: str = "label",
    num_samples: int = 100,
    proposal: str = "posterior",
    batch_size: int = 100,
    progress: bool = False,
) -> np.ndarray:
    """Importance-sampled log p(x | y, rest of c) of every class y of the label `name`.

    All classes are scored with the same keys, so the noise that they share cancels in comparisons. An entry `name` of
    `c` is ignored.

    Shapes: x [N, *event], c of length N -> [N, num_classes], in nats.
    Raises: ValueError if the model has no such label, or as `log_likelihood`.
    """
    labels = labels_of(model.architecture.condition if model.architecture else None)
    checks.require(name in labels, "name", f"be a label of the model, one of {list(labels)}", checks.shown(name))
    size = checks.shape_of("x", x)[:1]
    scores = [
        log_likelihood(
            model, params, key, x, {**c, name: np.full(size, y)},
            num_samples=num_samples, proposal=proposal, batch_size=batch_size, progress=progress,
        ).value
        for y in range(labels[name].num_classes)
    ]  # fmt: skip
    return np.stack(scores, axis=1)


def labels_of(condition: Any) -> dict[str, Label]:
    """The labels among the parts of a condition by name, those that may be missing too."""
    bases = [part.base if isinstance(part, Optional) else part for part in parts_of(condition)]
    return {base.name: base for base in bases if isinstance(base, Label)}


class Calibration(NamedTuple):
    """A reliability diagram: bins of equal width in the confidence of the predicted class."""

    confidence: np.ndarray  # [bins]  mean over the bin; NaN where it is empty
    accuracy: np.ndarray  # [bins]  share of correct predictions
    examples: np.ndarray  # [bins]  count

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over examples of |accuracy - confidence| of their bin."""
        gaps = np.abs(self.accuracy - self.confidence) * self.examples
        return float(np.nansum(gaps) / self.examples.sum())


class Classification(NamedTuple):
    """Accuracy and calibration of a classifier."""

    accuracy: Estimate
    negative_log_probability: Estimate  # of the true class, in nats
    expected_calibration_error: Estimate  # its standard error by the bootstrap
    calibration: Calibration


def classify(class_log_likelihoods: Any, label: Any, *, log_prior: Any | None = None) -> Classification:
    """Evaluate the classifier argmax_y log p(x | y) + log p(y).

        p(y | x)  =  p(x | y) p(y) / sum_y' p(x | y') p(y')

    Shapes: [N, classes], [N] integers; log_prior [classes], uniform by default.
    Raises: ValueError for arrays of another shape, values that are not finite, or labels out of range.
    References: expected calibration error from Guo et al. 2017.
    """
    scores = class_log_likelihoods
    shape = checks.shape_of("class_log_likelihoods", scores)
    rule = "have shape [N, classes], two classes or more"
    checks.require(len(shape) == 2 and shape[1] > 1, "class_log_likelihoods", rule, shape)
    batch = Spec(shape[1:]).check("class_log_likelihoods", scores)
    Spec((), "integer", 0, shape[1]).check("label", label, batch)
    scores, label = np.asarray(scores, np.float64), np.asarray(label)
    if log_prior is not None:
        prior_shape = checks.shape_of("log_prior", log_prior)
        checks.require(prior_shape == shape[1:], "log_prior", f"have shape {list(shape[1:])}", prior_shape)
        Spec(()).check("log_prior", log_prior)
        scores = scores + np.asarray(log_prior, np.float64)
    log_posterior = log_softmax(scores, axis=1)
    confidence, correct = np.exp(log_posterior.max(axis=1)), log_posterior.argmax(axis=1) == label
    calibration = _calibration(confidence, correct)
    rng = np.random.default_rng(0)
    resampled = (rng.integers(0, batch, batch) for _ in range(RESAMPLES))
    errors = [_calibration(confidence[rows], correct[rows]).error for rows in resampled]
    return Classification(
        mean(correct),
        mean(-log_posterior[np.arange(batch), label]),
        Estimate(calibration.error, float(np.std(errors, ddof=1))),
        calibration,
    )


def _calibration(confidence: np.ndarray, correct: np.ndarray) -> Calibration:
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Calibration(np.bincount(bins, confidence, BINS) / count, np.bincount(bins, correct, BINS) / count, count)
