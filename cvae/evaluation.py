"""Evaluation: what a model is worth on examples it was not fitted to, in nats per example."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

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


@partial(jax.jit, static_argnames=("model", "num_samples", "prepare", "batch_size"))
def _evaluate(
    model: CVAE,
    params: Params,
    key: Array,
    x: Array,
    c: Conditions,
    *,
    num_samples: int,
    prepare: Prepare,
    batch_size: int,
) -> Elbo:
    def one(example: tuple[Array, Array, Conditions]) -> Elbo:
        number, x, c = example
        prepare_key, elbo_key = jax.random.split(jax.random.fold_in(key, number))
        batch = prepare(prepare_key, x[None], {name: value[None] for name, value in c.items()})
        return Elbo(*(term[0] for term in elbo(model, params, elbo_key, *batch, num_samples=num_samples)))

    return Elbo(*lax.map(one, (jnp.arange(x.shape[0]), x, c), batch_size=batch_size))


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

    Each example has a key of its own, from its number, so the result does not depend on the chunks.

    Shapes: x [N, *event] as stored, c of length N -> Elbo of [N].
    Raises: ValueError for examples that do not suit the model, or a size that is not a whole number.
    """
    check_examples(model, x, c)
    checks.whole_number("num_samples", num_samples)
    checks.whole_number("batch_size", batch_size)
    x, c = jax.device_put((x, c))
    batch_size = min(batch_size, x.shape[0])
    return _evaluate(  # type: ignore[no-any-return]
        model, params, key, x, c, num_samples=num_samples, prepare=prepare, batch_size=batch_size
    )
