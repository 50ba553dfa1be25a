"""Baselines that need no network: densities of the rows of a table, fitted in closed form or nearly so.

    independent        every column by its own marginal, given nothing
    linear_gaussian    real and positive columns jointly Gaussian given all else, by linear regression

Both are densities in the units of the table. Real columns are Gaussian, positive ones log-normal, binary and
categorical ones have the frequencies of training rows (one added to each count), and counts are negative binomial.
A value with a probability of its own is a two-valued column beside. Missing cells (NaN) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom

from cvae.columns import Column
from cvae.settings import replace

FITTED = 5000  # rows that a covariance with missing cells is fitted to
MOST_FITTED = 100_000  # rows, at most
ITERATIONS = 30  # of EM
RIDGE = 1e-6  # added to the variances of standardised columns, so that a covariance can be inverted


def independent(train: np.ndarray, test: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """Log density of test rows, each column by its marginal in the training rows, in nats.

        log p(x) = sum_k log p_k(x_k)

    Shapes: [N, D], [M, D] -> [M].
    """
    (train, columns), (test, _) = (_without_point_masses(rows, columns) for rows in (train, test))
    cells = [_marginal(train[:, k], test[:, k], column) for k, column in enumerate(columns)]
    return np.asarray(np.sum(cells, axis=0))


def linear_gaussian(
    train: np.ndarray, test: np.ndarray, columns: Sequence[Column], given: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Log density of test rows, real and positive columns jointly Gaussian given the others and c, in nats.

        log p(x | c) = sum of log p_k(x_k) over other columns + log N(y, f) - log N(f) - sum of log x_k over positive

    with y the real columns and logarithms of the positive ones, and f features of the others (one-hot categories,
    log(1 + count)) beside those of c: the Gaussian of y given f is a linear regression with correlated errors.

    Shapes: [N, D], [M, D], features of c [N, F] and [M, F] -> [M].
    """
    (train, columns), (test, _) = (_without_point_masses(rows, columns) for rows in (train, test))
    gaussian = [k for k, column in enumerate(columns) if column.kind in ("real", "positive")]
    other = [k for k in range(len(columns)) if k not in gaussian]
    total: np.ndarray = np.zeros(len(test))
    if other:
        total = independent(train[:, other], test[:, other], [columns[k] for k in other])
    if not gaussian:
        return total
    y, f = [], []
    for rows, c in zip((train, test), given, strict=True):
        y.append(np.stack([_on_line(rows[:, k], columns[k]) for k in gaussian], axis=1))
        f.append(np.concatenate([*(_features(rows[:, k], columns[k]) for k in other), c], axis=1))
    both = [np.concatenate(each, axis=1) for each in zip(y, f, strict=True)]
    fitted = fit_gaussian(both[0])
    features = Gaussian(fitted.mean[len(gaussian) :], fitted.covariance[len(gaussian) :, len(gaussian) :])
    total += gaussian_log_density(fitted, both[1]) - gaussian_log_density(features, f[1])
    for place, k in enumerate(gaussian):
        if columns[k].kind == "positive":
            total -= np.nan_to_num(y[1][:, place])
    return total


def _without_point_masses(rows: np.ndarray, columns: Sequence[Column]) -> tuple[np.ndarray, list[Column]]:
    """Columns with a point mass as two: whether a cell equals it, and the others, missing where one does."""
    rows, split, added = np.array(rows, np.float64), list(columns), []
    for k, column in enumerate(columns):
        if column.point_mass is not None:
            at_mass = np.where(np.isnan(rows[:, k]), np.nan, rows[:, k] == column.point_mass)
            rows[at_mass == 1, k] = np.nan
            rows = np.column_stack([rows, at_mass])
            split[k] = replace(column, point_mass=None)
            added.append(Column(column.name, "binary", categories=("other", "point mass")))
    return rows, split + added


def _on_line(values: np.ndarray, column: Column) -> np.ndarray:
    """A column on the scale on which it is Gaussian."""
    return np.asarray(np.log(values) if column.kind == "positive" else values)


def _features(values: np.ndarray, column: Column) -> np.ndarray:
    """A discrete column as numbers, [N, K]; NaN where it is missing."""
    if column.kind == "count":
        return np.asarray(np.log1p(values)[:, None])
    one_hot: np.ndarray = (values[:, None] == np.arange(1, len(column.categories))).astype(np.float64)
    one_hot[np.isnan(values)] = np.nan
    return one_hot


# Marginals


def _marginal(train: np.ndarray, test: np.ndarray, column: Column) -> np.ndarray:
    """Log density of a column's test cells, 0 where one is missing."""
    train, known = train[~np.isnan(train)], ~np.isnan(test)
    result = np.zeros(len(test))
    if column.is_label:
        counts = np.bincount(train.astype(int), minlength=len(column.categories)) + 1
        result[known] = np.log(counts / counts.sum())[test[known].astype(int)]
    elif column.kind == "count":
        mean, size = fit_negative_binomial(train)
        result[known] = nbinom.logpmf(test[known], size, size / (size + mean))
    else:
        y = _on_line(train, column)
        shifted = (_on_line(test[known], column) - y.mean()) / y.std()
        result[known] = -0.5 * shifted**2 - np.log(y.std()) - 0.5 * np.log(2 * np.pi)
        if column.kind == "positive":
            result[known] -= np.log(test[known])
    return result


def fit_negative_binomial(counts: np.ndarray) -> tuple[float, float]:
    """Mean and size by maximum likelihood; a size of a million is a Poisson distribution."""
    mean = max(float(counts.mean()), 0.5 / len(counts))

    def loss(log_size: float) -> float:
        size = np.exp(log_size)
        return -float(nbinom.logpmf(counts, size, size / (size + mean)).mean())

    found = minimize_scalar(loss, bounds=(np.log(1e-4), np.log(1e6)), method="bounded")
    return mean, float(np.exp(found.x))


# Gaussians with missing cells


class Gaussian(NamedTuple):
    """A multivariate Gaussian."""

    mean: np.ndarray  # [D]
    covariance: np.ndarray  # [D, D]


def fit_gaussian(rows: np.ndarray) -> Gaussian:
    """Mean and covariance by maximum likelihood, by EM where cells are missing.  Shapes: [N, D].

    References: Little and Rubin 2019, Statistical analysis with missing data, section 11.2.
    """
    rows = rows[: FITTED if np.isnan(rows).any() else MOST_FITTED]
    centre, scale = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0)
    scale = np.where(scale > 0, scale, 1)
    rows = (rows - centre) / scale
    ridge = RIDGE * np.eye(rows.shape[1])
    groups = _patterns(rows)
    mean, covariance = np.zeros(rows.shape[1]), np.eye(rows.shape[1])
    for _ in range(ITERATIONS if len(groups) > 1 or np.isnan(rows).any() else 1):
        filled, spread = rows.copy(), np.zeros_like(covariance)
        for known, members in groups:
            if known.all():
                continue
            gain = np.linalg.solve(covariance[np.ix_(known, known)], covariance[np.ix_(known, ~known)])
            hidden = np.ix_(members, ~known)
            filled[hidden] = mean[~known] + (rows[np.ix_(members, known)] - mean[known]) @ gain
            left = covariance[np.ix_(~known, ~known)] - covariance[np.ix_(~known, known)] @ gain
            spread[np.ix_(~known, ~known)] += len(members) * left
        mean = filled.mean(axis=0)
        covariance = np.cov(filled.T, bias=True).reshape(spread.shape) + spread / len(rows) + ridge
    return Gaussian(centre + scale * mean, covariance * np.outer(scale, scale))


def gaussian_log_density(gaussian: Gaussian, rows: np.ndarray) -> np.ndarray:
    """Log density of the cells that are known.  Shapes: [N, D] -> [N]."""
    result = np.zeros(len(rows))
    for known, members in _patterns(rows):
        if known.any():
            lower = np.linalg.cholesky(gaussian.covariance[np.ix_(known, known)])
            solved = np.linalg.solve(lower, (rows[np.ix_(members, known)] - gaussian.mean[known]).T)
            log_det = 2 * np.log(np.diag(lower)).sum()
            result[members] = -0.5 * ((solved**2).sum(axis=0) + log_det + known.sum() * np.log(2 * np.pi))
    return result


def _patterns(rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which cells are known, bool [D], and the rows that have these: int [n]."""
    patterns, inverse = np.unique(~np.isnan(rows), axis=0, return_inverse=True)
    order = np.split(np.argsort(inverse.ravel(), kind="stable"), np.cumsum(np.bincount(inverse.ravel()))[:-1])
    return list(zip(patterns, order, strict=True))
