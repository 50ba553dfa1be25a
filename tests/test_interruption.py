"""Runs that are stopped in every way, by their command lines, and end at the bits of one that never was."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import survival
from cvae import runs
from experiments import interruption, mnist_label
from tests.commands import ROOT, assert_refused, call

EPOCHS = 20  # of each of two models
CACHE = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])


def epochs(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def started(out: Path, reached: int) -> subprocess.Popen:
    """A run that has come so far."""
    process, deadline = survival.start(out, EPOCHS, CACHE), time.monotonic() + 120
    while epochs(out) < reached:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


def test_a_signal_that_comes_after_the_last_question_is_not_lost():
    assert threading.current_thread() is threading.main_thread()

    def interrupted():
        with interruption.deferred() as asked:
            assert asked() is None
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(runs.Stopped, match="stopped after the last epoch") as stop:
        interrupted()
    assert stop.value.signal == signal.SIGTERM


def test_a_run_that_is_stopped_in_every_way_ends_at_the_same_bits(tmp_path):
    out = tmp_path / "out"
    for number, name, code in ((signal.SIGTERM, "cvae", 143), (signal.SIGKILL, "", -9), (signal.SIGINT, "vae", 130)):
        process = started(out, {"cvae": 3, "": 8, "vae": EPOCHS + 2}[name])
        if number == signal.SIGTERM:  # a second process meanwhile
            process.send_signal(signal.SIGSTOP)
            refused = call(mnist_label, *survival.options(out, EPOCHS))
            assert_refused(refused, f"run folder must be free, got {out}, held by process {process.pid} since 20")
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        errors = process.communicate(timeout=60)[1].decode()
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        if name:
            last = errors.strip().splitlines()[-1]
            said = (
                rf"stopped after epoch (\d+) of {name}, which is saved in .*/progress/{name}; the same command goes on"
            )
            assert epochs(out) == int(re.match(said, last)[1]) + (EPOCHS if name == "vae" else 0)
    done = call(mnist_label, *survival.options(out, EPOCHS))
    assert done.returncode == 0, done.stderr
    assert "vae goes on after epoch" in done.stdout
    interrupted = survival.result(out)
    again = call(mnist_label, *survival.options(out, EPOCHS))
    assert re.match(rf"finished already, 20.*: {out}/summary.json; --fresh starts over\n$", again.stdout)
    fresh = call(mnist_label, *survival.options(out, EPOCHS), "--fresh")
    assert f"discarding {2 * EPOCHS} epochs in {out}" in fresh.stdout
    assert survival.difference(interrupted, survival.result(out)) is None


WAIT = """
import time
from experiments import interruption
with interruption.deferred() as asked:
    print("ready", flush=True)
    while asked() is None:
        time.sleep(0.01)
    print("asked", asked(), flush=True)
    time.sleep(60)  # an epoch that takes long
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_and_ctrl_c_after_it_does_not(first):
    process = subprocess.Popen([sys.executable, "-c", WAIT], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(first)
    assert process.stdout.readline() == b"asked %d\n" % first
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)  # half of what the epoch would take
    assert process.returncode == 130
    assert errors.decode().split("\n") == ["", "stopping after this epoch; Ctrl-C stops at once", "", "stopped", ""]


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="Linux has a folder in which nobody can make another")
def test_a_folder_that_cannot_be_written_is_one_sentence():
    result = call(mnist_label, "--smoke", "--out", "/sys/run")
    assert result.returncode == 2
    assert re.fullmatch(r"error: \[Errno \d+\] .*: '/sys/run'\n", result.stderr)
