"""Fits that are stopped and go on: the same bits, a line an epoch, and nobody else's folder."""

import itertools
import json
import logging
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import cvae
from cvae import runs
from tests.conftest import CLASSES, EVENT, weights

TRAINING = cvae.Training(epochs=6, batch_size=10, learning_rate=3e-3, patience=5, average=0.9)
MODEL = cvae.make(cvae.Architecture(EVENT, cvae.Label(CLASSES), 2, (7,)))
PARAMS = weights(MODEL)
FACTS = {"versions": {"jax": "1"}, "data": "abc"}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return (255 * rng.random((30, *EVENT))).astype(np.uint8), {"label": rng.integers(0, CLASSES, 30)}


def keeper(folder, *, stop_after=None, facts=FACTS, **saving):
    folder.mkdir(exist_ok=True)
    count = []

    def asked():
        count.append(0)
        return signal.SIGTERM if len(count) == stop_after else None

    return runs.Keeper(folder, "cvae", PARAMS, TRAINING, facts, asked=asked, **saving)


def fit(keeper, data):
    with keeper.saver:
        return cvae.fit(
            MODEL, PARAMS, jax.random.key(1), *data, TRAINING, validation=data,
            on_epoch=keeper.after, resume=keeper.progress, progress=False,
        )  # fmt: skip


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(line: dict) -> dict:
    return {name: value for name, value in line.items() if name not in ("seconds", "examples_per_second")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """A fit that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, fit(keeper(folder), data)


@pytest.mark.parametrize("save_every", [1, 2, None])
def test_a_fit_that_was_stopped_twice_ends_at_the_same_bits(save_every, whole, data, tmp_path):
    folder = tmp_path / "run"
    for stop_after, reached in ((2, 2), (1, 3)):
        with pytest.raises(runs.Stopped, match=f"stopped after epoch {reached} of cvae, which is saved in") as stop:
            fit(keeper(folder, stop_after=stop_after, save_every=save_every), data)
        assert stop.value.signal == signal.SIGTERM
        assert len(lines(folder)) == reached
    fitted = fit(keeper(folder, save_every=save_every), data)
    jax.tree.map(np.testing.assert_array_equal, fitted.params, whole[1].params)
    assert list(map(without_times, lines(folder))) == list(map(without_times, lines(whole[0])))
    assert len(fit(keeper(folder), data).history) == 6  # over: nothing is trained, all is there


def test_a_clock_that_jumps_does_not_matter(whole, data, tmp_path, monkeypatch):
    folder, steps = tmp_path / "run", itertools.count()
    monkeypatch.setattr(time, "time", lambda: 2e9 - 1e6 * next(steps))  # back by days at every look
    with pytest.raises(runs.Stopped):
        fit(keeper(folder, stop_after=2, save_every=1), data)
    fitted = fit(keeper(folder, save_every=1), data)
    jax.tree.map(np.testing.assert_array_equal, fitted.params, whole[1].params)
    assert [line["epoch"] for line in lines(folder)] == [1, 2, 3, 4, 5, 6]


def test_lines_after_the_checkpoint_are_written_again(data, tmp_path):
    """As of a process that was killed between two checkpoints, while it wrote a line; other models' stay."""
    folder = tmp_path / "run"
    with pytest.raises(runs.Stopped):
        fit(keeper(folder, stop_after=2), data)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"model": "vae", "epoch": 1}\n{"model": "cvae", "epoch": 3}\n{"model": "cva')
    fit(keeper(folder), data)
    assert [(line["model"], line["epoch"]) for line in lines(folder)] == [
        ("vae", 1), *(("cvae", epoch) for epoch in range(1, 7))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (FACTS | {"data": "xyz"}, "with data 'abc', not 'xyz'; --fresh starts over"),
        (FACTS | {"versions": {"jax": "2"}}, "with versions.jax '1', not '2'; --fresh starts over"),
    ],
)
def test_other_data_or_versions_are_refused(facts, message, whole, data, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(runs.Stopped):
        fit(keeper(folder, stop_after=1), data)
    handlers = list(logging.root.handlers)
    with pytest.raises(ValueError, match=message):
        keeper(folder, facts=facts)
    assert logging.root.handlers == handlers
    # Where what is saved of a fit changes with the version, the version is what is said.
    with pytest.raises(ValueError, match=message):
        runs.Keeper(folder, "cvae", PARAMS | {"more": np.zeros(3)}, TRAINING, facts)
    assert len(keeper(folder).progress.history) == 1  # nothing was set aside


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(data, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(runs.Stopped):
        fit(keeper(folder, stop_after=2), data)
    kept = keeper(folder)
    state = kept.progress.state
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), state.params)
    kept.progress = kept.progress._replace(state=state._replace(params=broken))
    with pytest.raises(FloatingPointError, match="epoch 3, step 1 is nan; try a lower learning_rate, or a clip_norm"):
        fit(kept, data)
    again = keeper(folder)
    assert len(again.progress.history) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(again.progress.state.params))
    again.saver.series.close()


HOLD = """
import pathlib, sys, time, cvae
lock = cvae.runs.Lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_is_written_by_one_process(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            ValueError, match=rf"run folder must be free, got .*, held by process {holder.pid} since 20"
        ):
            runs.Lock(tmp_path)
        holder.kill()
    lock = runs.Lock(tmp_path)  # the holder is dead, and left its file
    lock.release()
    runs.Lock(tmp_path).release()


def test_digests_tell_arrays_apart():
    one = runs.digest(({"a": np.arange(6)}, np.zeros(2)))
    assert one == runs.digest(({"a": np.arange(6)}, np.zeros(2)))
    others = [({"b": np.arange(6)}, np.zeros(2)), ({"a": np.arange(6).reshape(2, 3)}, np.zeros(2)),
              ({"a": np.arange(6)}, np.zeros(2, np.float32)), ({"a": np.arange(6)[::-1]}, np.zeros(2))]  # fmt: skip
    assert len({one, *map(runs.digest, others)}) == 5
