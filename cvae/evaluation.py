"""Evaluation: what a model is worth on examples it was not fitted to, in nats per example."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from cvae import checks
from cvae.conditions import Conditions
from cvae.model import CVAE, check_examples
from cvae.networks import Params
from cvae.objectives import Elbo, elbo
from cvae.preparation import Prepare, prepare


class Terms(NamedTuple):
    """Means over a set of examples, in nats per example."""

    loss: float  # beta * kl - log_likelihood; down is good
    log_likelihood: float
    kl: float


def mean_terms(terms: Elbo) -> Terms:
    """The means of an ELBO's terms over its examples."""
    return Terms(float(-terms.value.mean()), float(terms.log_likelihood.mean()), float(terms.kl.mean()))


@partial(jax.jit, static_argnames=("model", "num_samples", "prepare"))
def _evaluate_chunk(
    model: CVAE, params: Params, key: Array, x: Array, c: Conditions, num_samples: int, prepare: Prepare
) -> Elbo:
    prepare_key, elbo_key = jax.random.split(key)
    return elbo(model, params, elbo_key, *prepare(prepare_key, x, c), num_samples=num_samples)


def evaluate(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    num_samples: int = 1,
    prepare: Prepare = prepare,
    batch_size: int = 500,
) -> Elbo:
    """The ELBO of every example, with beta = 1, in chunks of `batch_size` so that memory stays bounded.

    Every chunk has the same shape, so one compiled program serves data sets of any length.

    Shapes: x [N, *event] as stored, c of length N -> Elbo of [N], on the host.
    Raises: ValueError for examples that do not suit the model, or a size that is not a whole number.
    """
    check_examples(model, x, c)
    checks.whole_number("num_samples", num_samples)
    checks.whole_number("batch_size", batch_size)
    x, c = jax.tree.map(np.asarray, (x, c))
    size = x.shape[0]
    chunks = []
    for number, first in enumerate(range(0, size, batch_size)):
        rows = np.arange(first, first + batch_size) % size  # the last chunk is filled up from the start
        chunk = x[rows], {name: value[rows] for name, value in c.items()}
        chunk_key = jax.random.fold_in(key, number)
        chunks.append(_evaluate_chunk(model, params, chunk_key, *chunk, num_samples=num_samples, prepare=prepare))
    return jax.tree.map(lambda *terms: np.concatenate(terms)[:size], *chunks)  # type: ignore[no-any-return]
