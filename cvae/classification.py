"""Classification by Bayes' rule: a model of p(x | y) is a classifier, and its calibration can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from scipy.special import log_softmax

from cvae import checks
from cvae.conditions import Label
from cvae.evaluation import Estimate, log_likelihood, mean
from cvae.model import CVAE
from cvae.networks import Params
from cvae.preparation import Prepare

BINS = 15  # of equal width, as Guo et al. 2017
RESAMPLES = 500


def class_log_likelihoods(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    name: str = "label",
    num_samples: int = 100,
    prepare: Prepare | None = None,
    batch_size: int = 100,
    side_by_side: int = 50,
    progress: bool = False,
) -> np.ndarray:
    """Importance-sampled log p(x | y, rest of c) for every class y that the label `name` can take.

    Every class is tried with the same keys, so the noise that classes share cancels when they are compared. Whatever
    `c` holds under `name` is not read.

    Shapes: x [N, *event] as stored -> [N, num_classes], nats.
    Raises: ValueError if the model has no such label, or as `log_likelihood`.
    """
    shape = checks.shape_of("x", x)
    checks.require(len(shape) > 0, "x", "have shape [N, *event]", shape)
    checks.require(isinstance(c, Mapping), "c", "be a dict", f"a {type(c).__name__}")
    condition = model.architecture.condition if model.architecture else None
    labels = {part.name: part for part in getattr(condition, "parts", (condition,)) if isinstance(part, Label)}
    is_label = isinstance(name, str) and name in labels
    checks.require(is_label, "name", f"be a label of the model, {list(labels)}", checks.shown(name))
    columns = []
    for y in range(labels[name].num_classes):
        given = {**c, name: np.full(shape[0], y)}
        scored = log_likelihood(
            model,
            params,
            key,
            x,
            given,
            num_samples=num_samples,
            prepare=prepare,
            batch_size=batch_size,
            side_by_side=side_by_side,
            progress=progress,
        )
        columns.append(scored.value)
    return np.stack(columns, axis=1)


class Calibration(NamedTuple):
    """A reliability diagram: bins of equal width in the confidence of the predicted class."""

    confidence: np.ndarray  # [bins]  mean in the bin; NaN where it is empty
    accuracy: np.ndarray  # [bins]  share of right predictions in the bin
    examples: np.ndarray  # [bins]  how many


class Classification(NamedTuple):
    """How good and how honest a classifier is."""

    accuracy: Estimate
    negative_log_probability: Estimate  # of the true class, nats
    expected_calibration_error: Estimate  # its standard error by the bootstrap
    calibration: Calibration


def classify(class_log_likelihoods: Any, label: Any, *, log_prior: Any | None = None) -> Classification:
    """Judge the classifier argmax_y log p(x | y) + log p(y).

        p(y | x)  =  p(x | y) p(y) / sum_y' p(x | y') p(y')

    Shapes: [N, classes], [N] integers; log_prior [classes], uniform if left out.
    Raises: ValueError for shapes that do not fit, values that are not finite, or labels out of range.
    Source: expected calibration error from Guo et al. 2017, with 15 bins.
    """
    what = "real numbers, shape [N, classes]"
    scores = checks.real_numbers("class_log_likelihoods", class_log_likelihoods, what)
    label = checks.array("label", label, "integers, shape [N]")
    checks.require(scores.ndim == 2, "class_log_likelihoods", "have shape [N, classes]", scores.shape)
    checks.whole_number("class_log_likelihoods: num_classes", scores.shape[1], least=2)
    checks.require(bool(np.isfinite(scores).all()), "class_log_likelihoods", "be finite", "NaN or infinite values")
    Label(scores.shape[1]).check({"label": label}, batch=len(scores))
    if log_prior is not None:
        prior = checks.real_numbers("log_prior", log_prior, "real numbers, shape [classes]")
        checks.require(prior.shape == scores.shape[1:], "log_prior", "have a value a class", prior.shape)
        checks.require(bool(np.isfinite(prior).all()), "log_prior", "be finite", "NaN or infinite values")
        with np.errstate(over="ignore"):
            scores = scores + prior
        rule = "be finite with the class_log_likelihoods added"
        checks.require(bool(np.isfinite(scores).all()), "log_prior", rule, "infinite sums")
    log_posterior = log_softmax(scores, axis=1)
    predicted = log_posterior.argmax(axis=1)
    confidence, right = np.exp(log_posterior.max(axis=1)), predicted == label
    rng = np.random.default_rng(0)
    again = [rng.integers(0, len(label), len(label)) for _ in range(RESAMPLES)]
    errors = [_calibration_error(_calibration(confidence[rows], right[rows])) for rows in again]
    calibration = _calibration(confidence, right)
    return Classification(
        mean(right),
        mean(-log_posterior[np.arange(len(label)), label]),
        Estimate(_calibration_error(calibration), float(np.std(errors, ddof=1))),
        calibration,
    )


def _calibration(confidence: np.ndarray, right: np.ndarray) -> Calibration:
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Calibration(np.bincount(bins, confidence, BINS) / count, np.bincount(bins, right, BINS) / count, count)


def _calibration_error(calibration: Calibration) -> float:
    """Mean over examples of |accuracy - confidence| of their bin."""
    gaps = np.abs(calibration.accuracy - calibration.confidence) * calibration.examples
    return float(np.nansum(gaps) / calibration.examples.sum())
