"""How the columns of a table depend on each other and on a condition, whatever their kinds; knows no models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from cvae.columns import Column

LEAST = 3  # rows from which an association is stated
GROUPS = 8  # of equal size, of a numeric condition
MOST_GROUPS = 12  # categories of a condition


def matrix(rows: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """The association of every pair of columns, from -1 to 1, NaN where a column does not vary.

    Shapes: [N, D] -> [D, D].
    """
    result = np.eye(len(columns))
    for i, first in enumerate(columns):
        for j in range(i):
            result[i, j] = result[j, i] = association(rows[:, i], rows[:, j], first.is_label, columns[j].is_label)
    return result


def association(a: np.ndarray, b: np.ndarray, a_is_label: bool, b_is_label: bool) -> float:
    """How strongly two columns depend on each other, over the rows in which neither is missing.

    Two numeric columns: Spearman's correlation, from -1 to 1. Two categorical ones: Cramer's V, from 0 to 1. One of
    each: the correlation ratio of the ranks, the root of the share of their variance that lies between categories.

    Shapes: [N], [N].
    """
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < LEAST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    if a_is_label and b_is_label:
        return _cramer(a.astype(int), b.astype(int))
    if not (a_is_label or b_is_label):
        return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
    labels, ranks = (a.astype(int), rankdata(b)) if a_is_label else (b.astype(int), rankdata(a))
    count = np.maximum(np.bincount(labels), 1)
    means = np.bincount(labels, ranks) / count
    return float(np.sqrt(np.var(means[labels]) / np.var(ranks)))


def _cramer(a: np.ndarray, b: np.ndarray) -> float:
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    chi_squared = ((table - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi_squared / (table.sum() * (min(table.shape) - 1))))


def groups(values: np.ndarray, column: Column) -> tuple[list[np.ndarray], list[str] | np.ndarray]:
    """Rows of like condition: of each category, or of each eighth of the numbers, and what to call them.

    Shapes: [N] -> lists of row numbers, and as many words or medians.
    """
    known = np.flatnonzero(np.isfinite(values))
    if column.is_label:
        frequent = np.argsort(-np.bincount(values[known].astype(int), minlength=len(column.categories)), kind="stable")
        shown = [k for k in np.sort(frequent[:MOST_GROUPS]) if (values == k).sum() >= LEAST]
        return [np.flatnonzero(values == k) for k in shown], [column.categories[k] for k in shown]
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, GROUPS + 1)))
    number = np.clip(np.searchsorted(edges, values[known], side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = [known[number == k] for k in range(max(len(edges) - 1, 1))]
    rows = [each for each in rows if len(each) >= LEAST]
    return rows, np.array([np.median(values[each]) for each in rows])


def means(values: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of each group of rows, and its standard error; missing cells are left out.

    Shapes: [N] or [K, N], K draws for every row -> [2, G].
    """
    values = np.atleast_2d(values)
    result = []
    for each in rows:
        known = values[:, each][np.isfinite(values[:, each])]
        many = len(known) > 1
        result.append((known.mean() if len(known) else np.nan, known.std(ddof=1) / len(known) ** 0.5 if many else 0.0))
    return np.array(result).reshape(-1, 2).T
