"""The benchmark measures what it says: its arithmetic, its table, its file."""

import ast
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from statistics import median

import jax
import pytest

import cvae
from benchmarks import contenders, epoch, fuzz, mutations, properties, saving

ROOT = Path(__file__).parent.parent


def test_flops_are_those_of_the_model():
    """Counted from the weights: each costs a product forwards, one for itself, and one for its input but the first."""
    model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
    params = jax.eval_shape(model.init, jax.random.key(0))
    kernels = {
        jax.tree_util.keystr(path): math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if "kernel" in jax.tree_util.keystr(path)
    }
    first = kernels["['encoder']['mlp']['layers']['layer_0']['linear']['kernel']"]
    assert contenders.epoch_flops(7) == 7 * 2 * (3 * sum(kernels.values()) - first)


def test_ratios_are_taken_within_a_round():
    rows = {
        "cvae": [{"seconds": 1.0, "loss": 2.0}, {"seconds": 4.0, "loss": 1.5}, {"seconds": 2.0, "loss": 1.0}],
        "floor": [{"seconds": 0.5, "flops": 1e9}, {"seconds": 2.0, "flops": 2e9}, {"seconds": 0.4, "flops": 3e9}],
    }
    summary = epoch.summarise(rows)
    assert summary["cvae"]["median"] == 2.0
    assert summary["cvae"]["over_floor"] == 2.0  # the median of 2, 2 and 5; the ratio of the medians would be 4
    assert summary["floor"]["over_cvae"] == 0.5
    assert summary["cvae"]["over_cvae"] == 1.0
    assert summary["cvae"]["loss"] == 1.0


def test_a_short_run_writes_its_file(tmp_path):
    arguments = ["--examples", "500", "--rounds", "1", "--contenders", "cvae", "floor", "--out"]
    command = [sys.executable, "-m", "benchmarks.epoch", *arguments, str(tmp_path / "epoch.json")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "epoch.json").read_text())
    rows = record["results"]["50"]
    assert set(rows) == {"cvae", "floor"}
    assert rows["cvae"]["over_floor"] == pytest.approx(rows["cvae"]["seconds"][0] / rows["floor"]["seconds"][0])
    assert 50 < rows["cvae"]["loss"] < 600
    assert record["machine"]["cores"] >= 1
    assert "| 50 | cvae |" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--batch-sizes 7", "--batch-sizes must divide 55000 examples, got 7"),
        ("--rounds 0", "--rounds must be a whole number of at least 1, got 0"),
        ("--contenders cvae cvae", "--contenders must be one or more names, each once, got cvae cvae"),
    ],
)
def test_bad_options_are_refused(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["epoch", *arguments.split()])
    with pytest.raises(SystemExit) as stop:
        epoch.command.run(epoch.main, epoch.Settings, epoch.__doc__)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_few_damaged_files_are_read_or_refused(tmp_path):
    counts = fuzz.main(fuzz.Settings(files=120, seed=1, out=tmp_path / "fuzz.json"))
    assert sum(counts.values()) == 120
    assert all(counts[kind, "refused"] > 0 for kind in ("npz", "config", "metrics", "checkpoint"))
    assert json.loads((tmp_path / "fuzz.json").read_text())["results"]["kinds"]["npz"]["wrong"] == 0


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


def test_every_mutant_is_another_program_with_one_sign_turned():
    found = mutations.mutants()
    assert {name for names in mutations.TURNED.values() for name in names} >= {m.function for m in found}
    assert {"kl_terms", "Elbo", "Weights.value", "Weights.bound", "log_weights"} <= {m.function for m in found}
    for mutant in found:
        original = ast.parse((ROOT / mutant.path).read_text())
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(original)
        assert mutant.before != mutant.after
    assert len({(mutant.path, mutant.source) for mutant in found}) == len(found)
    recorded = json.loads((ROOT / "results" / "benchmark_mutations.json").read_text())["results"]["mutants"]
    assert recorded == len(found), "signs came or went since they were last turned: run it again"


def test_an_epoch_that_is_saved_is_compared_with_those_around_it():
    """The first two, with compilation, are not counted; the machine slows down all along."""
    slower = [1 + n / 10 for n in range(10)]
    seconds = [100.0, 100.0, *slower]
    for n in range(2, len(seconds)):  # seconds[n] is from the end of epoch n + 1
        seconds[n] *= 1.02 if saving.is_saved(n + 1) else 1
    saved, unsaved = saving.neighbours(seconds)
    assert saved == pytest.approx([1.02 * s for s in slower[1:-1:2]])
    compared = saving.compare(saved, unsaved)
    assert compared["ratio"] == pytest.approx(1.02)
    assert compared["mean"] == pytest.approx(1.02)
    assert compared["standard_error"] == pytest.approx(0, abs=1e-9)
    assert compared["quartiles"] == pytest.approx((1.02, 1.02))


def test_the_cost_of_saving_is_measured_on_both_clocks(tmp_path, capsys):
    saving.main(saving.Settings(examples=200, rounds=2, out=tmp_path / "saving.json"))
    results = json.loads((tmp_path / "saving.json").read_text())["results"]
    assert set(results) == set(saving.CLOCKS)
    assert all(len(found["saved"]) == len(found["unsaved"]) == 2 for found in results.values())
    assert all(len(found["alone"]) == saving.ALONE and found["share"] > 0 for found in results.values())
    wall = f"| wall | {median(results['wall']['saved']):.3f} | {median(results['wall']['unsaved']):.3f} |"
    assert wall in capsys.readouterr().out


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
