"""Use of a fitted model: rows drawn, encoded, scored, completed, under another condition, and their labels predicted.

    model, params = cvae.load("runs/fit_diamonds")
    rows = cvae.use.generate(model, params, key, 100, cut="Ideal", carat=0.7)
    scores = cvae.use.score(model, params, key, "diamonds.csv")

For a model of a table, one whose architecture has a schema, x is a table, of which the schema reads c too: a polars or
pandas data frame, or the path of a file. Results are data frames with a row for every row of x, pandas' own for
pandas' own. For a model of arrays, x and c are arrays as everywhere, and results are dicts of arrays of length N: what
is a column of its own per latent, category or column of a table is then the second axis. Where a label has words for
its classes, as after a fit to a folder of images, it may be given as words, and results have these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jax import Array
from scipy.special import softmax

from cvae import checks, generation, imputation
from cvae.classification import class_log_likelihoods, labels_of
from cvae.evaluation import log_likelihood
from cvae.model import CVAE
from cvae.networks import Params
from cvae.rows import (
    Rows,
    architecture_of,
    condition_arrays,
    examples,
    filled,
    like,
    one_of_conditions,
    replaced,
    rows_of,
    words_of,
)
from cvae.schema import Schema

MOST_NAMED = 3  # columns that contribute most to a score
PRIORS = ("training", "uniform")


def generate(
    model: CVAE,
    params: Params,
    key: Array,
    count: int,
    conditions: Mapping[str, Any] | None = None,
    *,
    mean: bool = False,
    temperature: float = 1.0,
    progress: bool = False,
    **named: Any,
) -> Rows:
    """Draw rows or images of p(x | c).

    Conditions are given by name, each as one value or as a sequence of `count` values, in the file's own terms:
    `cut="Ideal"`, or `{"cut": "Ideal"}` for names that Python does not allow. An optional one may be left out. A number
    outside its range in training is used, with a warning that names the range.

    Returns:
        A data frame with the columns of x and c, in the file's order and types; or `{"x": [count, *event]}` and c.

    Raises:
        ValueError: a condition is unknown, missing, or has a value that it cannot have; names those that it can.
    """
    checks.integer("count", count)
    architecture = architecture_of(model)
    c = condition_arrays(architecture, count, {**(conditions or {}), **named})
    options = {"mean": mean, "temperature": temperature, "progress": progress}
    x = generation.sample_each(model, params, key, c, count=count, **options)  # type: ignore[arg-type]
    return rows_of(architecture, x, c)


def encode(model: CVAE, params: Params, key: Array, x: Any, c: Any = None, *, progress: bool = False) -> Rows:
    """Mean and standard deviation of the posterior q(z | x, c) of every row.

    Returns:
        Columns `z0_mean`, `z0_std`, `z1_mean`, ...; or arrays `mean` and `std`, [N, Z].

    Raises:
        ValueError: x or c is not as in training; names the column, row and value.
    """
    architecture = architecture_of(model)
    array, conditions = examples(architecture, x, c)
    found = imputation.posterior_moments(model, params, key, array, conditions, progress=progress)
    if architecture.schema is None:
        return found._asdict()
    parts = [
        (f"z{k}_{name}", found._asdict()[name][:, k]) for k in range(found.mean.shape[1]) for name in found._fields
    ]
    return like(x, pl.DataFrame(dict(parts)))


def score(
    model: CVAE, params: Params, key: Array, x: Any, c: Any = None, *, num_samples: int = 500, progress: bool = False
) -> Rows:
    """Log p(x | c) of every row by importance sampling, and which columns make it improbable.

    The standard error is that of the logarithm of a mean of K weights, sqrt(1 / E - 1 / K), with E the effective
    samples. A column's contribution is relative, see `imputation.contributions`: far below 0, the value is unusual
    given the rest of the row.

    Returns:
        Columns `log_likelihood`, `standard_error`, `effective_samples` (nats and numbers), `unusual` (the names of the
        three lowest contributions below 0), and `contribution_NAME`; or arrays, with `contribution` [N, *event].

    Raises:
        ValueError: as `encode`.
    """
    architecture = architecture_of(model)
    array, conditions = examples(architecture, x, c)
    scored = log_likelihood(
        model, params, key, array, conditions, num_samples=num_samples, proposal="posterior", progress=progress
    )
    contribution = imputation.contributions(
        model, params, key, array, conditions, num_samples=min(num_samples, 100), relative=True, progress=progress
    )
    error = np.sqrt(np.maximum(1 / scored.effective_samples - 1 / num_samples, 0))
    results = {"log_likelihood": scored.value, "standard_error": error, "effective_samples": scored.effective_samples}
    if architecture.schema is None:
        return results | {"contribution": contribution}
    names = [column.name for column in architecture.schema.modelled]
    lowest = np.argsort(contribution, axis=1)[:, :MOST_NAMED]
    unusual = [
        ", ".join(names[k] for k in order if values[k] < 0) for order, values in zip(lowest, contribution, strict=True)
    ]
    columns = {f"contribution_{name}": contribution[:, k] for k, name in enumerate(names)}
    return like(x, pl.DataFrame(results | {"unusual": unusual} | columns))


class Completed(NamedTuple):
    """Rows whose missing cells are filled in."""

    rows: Rows  # the table, or x and c, with the mean in the place of a missing cell, or the most probable category
    cells: Rows  # one line per missing cell: row, column, value, mean, low, high, probability, effective_samples
    draws: Rows  # the same `num_draws` times: the draws of the first row, then those of the second


def impute(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any = None,
    *,
    num_draws: int = 20,
    num_samples: int = 500,
    progress: bool = False,
) -> Completed:
    """Fill in the missing cells of x; see `imputation.impute`. Only rows with a missing cell are computed.

    Every missing cell gets a mean and an interval that holds it with 90 % probability, of which 5 % lie on either
    side; a category gets the most probable one and its probability. A missing condition stays missing.

    Returns:
        Data frames; or dicts of arrays, where `cells` has `mean`, `low`, `high` and `missing`, [N, *event], and
        `effective_samples`, [N].

    Raises:
        ValueError: nothing is missing, or as `encode`.
    """
    architecture = architecture_of(model)
    array, conditions = examples(architecture, x, c)
    missing = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    chosen = np.flatnonzero(missing.reshape(len(array), -1).any(axis=1))
    rule = "have a missing number, NaN" if architecture.schema is None else "have a missing cell in a modelled column"
    checks.require(len(chosen) > 0, "x", rule, "none")
    found = imputation.impute(
        model, params, key, array[chosen], {name: values[chosen] for name, values in conditions.items()},
        num_draws=num_draws, num_samples=num_samples, progress=progress,
    )  # fmt: skip
    mean = np.array(array, np.float64)
    mean[chosen] = found.mean
    copies = {name: np.repeat(values, num_draws, axis=0) for name, values in conditions.items()}
    draws = np.repeat(np.asarray(array, np.float64)[:, None], num_draws, axis=1)
    draws[chosen] = found.draws
    draws = draws.reshape(-1, *array.shape[1:])
    rows, drawn = rows_of(architecture, mean, conditions), rows_of(architecture, draws, copies)
    if architecture.schema is None:
        low, high, effective = np.array(mean), np.array(mean), np.full(len(array), np.nan)
        low[chosen], high[chosen], effective[chosen] = found.low, found.high, found.effective_samples
        arrays = {"mean": mean, "low": low, "high": high, "missing": missing, "effective_samples": effective}
        return Completed(rows, arrays, drawn)
    cells = _cells(architecture.schema, rows, chosen, missing, found)
    table = architecture.schema.read(x)
    return Completed(like(x, filled(table, rows)), like(x, cells), like(x, filled(table, drawn)))


def _cells(
    schema: Schema, rows: pl.DataFrame, chosen: np.ndarray, missing: np.ndarray, found: imputation.Imputation
) -> pl.DataFrame:
    """A line per missing cell, in the order of the rows; `found` is of the chosen rows."""
    columns = schema.modelled
    where, numbers = np.nonzero(missing[chosen])
    is_label = np.array([column.is_label for column in columns])[numbers]
    texts = [rows[column.name].cast(pl.String).to_list() for column in columns]
    cell = (where, numbers)
    return pl.DataFrame(
        {
            "row": chosen[where],
            "column": [columns[k].name for k in numbers],
            "value": [texts[k][row] for row, k in zip(chosen[where], numbers, strict=True)],
            **{name: np.where(is_label, np.nan, getattr(found, name)[cell]) for name in ("mean", "low", "high")},
            "probability": np.where(is_label, found.share[cell], np.nan),
            "effective_samples": found.effective_samples[where],
        }
    ).with_columns(pl.col("mean", "low", "high", "probability").fill_nan(None))


def counterfactual(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any = None,
    conditions: Mapping[str, Any] | None = None,
    *,
    mean: bool = False,
    progress: bool = False,
    **named: Any,
) -> Rows:
    """What the rows would be under other conditions, with latents as unusual; see `generation.counterfactual`.

    Conditions are given as to `generate`; those that are not given stay as they are in x.

    Returns:
        The table with these columns in place of its own; or `{"x": [N, *event]}` and c.

    Raises:
        ValueError: as `encode` and `generate`, or no condition is given.
    """
    architecture = architecture_of(model)
    checks.require(len(architecture.condition.spec) > 0, "model", "have conditions for a counterfactual", "none")
    array, before = examples(architecture, x, c)
    changed = {**(conditions or {}), **named}
    checks.require(len(changed) > 0, "conditions", one_of_conditions(architecture, "change"), "none")
    after = {**before, **condition_arrays(architecture, len(array), changed, whole=False)}
    rows = generation.counterfactual(model, params, key, array, before, after, mean=mean, progress=progress)
    made = rows_of(architecture, rows, after)
    return made if architecture.schema is None else like(x, replaced(architecture.schema.read(x), made))


def predict(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any = None,
    *,
    column: str = "label",
    prior: str = "training",
    num_samples: int = 100,
    progress: bool = False,
) -> Rows:
    """The probability of every value of a label that the model is conditioned on, by Bayes' rule.

        p(y | x, rest of c)  =  p(x | y, rest of c) p(y) / sum_y' p(x | y', rest of c) p(y')

    The column itself is not read, and need not be in x. `prior` is p(y): the frequencies of the training part, where a
    schema holds them, or "uniform".

    Returns:
        Columns `predicted` and `probability_VALUE`; or arrays `predicted` [N] and `probability` [N, classes].

    Raises:
        ValueError: the column is no label among the conditions, or as `encode`.
    """
    architecture = architecture_of(model)
    checks.one_of("prior", prior, PRIORS)
    labels = labels_of(architecture.condition)
    hint = "" if architecture.schema is None else " (impute fills in a column that is modelled)"
    which = f"one of {list(labels)}" if labels else "of which it has none"
    rule = f"be a label that the model is conditioned on, {which}{hint}"
    checks.require(column in labels, "column", rule, checks.shown(column))
    array, conditions = examples(architecture, x, c, without=column)
    scores = class_log_likelihoods(
        model, params, key, array, conditions, name=column, num_samples=num_samples, progress=progress
    )
    schema = architecture.schema
    counts = schema.column(column).counts if schema is not None and prior == "training" else ()
    log_prior = np.log(np.array(counts) / sum(counts)) if counts else 0.0
    probability = softmax(scores.astype(np.float64) + log_prior, axis=1)
    predicted = probability.argmax(axis=1)
    if schema is None:
        return {"predicted": words_of(labels[column], predicted), "probability": probability}
    words = schema.column(column)
    each = {f"probability_{word}": probability[:, k] for k, word in enumerate(words.categories)}
    return like(x, pl.DataFrame({"predicted": words.decode(predicted.astype(np.float64)), **each}))
