"""Imputation: what an example that is seen in part says of the rest, by importance samples of p(z | x, c).

An encoder is not the exact posterior, so draws of q(z | x, c) are weighted,

    w_k  =  p(x | z_k, c) p(z_k | c) / q(z_k | x, c),

where p(x | z, c) is the density of the elements that are there. Everything here is an average with these weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae import checks
from cvae.conditions import Conditions
from cvae.distributions import Distribution
from cvae.evaluation import over_examples
from cvae.model import CVAE, check_examples
from cvae.networks import Params
from cvae.origin import restored

INTERVAL = 0.9  # probability of the interval of an imputed element
INTERVAL_DRAWS = 200  # from which it is estimated, at least


class Imputation(NamedTuple):
    """Missing elements of x given the observed ones; where x is observed, every field holds x itself."""

    draws: np.ndarray  # [N, draws, *event]  of p(missing | observed, c)
    mean: np.ndarray  # [N, *event]  expected value; of categories the most probable
    low: np.ndarray  # [N, *event]  below it, 5 % of the probability
    high: np.ndarray  # [N, *event]  above it, 5 %
    share: np.ndarray  # [N, *event]  share of draws that equal the rounded mean: of a category, its probability
    effective_samples: np.ndarray  # [N]  of the importance weights, between 1 and num_samples


def impute(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    num_draws: int = 20,
    num_samples: int = 500,
    batch_size: int = 50,
    progress: bool = False,
) -> Imputation:
    """Draw the missing elements of x, those that are NaN, from p(missing | observed, c).

        p(missing | observed, c)  =  E_{p(z | observed, c)} p(missing | z, c)

    By sampling importance resampling: `num_samples` draws of q(z | observed, c) are weighted, some are drawn again with
    probabilities proportional to the weights, and each is decoded into a draw of x. The mean takes the mean of
    p(x | z, c) in place of a draw, and all the weights (Rao-Blackwell). Where `effective_samples` is small, draws
    repeat each other and intervals are too narrow; more samples mend it. Right where elements are missing at random.

    Shapes: x [N, *event] with NaN, c of length N -> Imputation.
    Raises: ValueError if the model has no `Missing` likelihood, or as `over_examples`.
    References: Mattei and Frellsen 2019, MIWAE, section 4.
    """
    checks.integer("num_draws", num_draws)
    checks.integer("num_samples", num_samples)
    _check_model(model)
    x, c = check_examples(model.architecture, x, c)
    options = {"num_draws": num_draws, "num_samples": num_samples}
    title = "impute" if progress else None
    found: Imputation = over_examples(
        _impute, model, params, key, x, c, batch_size=batch_size, progress=title, **options
    )
    values = np.asarray(x, np.float64)
    missing = np.isnan(values)
    draws = np.where(missing[:, None], restored(model, found.draws), values[:, None])
    mean, low, high = (np.where(missing, restored(model, part), values) for part in (found.mean, found.low, found.high))
    return Imputation(draws, mean, low, high, np.where(missing, found.share, 1.0), found.effective_samples)


def _check_model(model: CVAE) -> None:
    condition = None if model.architecture is None else model.architecture.condition
    image = any(spec.kind in ("pixels", "mask") for spec in condition.spec.values()) if condition is not None else False
    rule = "have missing elements in x (the hidden part given an image condition is drawn by cvae.sample)"
    checks.require(not image, "model", rule, condition)
    if model.architecture is not None:
        spec = model.architecture.likelihood.spec(model.architecture.event_shape)
        rule = "have a likelihood cvae.Missing (fit it to examples with missing elements, or with a hide_prob)"
        checks.require(spec.missing, "model", rule, checks.shown(type(model.architecture.likelihood).__name__))


def _impute(
    model: CVAE, params: Params, key: Array, x: Array, c: Conditions, *, num_draws: int, num_samples: int
) -> Imputation:
    """The imputation of one example, [1, *event]."""
    posterior_key, choice_key, x_key = jax.random.split(key, 3)
    z, px, log_weights = _weighted(model, params, posterior_key, x, c, num_samples)
    count = max(num_draws, INTERVAL_DRAWS)
    chosen = _resampled(choice_key, log_weights, count)
    drawn = model.decode(params, z[chosen], _repeated(c, count)).sample(x_key)
    mean = px.mixture_mean(jax.nn.softmax(log_weights))
    # Between order statistics k and k' of n draws lies the probability (k' - k) / (n + 1) on average.
    tails = np.array([(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    low, high = jnp.quantile(drawn, jnp.asarray((tails * (count + 1) - 1) / (count - 1), drawn.dtype), axis=0)
    share = (drawn == jnp.rint(mean)).mean(axis=0)
    effective = _effective_samples(log_weights)
    found = Imputation(drawn[:num_draws], mean, low, high, share, effective)  # type: ignore[arg-type]
    return jax.tree.map(lambda part: part[None], found)  # type: ignore[no-any-return]


def contributions(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    num_samples: int = 100,
    relative: bool = False,
    batch_size: int = 100,
    progress: bool = False,
) -> np.ndarray:
    """How much every element contributes to the expected log likelihood of its example, in nats.

        E_{p(z | x, c)} log p(x_d | z, c)

    With `relative=True` less what an element that the model draws contributes, E_{p(z | x, c) p(x' | z, c)} log p(x'_d
    | z, c): 0 is then usual, and an element far below is what makes the example improbable. Missing elements contribute
    0.

    Shapes: x [N, *event], c of length N -> [N, *event].
    Raises: ValueError as `over_examples`.
    """
    checks.integer("num_samples", num_samples)
    title = "contributions" if progress else None
    terms: np.ndarray = over_examples(
        _contributions, model, params, key, x, c,
        batch_size=batch_size, progress=title, num_samples=num_samples, relative=bool(relative),
    )  # fmt: skip
    return terms


def _contributions(
    model: CVAE, params: Params, key: Array, x: Array, c: Conditions, *, num_samples: int, relative: bool
) -> Array:
    _, px, log_weights = _weighted(model, params, key, x, c, num_samples)
    terms = px.log_terms(px.cast(x))
    if relative:
        drawn = px.sample(jax.random.fold_in(key, num_samples))
        terms = jnp.where(jnp.isnan(x), 0, terms - px.log_terms(px.cast(drawn)))
    return _average(log_weights, jnp.broadcast_to(terms, (num_samples, *x.shape[1:])))[None]


class Encoding(NamedTuple):
    """Mean and standard deviation of q(z | x, c)."""

    mean: np.ndarray  # [N, Z]
    std: np.ndarray  # [N, Z]


def posterior_moments(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    num_samples: int = 50,
    batch_size: int = 500,
    progress: bool = False,
) -> Encoding:
    """Mean and standard deviation of q(z | x, c): exact for one layer of latents, by `num_samples` draws of a ladder.

    Shapes: x [N, *event], c of length N -> Encoding of [N, Z].
    Raises: ValueError as `over_examples`.
    """
    checks.integer("num_samples", num_samples)
    layers = 1 if model.architecture is None else model.architecture.latent_layers
    title, count = "encode" if progress else None, 1 if layers == 1 else num_samples
    moments: Encoding = over_examples(
        _posterior_moments, model, params, key, x, c, batch_size=batch_size, progress=title, num_samples=count
    )
    return moments


def _posterior_moments(
    model: CVAE, params: Params, key: Array, x: Array, c: Conditions, *, num_samples: int
) -> Encoding:
    q = model.encode(params, x, c)
    normals = jax.vmap(lambda key: q.sample_with_conditional(key)[1])(jax.random.split(key, num_samples))
    variance = (normals.std**2).mean(axis=0) + normals.mean.var(axis=0)
    return Encoding(normals.mean.mean(axis=0), jnp.sqrt(variance))  # type: ignore[arg-type]


# Weighted draws of one example


def _weighted(
    model: CVAE, params: Params, key: Array, x: Array, c: Conditions, num_samples: int
) -> tuple[Array, Distribution, Array]:
    """Draws of q(z | x, c), their p(x | z, c) as a batch, and their log weights.

    Shapes: x [1, *event] -> z [K, Z], a density over [K, *event], [K].
    """
    q, p = model.encode(params, x, c), model.prior(params, c)

    def one(key: Array) -> tuple[Array, Array]:
        z, q_z = q.sample_with_conditional(key)
        return z[0], (p.conditional(z).log_prob(z) - q_z.log_prob(z))[0]

    z, log_ratio = jax.vmap(one)(jax.random.split(key, num_samples))
    px = model.decode(params, z, _repeated(c, num_samples))
    return z, px, px.log_prob(x) + log_ratio


def _repeated(c: Conditions, count: int) -> Conditions:
    """The conditions of one example, for so many draws."""
    return {name: jnp.broadcast_to(values, (count, *values.shape[1:])) for name, values in c.items()}


def _resampled(key: Array, log_weights: Array, count: int) -> Array:
    """Numbers of draws with probabilities proportional to the weights, with replacement.  Shapes: [K] -> [count].

    By the inverse of the cumulative weights: `jax.random.categorical` would draw K random numbers for each.
    """
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights))
    uniform = jax.random.uniform(key, (count,), log_weights.dtype) * cumulative[-1]
    return jnp.clip(jnp.searchsorted(cumulative, uniform, side="right"), 0, len(log_weights) - 1)


def _average(log_weights: Array, values: Array) -> Array:
    """The weighted mean over draws.  Shapes: [K], [K, ...] -> [...]."""
    return jnp.tensordot(jax.nn.softmax(log_weights), values, axes=1, precision=jax.lax.Precision.HIGHEST)


def _effective_samples(log_weights: Array) -> Array:
    """(sum w)^2 / sum w^2.  Shapes: [K] -> []."""
    return 1 / (jax.nn.softmax(log_weights) ** 2).sum()
