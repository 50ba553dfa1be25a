"""Evaluation: what a model is worth on examples it was not fitted to, in nats per example, with standard errors.

Every example has its own key, folded from the one given by its row, so a score does not depend on how the set was
cut into chunks, and chunks keep memory bounded whatever the size of the set and the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp
from tqdm.auto import tqdm

from cvae import checks
from cvae.conditions import Conditions
from cvae.model import CVAE, check_examples, default_preparation
from cvae.networks import Params
from cvae.objectives import Elbo, elbo, log_weights
from cvae.preparation import Prepare

T = TypeVar("T")
ACTIVE = 0.01  # Burda et al. 2016: variance over examples above which a latent's posterior mean counts as active


class Estimate(NamedTuple):
    """A figure and its standard error."""

    value: float
    standard_error: float


def mean(values: Any) -> Estimate:
    """The mean of independent values, and its standard error, std / sqrt(N); NaN for a single one.

    Shapes: [N] -> two numbers.
    Raises: ValueError for what is not at least one real number.
    """
    values = checks.real_numbers("values", values, "real numbers, shape [N]")
    checks.require(values.ndim == 1 and values.size > 0, "values", "be real numbers, shape [N], N > 0", values.shape)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), float(error))


class Terms(NamedTuple):
    """Means over a set of examples, in nats per example."""

    loss: float  # -value; down is good
    log_likelihood: float
    kl: float


def mean_terms(terms: Elbo) -> Terms:
    """The means of an ELBO's terms over its examples."""
    return Terms(float(-terms.value.mean()), float(terms.log_likelihood.mean()), float(terms.kl.mean()))


def _over_chunks(
    score: Callable[[Array, Array, Conditions], T],
    key: Array,
    x: Any,
    c: Any,
    batch_size: int,
    bar: str | None = None,
) -> T:
    """Apply `score(keys, x, c)` to chunks of equal length, and join what it returns, on the host."""
    x, c = np.asarray(x), {name: np.asarray(value) for name, value in c.items()}
    size = len(x)
    batch_size = min(batch_size, size)
    chunks = []
    with tqdm(total=size, desc=bar, unit="ex", unit_scale=True, disable=bar is None, leave=False) as progress:
        for first in range(0, size, batch_size):
            rows = np.arange(first, first + batch_size) % size  # the last chunk is filled up from the start
            keys = _row_keys(key, rows)
            chunks.append(jax.tree.map(np.asarray, score(keys, x[rows], {name: v[rows] for name, v in c.items()})))
            progress.update(min(batch_size, size - first))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:size], *chunks)  # type: ignore[no-any-return]


@jax.jit
def _row_keys(key: Array, rows: Array) -> Array:
    return jax.vmap(partial(jax.random.fold_in, key))(rows)


def _alone(function: Callable[[Array, Array, Conditions], T], prepare: Prepare) -> Callable[..., T]:
    """A function of a batch, applied to every example by itself with its own key, as a batch of one."""

    def one(key: Array, x: Array, c: Conditions) -> T:
        prepare_key, key = jax.random.split(key)
        batch = prepare(prepare_key, x[None], {name: value[None] for name, value in c.items()})
        return function(key, *batch)

    return jax.vmap(one)


@partial(jax.jit, static_argnames=("model", "num_samples", "proposal", "prepare"))
def _elbo_of(
    model: CVAE,
    params: Params,
    keys: Array,
    x: Array,
    c: Conditions,
    *,
    num_samples: int,
    proposal: str,
    prepare: Prepare,
) -> Elbo:
    one = partial(elbo, model, params, num_samples=num_samples, proposal=proposal)
    terms = _alone(one, prepare)(keys, x, c)
    return Elbo(*(term[:, 0] for term in terms))


def evaluate(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    num_samples: int = 1,
    proposal: str = "posterior",
    prepare: Prepare | None = None,
    batch_size: int = 500,
) -> Elbo:
    """The ELBO of every example, with beta = 1: rate is its `kl`, distortion the negative `log_likelihood`.

    With `proposal="prior"` no z is inferred from x: E_{p(z | c)} log p(x | z, c); see `objectives.elbo`.

    Shapes: x [N, *event] as stored, c of length N -> Elbo of [N], on the host; `mean` makes estimates of them.
    Raises: ValueError for examples that do not suit the model, what is no key, a size that is not a whole number, or
        an unknown proposal.
    Source: rate and distortion from Alemi et al. 2018.
    """
    checks.key("key", key)
    checks.one_of("proposal", proposal, ("posterior", "prior"))
    check_examples(model, x, c)
    checks.whole_number("num_samples", num_samples)
    checks.whole_number("batch_size", batch_size)
    prepare = prepare or default_preparation(model)
    score = partial(_elbo_of, model, params, num_samples=num_samples, proposal=proposal, prepare=prepare)
    terms: Elbo = _over_chunks(score, key, x, c, batch_size)
    return terms


class LogLikelihood(NamedTuple):
    """Importance-sampled log p(x | c), one value per example."""

    value: np.ndarray  # [N]  log 1/K sum_k w_k, in nats; below log p(x | c) in expectation, and rising to it with K
    effective_samples: np.ndarray  # [N]  (sum w)^2 / sum w^2, between 1 and K


@partial(jax.jit, static_argnames=("model", "side_by_side", "proposal", "prepare"))
def _log_likelihood_of(
    model: CVAE,
    params: Params,
    keys: Array,
    x: Array,
    c: Conditions,
    *,
    num_samples: Array | int,
    side_by_side: int,
    proposal: str,
    prepare: Prepare,
) -> tuple[Array, Array]:
    turns = -(-num_samples // side_by_side)

    def sums(key: Array, x: Array, c: Conditions) -> tuple[Array, Array]:
        """Log sum w and log sum w^2 over all samples of one example."""

        def turn(number: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
            turn_key = jax.random.fold_in(key, number)
            drawn = log_weights(model, params, turn_key, x, c, num_samples=side_by_side, proposal=proposal)
            weights = drawn.value[:, 0]
            counted = number * side_by_side + jnp.arange(side_by_side) < num_samples
            weights = jnp.where(counted, weights, -jnp.inf)
            first, second = logsumexp(weights), logsumexp(2 * weights)
            return jnp.logaddexp(carried[0], first), jnp.logaddexp(carried[1], second)

        # Their number is an argument of the compiled program: any number of samples is counted by the same one.
        nothing = jnp.full((), -jnp.inf)
        first, second = lax.fori_loop(0, turns, turn, (nothing, nothing))
        return first, second

    return _alone(sums, prepare)(keys, x, c)


def log_likelihood(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    num_samples: int = 500,
    proposal: str = "posterior",
    prepare: Prepare | None = None,
    batch_size: int = 100,
    side_by_side: int = 50,
    progress: bool = False,
) -> LogLikelihood:
    """Log p(x | c) of every example by importance sampling from the posterior.

        log 1/K sum_k p(x | z_k, c) p(z_k | c) / q(z_k | x, c),   z_k ~ q(z | x, c)

    With `proposal="prior"` by plain Monte Carlo, which needs many more samples for the same bound:

        log 1/K sum_k p(x | z_k, c),   z_k ~ p(z | c)

    At most `batch_size * side_by_side` pictures are decoded at a time, and the memory needed does not grow with K.

    Shapes: x [N, *event] as stored, c of length N -> LogLikelihood of [N], on the host.
    Raises: ValueError for examples that do not suit the model, what is no key, a size that is not a whole number, or
        an unknown proposal.
    Source: Burda, Grosse & Salakhutdinov 2016; effective sample size from Kong 1992.
    """
    checks.key("key", key)
    checks.one_of("proposal", proposal, ("posterior", "prior"))
    check_examples(model, x, c)
    checks.whole_number("num_samples", num_samples)
    checks.whole_number("batch_size", batch_size)
    checks.whole_number("side_by_side", side_by_side)
    prepare = prepare or default_preparation(model)
    first, second = _over_chunks(
        partial(
            _log_likelihood_of,
            model,
            params,
            num_samples=num_samples,
            side_by_side=min(side_by_side, num_samples),
            proposal=proposal,
            prepare=prepare,
        ),
        key,
        x,
        c,
        batch_size,
        "log p(x | c)" if progress else None,
    )
    return LogLikelihood(first - math.log(num_samples), np.exp(2 * first - second))


class ActiveUnits(NamedTuple):
    """How much each latent is used."""

    variance: np.ndarray  # [Z]  over examples, of the posterior mean less the prior's
    standard_error: np.ndarray  # [Z]  of that variance
    active: int  # number of latents whose variance is above 0.01


@partial(jax.jit, static_argnames=("model", "prepare"))
def _shift_of(model: CVAE, params: Params, keys: Array, x: Array, c: Conditions, *, prepare: Prepare) -> Array:
    def shift(key: Array, x: Array, c: Conditions) -> Array:
        z, at_z = model.encode(params, x, c).draw(key)
        return at_z.mean - model.prior(params, c).given(z).mean

    return _alone(shift, prepare)(keys, x, c)[:, 0]


def active_units(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    prepare: Prepare | None = None,
    batch_size: int = 500,
) -> ActiveUnits:
    """Latents whose posterior mean depends on x.

        Var_x( E_q[z_d | x, c] - E_p[z_d | c] )  >  0.01

    With the prior N(0, I) this is Burda et al.'s; a learned prior may move the mean by c alone: that says nothing of x.
    Of a ladder, a layer's two means are those given one draw of the layers above it.

    Shapes: x [N, *event] as stored -> ActiveUnits of [Z].
    Raises: ValueError for examples that do not suit the model, what is no key, or a size that is not a whole number.
    Source: Burda, Grosse & Salakhutdinov 2016, appendix C.
    """
    checks.key("key", key)
    check_examples(model, x, c)
    checks.whole_number("batch_size", batch_size)
    prepare = prepare or default_preparation(model)
    shift = _over_chunks(partial(_shift_of, model, params, prepare=prepare), key, x, c, batch_size)
    squares = (shift.astype(np.float64) - shift.mean(axis=0)) ** 2
    variance, spread = squares.mean(axis=0), squares.std(axis=0)
    error = spread / math.sqrt(len(squares)) if len(squares) > 1 else np.full_like(spread, np.nan)
    return ActiveUnits(variance, error, int((variance > ACTIVE).sum()))
