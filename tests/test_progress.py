"""The progress bar: says what it waits for, shows the losses, and is refreshed seldom."""

import os
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae import progress
from cvae.loop import Epoch
from cvae.progress import Bar
from cvae.training import Metrics
from tests.oracles import LEVEL

EPOCH = Epoch(1, Metrics(3.25, -2.0, 1.25), Metrics(4.5, -3.0, 1.5), 5.0, 0.1, 12345.6)
ARGUMENTS = (LEVEL, {"b": jnp.zeros(3)}, jax.random.key(0), np.ones((5, 3), np.float32), {})
TRAINING = cvae.Training(epochs=4, batch_size=5)


def test_a_fit_shows_a_bar_on_the_error_stream_alone(capfd):
    cvae.fit(*ARGUMENTS, TRAINING)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "fit: 100%" in shown.err
    assert "4/4" in shown.err
    assert "loss" in shown.err
    assert "ex/s" in shown.err
    cvae.fit(*ARGUMENTS, TRAINING, progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_bar_goes_with_a_loop_of_the_users_own_that_stops_early(capfd):
    with Bar("mine", TRAINING.epochs) as bar:
        for state in cvae.epochs(*ARGUMENTS, TRAINING):
            bar.epoch(state.history[-1])
            if state.history[-1].epoch == 2:
                break
    assert "2/4" in capfd.readouterr().err
    with Bar("mine", TRAINING.epochs, done=2) as bar:  # resumed
        for resumed in cvae.epochs(LEVEL, state, *ARGUMENTS[2:], TRAINING):
            bar.epoch(resumed.history[-1])
    shown = capfd.readouterr().err
    assert "2/4" in shown.split("\r")[1]
    assert "4/4" in shown


def test_the_losses_are_shown(capfd):
    with Bar("one", 1) as bar:
        bar.epoch(EPOCH)
    assert "loss 3.25, validation 4.50, 12,346 ex/s" in capfd.readouterr().err
    side_by_side = EPOCH._replace(train=Metrics([3.0, 5.0], [-2.0, -3.0], [1.0, 2.0]), validation=None)
    with Bar("two", 1) as bar:
        bar.epoch(side_by_side)
    assert "loss 4.00, 12,346 ex/s" in capfd.readouterr().err


def test_short_epochs_refresh_the_bar_seldom(capfd):
    began = time.monotonic()
    with Bar("fit", 500) as bar:
        for _ in range(500):
            bar.epoch(EPOCH)
    seconds = time.monotonic() - began
    assert capfd.readouterr().err.count("\r") <= 4 + 2 * seconds / progress.INTERVAL


def test_a_bar_says_that_it_compiles(capfd, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0.02)
    before = threading.active_count()

    def interrupted():
        with Bar("fit", 3):
            time.sleep(0.2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "compiling, 0 s" in capfd.readouterr().err
    assert threading.active_count() == before  # nothing draws after the end


@pytest.mark.parametrize("disabled", [False, True])
def test_the_environment_can_turn_bars_off(disabled):
    code = "from cvae.progress import Bar\nwith Bar('a fit', 3): pass"
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    environment |= {"TQDM_DISABLE": "1"} if disabled else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ("a fit" in done.stderr) is not disabled
