"""The stress tests detect what they are for: short versions of them, and their parts."""

import ast
import random
from collections import Counter

import numpy as np
import pytest

from cvae.schema import infer
from tests.stress import fuzz, kills, large_table, mutations, properties
from tests.stress.record import ROOT


def test_damaged_files_are_read_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 60.0)  # a test may run on a busy machine
    counts = fuzz.main(fuzz.Settings(files=80, seed=1, out=tmp_path / "fuzz.json"))
    assert sum(counts.values()) == 80
    assert all(counts[kind, "refused"] > 0 for kind in ("npz", "config", "metrics", "checkpoint"))
    assert not any(what == "wrong" for _, what in counts)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ValueError("x must be whole, got half"), "refused"),
        (ValueError("two\nlines"), "ValueError: 'two\\nlines'"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "UnicodeDecodeError"),
        (TypeError("unhashable"), "TypeError: 'unhashable'"),
    ],
)
def test_only_a_value_error_of_one_line_is_a_refusal(error, word):
    def read(_):
        raise error

    assert fuzz.outcome(read, random.Random(0)).startswith(word)


def test_a_file_that_takes_long_is_wrong(monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.0)
    assert fuzz.outcome(lambda _: None, random.Random(0)).endswith(" s")


def test_every_mutant_is_another_program_with_one_sign_changed():
    made = mutations.mutants()
    assert {name for names in mutations.MUTATED.values() for name in names} >= {mutant.function for mutant in made}
    assert {"kl_terms", "Elbo", "Weights.value", "log_weights"} <= {mutant.function for mutant in made}
    for mutant in made:
        original = ast.parse((ROOT / mutant.path).read_text(encoding="utf-8"))
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(original)
        assert mutant.before != mutant.after
    assert len({(mutant.path, mutant.source) for mutant in made}) == len(made)


def test_a_single_bit_is_a_difference():
    one = kills.Result([{"loss": 1.0}], {"test": 2.0}, {"['cvae']": np.array([1.0, 2.0], np.float32)})
    other = one.params["['cvae']"].copy()
    other.view(np.uint8)[0] ^= 1
    assert kills.difference(one, one) is None
    assert kills.difference(one, one._replace(params={"['cvae']": other})) == "['cvae']"
    assert kills.difference(one, one._replace(summary={"test": 2.5})) == "summary"
    assert kills.without_times({"seconds": 3, "test": {"loss": 1, "seconds": 2}}) == {"test": {"loss": 1}}


def test_cases_are_counted_as_hypothesis_reports_them():
    report = """
tests/test_properties.py::test_encode[a b]:

  - during reuse phase (0.10 seconds):
    - Typical runtimes: ~ 1 ms
    - 0 passing, 1 failing, and 0 invalid test cases

  - during generate phase (1.89 seconds):
    - 990 passing, 2 failing, and 8 invalid test cases
    - Events:
      * 85.71%, answered

tests/test_properties.py::test_means:

  - during generate phase (1.89 seconds):
    - 1000 passing, 0 failing, and 0 invalid test cases
"""
    assert properties.count(report) == {
        "test_encode[a b]": {"passed": 990, "failed": 3},
        "test_means": {"passed": 1000, "failed": 0},
    }


def test_the_large_table_has_the_columns_that_it_says():
    table = large_table.table(4000, 0)
    kinds = Counter(column.kind for column in infer(table, conditions=("c29",)).columns)
    assert kinds == {"real": 14, "positive": 6, "count": 4, "binary": 3, "categorical": 3}
    shares = [series.null_count() / 4000 for series in table]
    assert shares[-1] == 0
    assert abs(np.mean(shares[:-1]) - large_table.MISSING) < 0.005
