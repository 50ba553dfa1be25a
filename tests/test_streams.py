"""Arrays on disk: the same fit and scores as from memory, in pieces, and files that are damaged."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import cvae
from cvae import loop
from cvae.data import stream
from cvae.runs import fingerprint

SIZE, BATCH = 103, 10
TRAINING = cvae.Training(epochs=2, batch_size=BATCH)
KEY = jax.random.key(4)
MNIST = Path(os.environ.get("TFDS_DATA_DIR", "absent"), "mnist", "3.0.1")


@pytest.fixture(scope="module")
def arrays():
    """Images and labels in memory."""
    rng = np.random.default_rng(0)
    return {"x": rng.integers(0, 256, (SIZE, 6, 5, 1), np.uint8), "label": rng.integers(0, 3, SIZE)}


@pytest.fixture(scope="module")
def folder(arrays, tmp_path_factory):
    """The images in three files of different sizes, the labels in one."""
    root = tmp_path_factory.mktemp("arrays")
    (root / "x").mkdir()
    for number, part in enumerate(np.split(arrays["x"], (20, 21))):
        np.save(root / "x" / f"{number}.npy", part)
    np.save(root / "label.npy", arrays["label"])
    (root / "read.me").write_text("no array")
    return root


@pytest.fixture(scope="module")
def model():
    return cvae.make(cvae.Architecture(event_shape=(6, 5, 1), condition=cvae.Label(3), hidden=(8,)))


@pytest.fixture(scope="module")
def params(model):
    return model.init(jax.random.key(0))


@pytest.fixture(scope="module")
def examples(folder):
    found = stream(folder)
    return found["x"], {"label": found["label"]}


def in_memory(arrays):
    return arrays["x"], {"label": arrays["label"]}


def same(one, two) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_rows_are_those_of_the_files(arrays, folder):
    found = stream(folder)
    assert sorted(found) == ["label", "x"]
    x = found["x"]
    assert (x.shape, x.dtype, x.ndim, len(x)) == ((SIZE, 6, 5, 1), np.uint8, 4, SIZE)
    for rows in (slice(18, 23), np.array([[102, 0], [20, 20]]), np.array([], int), arrays["label"] == 1, [-1, 3]):
        np.testing.assert_array_equal(x[rows], arrays["x"][rows])
    np.testing.assert_array_equal(x.take(np.array([50, 3]))[:], arrays["x"][[50, 3]])
    np.testing.assert_array_equal(x.map(lambda rows: rows[:, 0] / 2)[[7]], arrays["x"][[7], 0] / 2)
    np.testing.assert_array_equal(x.sample(), arrays["x"])
    np.testing.assert_array_equal(np.asarray(x), arrays["x"])
    assert found["label"][40] == arrays["label"][40]
    assert x.place(20) == f"row 0 of {folder / 'x' / '1.npy'}"


def test_parts_of_other_names_and_files_that_change_are_refused(tmp_path):
    for name, parts in {"x": ("9", "10"), "label": ("09", "10")}.items():
        (tmp_path / name).mkdir()
        for part in parts:
            np.save(tmp_path / name / f"{part}.npy", np.zeros(4))
    with pytest.raises(
        ValueError, match=r"x must have parts of the names that those of 'label' have, .* got 09.npy, 9.npy"
    ):
        stream(tmp_path)
    shutil.rmtree(tmp_path / "label")
    x = stream(tmp_path)["x"]
    np.save(tmp_path / "new.npy", np.ones(4))
    os.utime(tmp_path / "new.npy", ns=(1, 1))
    os.replace(tmp_path / "new.npy", tmp_path / "x" / "9.npy")
    with pytest.raises(ValueError, match=r"9\.npy must stay as it was while it is read, got another one"):
        x[:]


def test_a_fit_has_the_bits_of_one_from_memory(model, params, arrays, examples, monkeypatch):
    expected = cvae.fit(model, params, KEY, *in_memory(arrays), TRAINING, progress=False)
    monkeypatch.setattr(loop, "CALL_BYTES", 3 * BATCH * 38)
    calls = list(cvae.epochs(model, params, KEY, *examples, TRAINING, within=True))
    assert [each.part and each.part.steps for each in calls] == [2, 4, 6, 8, None] * 2
    same(calls[-1].result, expected.params)
    assert [epoch[:4] for epoch in calls[-1].history] == [epoch[:4] for epoch in expected.history]


@pytest.mark.parametrize("after", [0, 2, 5, 7])
def test_a_fit_goes_on_within_an_epoch(model, params, examples, monkeypatch, after):
    monkeypatch.setattr(loop, "CALL_BYTES", 3 * BATCH * 38)
    calls = list(cvae.epochs(model, params, KEY, *examples, TRAINING, within=True))
    resumed = list(cvae.epochs(model, calls[after], KEY, *examples, TRAINING, within=True))
    assert len(resumed) == len(calls) - after - 1
    same(resumed[-1].state, calls[-1].state)
    assert [epoch[:4] for epoch in resumed[-1].history] == [epoch[:4] for epoch in calls[-1].history]


def test_an_interrupted_fit_says_how_far_it_came(model, params, examples, monkeypatch):
    monkeypatch.setattr(loop, "CALL_BYTES", 3 * BATCH * 38)
    taken, added = [], loop._added

    def interrupted(*args):
        taken.append(1)
        if len(taken) == 8:
            raise KeyboardInterrupt
        return added(*args)

    monkeypatch.setattr(loop, "_added", interrupted)
    with pytest.warns(UserWarning, match="interrupted after 1 of 2 epochs and 4 steps; their parameters are returned"):
        fitted = cvae.fit(model, params, KEY, *examples, TRAINING, progress=False)
    monkeypatch.undo()
    assert len(fitted.history) == 1


def test_scores_are_those_from_memory(model, params, arrays, examples):
    for function, options in ((cvae.evaluate, {}), (cvae.log_likelihood, {"num_samples": 3})):
        expected = function(model, params, KEY, *in_memory(arrays), batch_size=20, **options)
        same(function(model, params, KEY, *examples, batch_size=20, **options), expected)


def test_numbers_far_from_0_keep_their_digits(tmp_path):
    x = 1.7e9 + 300 * np.random.default_rng(0).standard_normal((40, 2))
    np.save(tmp_path / "x.npy", x)
    model = cvae.make(cvae.Architecture(event_shape=(2,), hidden=(4,), likelihood=cvae.Normal.fitted(x)))
    params, training = model.init(jax.random.key(0)), cvae.Training(epochs=1, batch_size=8)
    both = [cvae.fit(model, params, KEY, each, {}, training, progress=False) for each in (x, stream(tmp_path)["x"])]
    same(both[0].params, both[1].params)


def test_a_sweep_takes_arrays_on_disk_one_member_at_a_time(model, arrays, examples):
    chosen = cvae.sweeps.members(cvae.Sweep(latent_sizes=(1, 2), seeds=(0,)))
    with pytest.raises(ValueError, match="x and c must be in memory for members side by side"):
        cvae.sweeps.fit_members(model, chosen, *examples, TRAINING, parallel=2)
    one = cvae.sweeps.fit_members(model, chosen[:1], *examples, TRAINING)
    two = cvae.sweeps.fit_members(model, chosen[:1], *in_memory(arrays), TRAINING)
    same(one[0].params, two[0].params)


def test_bad_values_are_named_by_their_place(model, params, arrays, tmp_path):
    """One of the last rows: too many for the sample that is checked first."""
    np.save(tmp_path / "x.npy", arrays["x"])
    np.save(tmp_path / "label.npy", np.where(np.arange(SIZE) == 98, 7, arrays["label"]))
    found = stream(tmp_path)
    at = f"c\\['label'\\] \\(from row 98 of {tmp_path}/label.npy\\) must be integers in \\[0, 3\\), got 7"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cvae.streamed.SAMPLE_ROWS", 3)
        with pytest.raises(ValueError, match=at):
            cvae.fit(model, params, KEY, found["x"], {"label": found["label"]}, TRAINING, progress=False)
    with pytest.raises(ValueError, match="c\\['label'\\] must hold one entry per example of x, 103, got 20"):
        cvae.fit(model, params, KEY, found["x"], {"label": found["label"].take(np.arange(20))}, TRAINING)
    static = cvae.replace(TRAINING, binarization="static")
    with pytest.raises(ValueError, match="binarization must be none or dynamic for examples on disk, got static"):
        cvae.fit(model, params, KEY, found["x"], {"label": arrays["label"]}, static)
    few = found["x"].take(np.arange(4)), {"label": arrays["label"][:4]}
    with pytest.raises(ValueError, match="batch_size must be at most the number of examples \\(4\\), got 10"):
        cvae.fit(model, params, KEY, *few, TRAINING)


def test_damaged_parts_are_named_or_left_out(arrays, tmp_path):
    for name, values in arrays.items():
        (tmp_path / name).mkdir()
        for number, part in enumerate(np.split(values, (20, 50))):
            np.save(tmp_path / name / f"{number}.npy", part)
    damaged = tmp_path / "x" / "1.npy"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"x/1.npy must hold the bytes of uint8"):
        stream(tmp_path)
    with pytest.warns(UserWarning, match=r"left out: .*x/1.npy must hold the bytes of uint8"):
        found = stream(tmp_path, skip_damaged=True)
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name][:], np.delete(values, slice(20, 50), axis=0))
    (tmp_path / "x" / "0.npy").write_bytes(damaged.read_bytes())  # while it is read
    with pytest.raises(ValueError, match=r"x/0.npy must stay as it was while it is read"):
        found["x"][:3]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "must hold arrays as NAME.npy or NAME/\\*.npy, got none"),
        (shutil.rmtree, "must be an .npy file or a folder, got nothing of the kind"),
        (lambda root: np.save(root / "x.npy", np.zeros((0, 3))), "'x' must hold a row, got none"),
        (lambda root: [(root / "x").mkdir(), np.save(root / "x/0.npy", np.zeros((2, 3))),
                       np.save(root / "x/1.npy", np.zeros((2, 4)))],
         "x/1.npy must hold float64 values \\[N, 3\\], as 0.npy, got float64 of shape \\(2, 4\\)"),
    ],
)  # fmt: skip
def test_what_is_no_array_on_disk_is_refused(prepare, message, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    prepare(root)
    with pytest.raises(ValueError, match=message):
        stream(root)


def test_fingerprints_are_of_shapes_and_samples(folder, arrays):
    x = stream(folder)["x"]
    assert fingerprint({"x": x}) == fingerprint({"x": arrays["x"]})
    assert fingerprint({"x": x.take(np.arange(50))}) != fingerprint({"x": x})


@pytest.mark.skipif(not MNIST.is_dir(), reason="needs the real MNIST in TFDS_DATA_DIR")
def test_mnist_is_read_from_its_records():
    found = stream(MNIST, split="test")
    assert {name: (each.shape, each.dtype) for name, each in found.items()} == {
        "image": ((10_000, 28, 28, 1), np.uint8),
        "label": ((10_000,), np.int64),
    }
    images, labels = found["image"][[0, 9_999]], found["label"][[0, 9_999]]
    whole = cvae.data.load("mnist", MNIST.parent.parent).test
    for image, label in zip(images, labels, strict=True):
        rows = (whole.x == image).reshape(len(whole.x), -1).all(axis=1)
        assert whole.label[rows].tolist() == [label]


def test_the_numbers_of_an_epoch_that_is_not_finished_survive_json():
    part = loop.Part(3, 10, cvae.training.Metrics(0.1, [0.2, 1e30], -1 / 3), 5.5, 0.25)
    stored = json.loads(json.dumps(cvae.runs.part_to_json(part)))
    assert cvae.runs.part_from_json(stored) == part
    assert cvae.runs.part_from_json(cvae.runs.part_to_json(None)) is None
