"""Evaluation: measures of a model on a data set, in nats per example, with standard errors.

`over_examples` applies a function of one example to a whole data set in bounded memory. Every example has its own key,
folded from the one given by its row, so a score does not depend on the batch size; each measure is then its formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from tqdm.auto import tqdm

from cvae import checks
from cvae.conditions import Conditions
from cvae.devices import DATA, gathered, mesh_for, on, put
from cvae.keys import threefry
from cvae.model import CVAE, as_floats, check_examples
from cvae.networks import Params
from cvae.objectives import Elbo, ImportanceEstimate, elbo, importance_estimate
from cvae.origin import at_origin
from cvae.progress import bar_options

ACTIVE = 0.01  # variance over examples above which a latent counts as active; Burda et al. 2016


class Estimate(NamedTuple):
    """A mean and its standard error."""

    value: float
    standard_error: float


def mean(values: Any) -> Estimate:
    """The mean of independent values, and its standard error, std / sqrt(N); NaN for a single one.

    Shapes: [N] -> two numbers.
    Raises: ValueError for what is not at least one real number.
    """
    values = np.asarray(values, np.float64)
    checks.require(values.ndim == 1 and values.size > 0, "values", "be real numbers, shape [N], N > 0", values.shape)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), float(error))


@partial(jax.jit, static_argnames=("function", "model", "options"))
def _apply(
    function: Callable[..., Any],
    model: CVAE,
    options: tuple[tuple[str, Any], ...],
    params: Params,
    key: Array,
    rows: Array,
    x: Array,
    c: Conditions,
) -> Any:
    def one(row: Array, x: Array, c: Conditions) -> Any:
        example = as_floats(model.architecture, *jax.tree.map(lambda values: values[None], (x, c)))
        result = function(model, params, jax.random.fold_in(key, row), *example, **dict(options))
        return jax.tree.map(lambda values: values[0], result)

    return gathered(jax.vmap(one)(rows, x, c))


def over_examples(
    function: Callable[..., Any],
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    batch_size: int = 500,
    progress: str | None = None,
    **options: Any,
) -> Any:
    """Apply a function of one example to every example of a data set, and stack what it returns on the host.

    Args:
        function: called as `function(model, params, key, x, c, **options)` on batches of one example, [1, *event], with
            a key of its own; returns a tree of arrays [1, ...]. Every function of `objectives` is one. Compiled once
            per function and options, so pass a function defined once, not a new lambda.
        model: the model.
        params: its parameters.
        key: the source of randomness; example number n has the key `fold_in(key, n)`.
        x: examples, [N, *event].
        c: their conditions, each of length N.
        batch_size: examples computed at a time.
        progress: title of a progress bar; None draws none.
        options: passed to the function; hashable.

    Returns:
        The function's results, their leading axis N instead of 1, as NumPy arrays.

    Raises:
        ValueError: examples do not suit the model, or an argument is out of its range.
    """
    checks.key("key", key)
    checks.integer("batch_size", batch_size)
    x, c = check_examples(model.architecture, x, c)
    model, x, c = at_origin(model, x, c)
    key, size = threefry(key), x.shape[0]
    mesh = mesh_for()
    data = mesh.shape[DATA]
    batch_size = -(-min(batch_size, size) // data) * data
    apply, (params, key) = on(mesh, _apply), put(mesh, (params, key))
    fixed, chunks = tuple(sorted(options.items())), []
    bar = tqdm(total=size, desc=progress, unit="ex", unit_scale=True, leave=False, **bar_options(progress is not None))
    with bar:
        for first in range(0, size, batch_size):
            rows = np.arange(first, first + batch_size) % size  # the last batch is filled up from the start
            batch = rows, *jax.tree.map(lambda values: values[rows], (x, dict(c)))  # noqa: B023
            results = apply(function, model, fixed, params, key, *put(mesh, batch, DATA))
            chunks.append(jax.tree.map(np.asarray, results))
            bar.update(min(batch_size, size - first))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:size], *chunks)


def evaluate(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    num_samples: int = 1,
    proposal: str = "posterior",
    batch_size: int = 500,
) -> Elbo:
    """The ELBO of every example, with beta = 1: rate is its `kl`, distortion the negative `log_likelihood`.

    Shapes: x [N, *event], c of length N -> Elbo of [N], on the host; `mean` makes estimates of them.
    Raises: ValueError as `elbo` and `over_examples`.
    References: rate and distortion from Alemi et al. 2018.
    """
    options: dict[str, Any] = {"num_samples": num_samples, "proposal": proposal}
    terms: Elbo = over_examples(elbo, model, params, key, x, c, batch_size=batch_size, **options)
    return terms


def log_likelihood(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    *,
    num_samples: int = 500,
    proposal: str = "posterior",
    batch_size: int = 100,
    progress: bool = False,
) -> ImportanceEstimate:
    """Log p(x | c) of every example by importance sampling, a lower bound in expectation; see `importance_estimate`.

    The bound is loose where `effective_samples` is small; that its value no longer changes with the number of samples
    is no proof that it is tight. The proposal "mixture" is safer, "prior" is plain Monte Carlo.

    Shapes: x [N, *event], c of length N -> ImportanceEstimate of [N], on the host.
    Raises: ValueError as `log_weights` and `over_examples`.
    """
    title = "log p(x | c)" if progress else None
    options: dict[str, Any] = {"num_samples": num_samples, "proposal": proposal}
    scored: ImportanceEstimate = over_examples(
        importance_estimate, model, params, key, x, c, batch_size=batch_size, progress=title, **options
    )
    return scored


class ActiveUnits(NamedTuple):
    """How much each latent is used."""

    variance: np.ndarray  # [Z]  over examples, of the posterior mean relative to the prior
    standard_error: np.ndarray  # [Z]  of that variance
    active: int  # number of latents whose variance is above 0.01


def posterior_shift(model: CVAE, params: Params, key: Array, x: Array, c: Conditions) -> Array:
    """Posterior mean less prior mean, in units of the prior's standard deviation, given each of two draws of z.

    Shapes: x [B, *event] -> [B, 2, Z]; the two are equal where there is one layer of latents.
    """
    q, p = model.encode(params, x, c), model.prior(params, c)

    def one(key: Array) -> Array:
        z, q_z = q.sample_with_conditional(key)
        p_z = p.conditional(z)
        return (q_z.mean - p_z.mean) / p_z.std

    return jax.vmap(one, out_axes=1)(jax.random.split(key))


def active_units(model: CVAE, params: Params, key: Array, x: Any, c: Any, *, batch_size: int = 500) -> ActiveUnits:
    """Latents whose posterior depends on x.

        Var_x E[ (E_q[z_d | x, c, z above] - E_p[z_d | c, z above]) / s_p ]  >  0.01

    With the prior N(0, I) this is the measure of Burda et al.; a learned prior may move the mean by c alone, or scale
    it, which says nothing of x. In a ladder, a layer's means are given a draw of those above it; the variance is
    estimated by the covariance of two such draws, so that variation of the draws themselves is not counted.

    Shapes: x [N, *event] -> ActiveUnits of [Z].
    Raises: ValueError as `over_examples`.
    References: Burda, Grosse and Salakhutdinov 2016, appendix C.
    """
    shift = over_examples(posterior_shift, model, params, key, x, c, batch_size=batch_size).astype(np.float64)
    centred = shift - shift.mean(axis=0)
    products = centred[:, 0] * centred[:, 1]
    variance, spread = products.mean(axis=0), products.std(axis=0)
    error = spread / math.sqrt(len(products)) if len(products) > 1 else np.full_like(spread, np.nan)
    return ActiveUnits(variance, error, int((variance > ACTIVE).sum()))
