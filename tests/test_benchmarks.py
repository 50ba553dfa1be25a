"""The benchmark measures what it says: its arithmetic, its table, its file."""

import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import cvae
from benchmarks import contenders, epoch

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
