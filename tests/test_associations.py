"""Associations of columns against scipy's, and means in groups of rows of like condition."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from scipy.stats.contingency import association as scipy_association
from scipy.stats.contingency import crosstab

from cvae.columns import Column
from experiments.measures import associations

RNG = np.random.default_rng(8)
N = 300
NUMBER = RNG.normal(size=N)
OTHER = NUMBER**3 + RNG.normal(size=N)
LABEL = (NUMBER > 0.3) + (NUMBER > 1) * 1.0
SECOND = np.where(RNG.random(N) < 0.6, LABEL, RNG.integers(0, 2, N))


def test_numbers_have_the_correlation_of_their_ranks():
    assert associations.association(NUMBER, OTHER, False, False) == pytest.approx(spearmanr(NUMBER, OTHER).statistic)
    holed = np.where(np.arange(N) % 7 == 0, np.nan, OTHER)
    known = np.isfinite(holed)
    expected = spearmanr(NUMBER[known], OTHER[known]).statistic
    assert associations.association(NUMBER, holed, False, False) == pytest.approx(expected)


def test_categories_have_cramers_v():
    table = crosstab(LABEL.astype(int), SECOND.astype(int)).count
    found = associations.association(LABEL, SECOND, True, True)
    assert found == pytest.approx(scipy_association(table, method="cramer"))
    assert associations.association(LABEL, LABEL, True, True) == pytest.approx(1)


def test_a_category_and_a_number_have_the_correlation_ratio():
    ranks = np.argsort(np.argsort(NUMBER)) + 1.0
    between = np.var(np.array([ranks[k == LABEL].mean() for k in range(3)])[LABEL.astype(int)])
    found = associations.association(LABEL, NUMBER, True, False)
    assert found == pytest.approx(np.sqrt(between / np.var(ranks)))
    assert associations.association(NUMBER, LABEL, False, True) == pytest.approx(found)


def test_the_matrix_is_symmetric_and_a_constant_column_has_none():
    columns = (Column("a", "real"), Column("b", "categorical", categories=("x", "y", "z")), Column("c", "count"))
    rows = np.stack([NUMBER, LABEL, np.full(N, 4.0)], axis=1)
    matrix = associations.matrix(rows, columns)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.isnan(matrix[2, :2]).all()
    assert matrix[0, 1] == associations.association(LABEL, NUMBER, True, False)


def test_groups_are_categories_or_eighths():
    label = Column("b", "categorical", categories=("x", "y", "z", "never"))
    rows, names = associations.groups(LABEL, label)
    assert list(names) == ["x", "y", "z"]
    assert all((LABEL[each] == k).all() for k, each in enumerate(rows))
    rows, middles = associations.groups(np.where(np.arange(N) < 5, np.nan, NUMBER), Column("a", "real"))
    assert {len(each) for each in rows} <= {36, 37}
    assert np.concatenate(rows).min() == 5
    assert sum(map(len, rows)) == N - 5
    np.testing.assert_allclose(middles, [np.median(NUMBER[each]) for each in rows])
    few, _ = associations.groups(np.repeat([1.0, 2.0], 20), Column("a", "count"))
    assert [len(each) for each in few] in ([40], [20, 20])


def test_means_have_standard_errors_over_rows_and_draws():
    rows = [np.arange(10), np.arange(10, 40)]
    values = np.where(np.arange(N) == 3, np.nan, NUMBER)
    value, error = associations.means(values, rows)
    assert value[0] == pytest.approx(np.nanmean(values[:10]))
    assert error[1] == pytest.approx(NUMBER[10:40].std(ddof=1) / 30**0.5)
    value, _ = associations.means(np.stack([NUMBER, NUMBER + 2]), rows)
    assert value[1] == pytest.approx(NUMBER[10:40].mean() + 1)
