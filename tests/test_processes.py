"""Two processes on the loopback interface: they fit as one does, resume each other's checkpoints, and stop together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import cvae
from experiments import fit
from tests.commands import ROOT, assert_refused, call

EPOCHS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of rows with labels, a few cells of which are missing."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "rows.npz"
    label = rng.integers(0, 3, 300)
    rows = rng.normal(size=(300, 4)) + label[:, None]
    rows[::50, 1] = np.nan  # missing
    np.savez(path, rows=rows, label=label)
    return path


def arguments(data, out, epochs):
    """Of a small fit."""
    small = ["--batch-size", "20", "--hidden", "8", "--no-figures", "--samples", "10", "--save-every", "1"]
    settings = ["--condition", "label=label", "--epochs", str(epochs), *small]
    return ["--data", str(data), "--out", str(out), *settings]


def start(count, *args, seconds=60):
    """So many processes of the command, which find each other at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "experiments.fit", *args]
    together = [
        "--distributed",
        "--coordinator",
        address,
        "--num-processes",
        str(count),
        "--coordinator-timeout",
        str(seconds),
    ]
    return [
        subprocess.Popen(
            [*command, *(["--process-id", str(number), *together] if count > 1 else [])],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def finish(processes):
    """What each has printed; all must end well."""
    outputs = [process.communicate(timeout=120) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return outputs


def losses(out):
    """Training and validation losses, epoch by epoch."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [[line["train"]["loss"], line["validation"]["loss"]] for line in lines]


def score(out):
    """The log-likelihood of the test rows."""
    (test,) = json.loads((out / "summary.json").read_text())["test"].values()
    return test["log_likelihood"]["value"]


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """The folders of a run of one process and of a run of two, and what the two printed."""
    folder = tmp_path_factory.mktemp("runs")
    one, two = folder / "one", folder / "two"
    finish(start(1, *arguments(data, one, EPOCHS)))
    printed = finish(start(2, *arguments(data, two, EPOCHS)))
    return one, two, printed


def test_two_processes_fit_as_one_does_and_the_first_alone_prints(runs):
    one, two, printed = runs
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    assert score(two) == pytest.approx(score(one), rel=1e-5)
    assert "log-likelihood" in printed[0][0]
    assert printed[1] == ("", "")


def test_one_process_resumes_what_two_saved_and_two_what_one_saved(runs, data):
    one, two, _ = runs
    for out, count in ((two, 1), (one, 2)):
        outputs = finish(start(count, *arguments(data, out, EPOCHS + 2)))
        assert f"goes on after epoch {EPOCHS}" in outputs[0][0]
    assert len(losses(one)) == EPOCHS + 2
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)


def test_two_processes_that_are_stopped_within_an_epoch_end_at_the_same_bits(tmp_path):
    rng, path = np.random.default_rng(1), tmp_path / "rows.npy"
    np.save(path, rng.normal(size=(6_000, 4)))
    small = ["--data", str(path), "--epochs", "1", "--batch-size", "2", "--hidden", "4", "--no-figures"]
    whole, stopped = ([*small, "--samples", "2", "--out", str(tmp_path / name)] for name in ("whole", "stopped"))
    finish(start(2, *whole))
    processes = start(2, *stopped)
    shown = ""
    while "loss" not in shown:  # after the first of three calls
        shown += processes[0].stderr.read(1)
        assert processes[0].poll() is None, shown
    processes[0].send_signal(signal.SIGINT)
    assert [process.wait(60) for process in processes] == [130, 130]
    outputs = finish(start(2, *stopped))
    assert "goes on after epoch 0 and 800 steps" in outputs[0][0] or "and 1,600 steps" in outputs[0][0]
    params = [cvae.load(tmp_path / name)[1] for name in ("whole", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *params)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_stops_the_other_with_one_sentence(data, tmp_path, victim):
    processes, metrics = start(2, *arguments(data, tmp_path / "run", 100_000)), tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    processes[victim].send_signal(signal.SIGKILL)
    _, errors = processes[1 - victim].communicate(timeout=60)
    processes[victim].communicate()
    # JAX aborts a process whose coordinator is gone, if that is seen before the transfer that failed.
    assert processes[1 - victim].returncode in ((1, -signal.SIGABRT) if victim == 0 else (1,))
    last = errors.splitlines()[-1]
    assert (
        last
        == "error: a process of this run has ended; the same command in all of them goes on from the last checkpoint"
    )


def test_processes_with_other_settings_are_refused_by_the_first(data, tmp_path):
    first, second = start(2, *arguments(data, tmp_path / "run", EPOCHS))
    second.kill()
    second.communicate()
    seed = [*second.args, "--seed", "1"]
    other = subprocess.Popen(seed, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, errors = first.communicate(timeout=100)
    assert first.returncode == 2
    assert errors.strip() == "error: settings and data must be the same in every process, got other ones in [1]"
    assert other.communicate(timeout=60) == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coordinator", "a:1"], "--coordinator must be left out without --distributed, got a:1"),
        (
            ["--distributed", "--coordinator", "a:1"],
            "--coordinator must come with --num-processes and --process-id, got ['coordinator']",
        ),
        (
            ["--distributed", "--coordinator", "a:1", "--num-processes", "2", "--process-id", "2"],
            "--process-id must be below --num-processes, 2, got 2",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(data, tmp_path, options, message):
    assert_refused(call(fit, *arguments(data, tmp_path / "run", 1), *options), message)


def test_a_process_that_is_alone_gives_up(data, tmp_path):
    alone, other = start(2, *arguments(data, tmp_path / "run", 1), seconds=1)
    other.kill()
    other.communicate()
    _, errors = alone.communicate(timeout=60)
    assert alone.returncode == 2
    assert errors.startswith("error: --coordinator must be reached by all processes within --coordinator-timeout, ")
