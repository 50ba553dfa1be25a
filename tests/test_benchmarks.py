"""The benchmarks measure what they say: rounds, ratios, the arithmetic of the floor, and a worker's answers."""

import json
import math

import jax
import numpy as np
import pytest

import cvae
from benchmarks import contenders, epoch, rounds, saving
from benchmarks.workers import Crew, command_of


def test_flops_are_those_of_the_model():
    """Each weight costs a product forwards, one for its gradient, and one for its input's, but in the first layer."""
    model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(model.init, jax.random.key(0)))
    kernels = [math.prod(leaf.shape) for path, leaf in leaves if path[-1].key == "kernel"]
    first = (784 + 10) * 512
    assert first in kernels
    assert contenders.epoch_flops(7) == 7 * 2 * (3 * sum(kernels) - first)


def test_every_round_starts_with_another_and_a_dead_contender_is_left_out():
    calls = []

    def call(name):
        calls.append(name)
        return None if calls.count("b") == 2 and name == "b" else {"seconds": float(len(calls))}

    rows = rounds.interleave({name: (lambda name=name: call(name)) for name in "abc"}, 3, "test")
    assert "".join(calls) == "abc" + "bca" + "ac"
    assert {name: [row["seconds"] for row in each] for name, each in rows.items()} == {"a": [1, 6, 7], "c": [3, 5, 8]}


def test_ratios_are_taken_within_a_round():
    rows = {
        "cvae": [{"seconds": 1.0, "loss": 2.0}, {"seconds": 4.0, "loss": 1.5}, {"seconds": 2.0, "loss": 1.0}],
        "floor": [{"seconds": 0.5, "flops": 1e9}, {"seconds": 2.0, "flops": 2e9}, {"seconds": 0.4, "flops": 3e9}],
    }
    summary = epoch.summarize(rows)
    assert summary["cvae"]["median"] == 2.0
    assert summary["cvae"]["over_floor"] == 2.0  # the median of 2, 2 and 5; the ratio of the medians would be 4
    assert summary["floor"]["over_cvae"] == 0.5
    assert summary["cvae"]["loss"] == 1.0
    assert rounds.quartiles([2.0, 2.0, 5.0, 3.0, 1.0]) == {"ratio": 2.0, "quartiles": (2.0, 3.0)}


def test_workers_train_and_a_dead_one_is_left_out(capfd):
    rng = np.random.default_rng(0)
    examples = rounds.Examples(rng.integers(0, 256, (100, 28, 28, 1), np.uint8), rng.integers(0, 10, 100, np.int32))
    commands = {name: command_of(name) for name in ("cvae", "no_contender")}
    with Crew(commands, examples) as crew:
        rows = epoch.measure(crew, 50, 2)
    assert list(rows) == ["cvae"]
    assert list(crew.left_out) == ["no_contender"]
    assert "KeyError" in capfd.readouterr().err
    assert all(row["seconds"] > 0 and 50 < row["loss"] < 600 for row in rows["cvae"])


def test_a_saved_epoch_is_compared_with_its_neighbors():
    """The first two, with compilation, are not counted; the machine slows down all along."""
    slower = [1 + n / 10 for n in range(10)]
    seconds = [100.0, 100.0, *slower]
    for n in range(2, len(seconds)):  # seconds[n] is from the end of epoch n + 1
        seconds[n] *= 1.02 if saving.is_saved(n + 1) else 1
    saved, unsaved = saving.neighbors(seconds)
    assert saved == pytest.approx([1.02 * s for s in slower[1:-1:2]])
    compared = saving.compare(saved, unsaved)
    assert compared["ratio"] == pytest.approx(1.02)
    assert compared["standard_error"] == pytest.approx(0, abs=1e-9)


def test_results_say_where_they_come_from(tmp_path):
    out = tmp_path / "results" / "benchmark_x.json"
    with rounds.record(out, "x") as found:
        found |= {"config": {"rounds": 1}, "results": {"median": 2.0}, "versions": {"torch": "2"}}
    record = json.loads(out.read_text())
    assert record["results"]["median"] == 2.0
    assert {"jax", "torch"} <= record["versions"].keys()
    assert {"benchmark", "config", "load_average", "date", "commit", "versions", "machine"} <= record.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: epoch.check(epoch.Settings(), (7,)), "--batch-sizes must divide 55000 examples, got 7"),
        (lambda: epoch.Settings(rounds=0), "rounds must be greater than or equal to 1, got 0"),
        (lambda: epoch.check(epoch.Settings(contenders=("cvae", "cvae")), ()), "--contenders must be names, each once"),
    ],
)
def test_bad_options_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()
