"""A user's own arrays, from the file to the run folder: what is fitted, in which units, and what is refused."""

import json
import math
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.stats import multivariate_normal, norm
from sklearn.datasets import load_digits

import cvae
from experiments import command, fit, own
from tests.commands import ROOT, assert_refused
from tests.commands import call as call_module
from tests.commands import run as run_module

QUICK = ["--hidden", "16", "--latents", "2", "--num-samples", "20"]

# Rows whose density is known: r | age ~ N(offset + slope (age - 40), factor factor^T).
SIZE = 2000
OFFSET, SLOPE = np.array([5.0, 1000.0]), np.array([0.1, 0.5])
FACTOR = np.array([[2.0, 0.0], [8.0, 6.0]])
ENTROPY = 1 + math.log(2 * math.pi) + math.log(np.linalg.det(FACTOR))


def files(folder):
    """The arrays that the tests fit."""
    rng = np.random.default_rng(7)
    age = rng.normal(40, 12, SIZE)
    rows = OFFSET + (age[:, None] - 40) * SLOPE + rng.normal(size=(SIZE, 2)) @ FACTOR.T
    # The third column never varies.
    np.savez(folder / "table.npz", rows=np.insert(rows, 1, 7.0, axis=1), age=age)
    digits = load_digits()
    few = slice(400)
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    colour = np.stack([pixels, 255 - pixels, pixels // 2], axis=-1)
    np.savez(
        folder / "digits.npz",
        pixels=pixels[few],
        colour=colour[few] * 2.0 - 100,
        digit=digits.target[few],
        ink=digits.images[few].mean(axis=(1, 2)),
        seen=np.broadcast_to(np.arange(8) < 5, (8, 8)),
    )


def call(monkeypatch, folder, *arguments):
    """The command line, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["fit", *arguments])
    command.run(fit.main, fit.Settings, fit.__doc__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files, in which runs are made."""
    folder = tmp_path_factory.mktemp("fit")
    files(folder)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    """The run folder of rows told a number."""
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["--hidden", "64", "--latents", "2", "--epochs", "120", "--num-samples", "100"]
        call(patch, folder, "--data", "table.npz", "--x", "rows", "--condition", "continuous=age", *arguments)
    return folder / "runs" / "fit_table"


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def test_nats_of_rows_are_in_the_units_of_the_file(table):
    summary = summary_of(table)
    assert summary["unit"] == "nats per row, x in the units of the file"
    assert summary["examples"] == {"train": 1600, "validation": 200, "test": 200}
    test = summary["test"]["cvae"]
    value, error = test["log_likelihood"].values()
    # No model can be below the entropy; a fitted one comes near it.
    assert -value > ENTROPY - 5 * error
    assert -value < ENTROPY + 5 * error + 0.3
    assert test["elbo"]["value"] < value + 1e-3
    assert test["elbo"]["value"] == pytest.approx(-test["rate"]["value"] - test["distortion"]["value"], abs=1e-3)
    assert test["active_units"]["active"] >= 1


def test_the_fitted_model_is_used_again_in_the_units_of_the_file(table, folder):
    model, params, units = fit.load(table)
    with np.load(folder / "table.npz") as file:
        rows, age = file["rows"], file["age"][:, None]
    split = cvae.arrays.split(SIZE, 0)
    record = json.loads((table / "preprocessing.json").read_text())
    assert record["split"] == {"seed": 0, "validation": 0.1, "test": 0.1}
    assert record["conditions"] == {"age": "age"}
    np.testing.assert_allclose(units.mean, [rows[split.train, 0].mean(), 7, rows[split.train, 2].mean()])
    assert units.kept.tolist() == [True, False, True]
    np.testing.assert_allclose(units.undo(units.apply(rows)), rows, rtol=1e-6, atol=1e-5)

    c = {"age": age[split.test]}
    scored = cvae.log_likelihood(model, params, jax.random.key(5), units.apply(rows[split.test]), c, num_samples=100)
    reported, error = summary_of(table)["test"]["cvae"]["log_likelihood"].values()
    assert abs(scored.value.mean() - reported) < 5 * error
    truth = [
        multivariate_normal(OFFSET + SLOPE * (a - 40), FACTOR @ FACTOR.T).logpdf(row[[0, 2]])
        for row, (a,) in zip(rows[split.test], age[split.test], strict=True)
    ]
    gap = cvae.evaluation.mean(np.array(truth) - scored.value)
    assert -5 * gap.standard_error < gap.value < 0.3 + 5 * gap.standard_error

    drawn = units.undo(fit.generate(fit.study.Trained(model, params, []), jax.random.key(1), SIZE, {"age": age}))
    assert (drawn[:, 1] == 7).all()
    for column in (0, 2):
        apart = cvae.evaluation.mean(drawn[:, column] - rows[:, column])
        assert abs(apart.value) < 5 * apart.standard_error + 0.15 * rows[:, column].std()
    assert abs(np.corrcoef(drawn[:, 0], age[:, 0])[0, 1] - np.corrcoef(rows[:, 0], age[:, 0])[0, 1]) < 0.1


def test_a_run_of_rows_holds_what_other_runs_hold(table):
    assert sorted(path.name for path in table.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "figures",
        "metrics.jsonl",
        "preprocessing.json",
        "progress",
        "summary.json",
    ]
    assert {path.name for path in (table / "figures").iterdir()} == {
        "table_curves.png",
        "table_marginals.png",
        "table_pair.png",
    }
    _, _, config = cvae.load(table)
    (age,) = config.models["cvae"].condition.names
    assert (age, config.models["cvae"].event_shape) == ("age", (2,))
    assert isinstance(config.models["cvae"].likelihood, cvae.likelihoods.Normal)
    lines = [json.loads(line) for line in (table / "metrics.jsonl").read_text().splitlines()]
    best = min(line["validation"]["loss"] for line in lines)
    assert abs(best + summary_of(table)["test"]["cvae"]["elbo"]["value"]) < 1  # curves are in the same units


def test_pictures_with_several_conditions(folder, monkeypatch, capsys):
    told = ["--condition", "label=digit", "--condition", "continuous=ink"]
    call(monkeypatch, folder, "--data", "digits.npz", "--x", "pixels", *told, "--epochs", "3", *QUICK)
    printed, run = capsys.readouterr().out, folder / "runs" / "fit_digits"
    for text in ("digits, 40 test examples; nats per picture, x in [0, 1]", "ELBO", "log p(x | c)", "of 2 latents"):
        assert text in printed
    model, _, units = fit.load(run)
    architecture = cvae.load(run)[2].models["cvae"]
    assert (model, units) == (cvae.make(architecture), own.Units())
    assert architecture.event_shape == (8, 8, 1)
    assert [part.names for part in architecture.condition.parts] == [("digit",), ("ink",)]
    for name in ("reconstructions", "samples", "curves"):
        width, height = Image.open(run / "figures" / f"digits_{name}.png").size
        assert min(width, height) > 200
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_completions_of_coloured_pictures(folder):
    asked = own.Input(folder / "digits.npz", "colour", ("label=digit", "image=seen"))
    planned = fit.plan(fit.Settings(asked, fit.Model(latents=2, hidden=(4,)), output=fit.Output(out=folder / "never")))
    assert planned.unit == "nats per hidden part of a picture, x in the units of the file"
    condition = planned.taken.condition
    assert isinstance(condition, cvae.Mixed)
    assert condition.stored_names == ("digit", "observed")
    model = own.in_units(cvae.make(planned.config.models["cvae"]), planned.taken.units.log_std)
    trained = fit.study.Trained(model, model.init(jax.random.key(0)), [])
    x, c = condition_cut(planned, model)
    figure = fit.samples(planned, trained, jax.random.key(1), x, c)
    assert "completed" in figure.get_suptitle()
    canvas = figure.axes[0].images[0].get_array()
    # What is seen of the first picture, its five columns on the left, stands there in its own colours.
    np.testing.assert_allclose(canvas[:8, :5], fit.shown(planned, x[0])[:, :5], atol=1e-6)
    assert not (folder / "never").exists()


def condition_cut(planned, model):
    """Test examples as the model sees them."""
    x, c = planned.parts["test"]
    return jax.tree.map(np.asarray, cvae.model.default_preparation(model)(jax.random.key(0), x, c))


def take(folder, x, *conditions, **options):
    """What the arrays of the digits become."""
    return own.take(own.Input(folder / "digits.npz", x, conditions), 0, **options)


def test_likelihoods_that_suit(folder):
    assert take(folder, "pixels").likelihood == cvae.likelihoods.Bernoulli()
    assert take(folder, "pixels").x.dtype == np.uint8
    assert take(folder, "colour").likelihood == cvae.likelihoods.Normal()
    assert take(folder, "pixels", scale=0.5).likelihood == cvae.likelihoods.Normal(0.5)
    assert take(folder, "pixels", family="continuous_bernoulli").likelihood == cvae.likelihoods.ContinuousBernoulli()
    np.savez(folder / "kinds.npz", grey=np.random.default_rng(0).random((30, 4, 3)), bits=np.eye(30) > 0)
    grey, bits = (own.take(own.Input(folder / "kinds.npz", name), 0) for name in ("grey", "bits"))
    assert (grey.likelihood, grey.x.shape, grey.x.dtype) == (cvae.likelihoods.Bernoulli(), (30, 4, 3, 1), np.float32)
    assert (bits.likelihood, bits.x.dtype) == (cvae.likelihoods.Bernoulli(), np.float32)


def test_statistics_are_of_the_training_part(folder):
    colour = take(folder, "colour")
    x = colour.x[colour.split.train].astype(np.float64)
    assert (x.mean(), x.std()) == pytest.approx((0, 1), abs=1e-5)  # of all elements together
    assert np.abs(x.mean(axis=0)).max() > 0.1
    told = take(folder, "pixels", "continuous=ink")
    values = told.c["ink"][told.split.train]
    assert told.condition.mean == pytest.approx((values.mean(),))
    assert told.condition.std == pytest.approx((values.std(),))
    assert not told.said


def test_masks_by_name_and_given(folder):
    named = take(folder, "pixels", "image=top_half")
    assert (named.condition, named.c) == (cvae.Image((8, 8, 1), "top_half"), {})
    given = take(folder, "colour", "image=seen")
    assert given.condition == cvae.Image((8, 8, 3), "given")
    observed = given.c["observed"]
    assert observed.shape == (400, 8, 8, 3)
    assert (observed == (np.arange(8) < 5)[:, None]).all()
    assert given.record["conditions"] == {"image": "seen"}


def test_densities_are_those_of_the_file_and_of_what_is_hidden():
    """Rows of a model that was never fitted: hidden columns have the density that scipy gives them before scaling."""
    rng = np.random.default_rng(1)
    log_std = (0.5, -2.0, 3.0)
    likelihood = cvae.likelihoods.Normal()
    model = cvae.make(cvae.Architecture((3,), cvae.Image((3,), "given"), 2, (4,), likelihood=likelihood))
    params = jax.jit(model.init)(jax.random.key(0))
    x, z = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 3), (5, 2)))
    seen = rng.random((5, 3)) < 0.4
    p = jax.jit(own.in_units(model, log_std).decode)(params, z, {"image": np.where(seen, x, 0), "observed": seen})
    scale = np.exp(log_std)
    plain = p.likelihood.likelihood
    truth = np.where(seen, 0, norm(plain.mean * scale, plain.std * scale).logpdf(x * scale))
    np.testing.assert_allclose(p.log_prob(x), truth.sum(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(p.log_terms(x), truth, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(p.mean, np.where(seen, x, plain.mean))
    whole = norm(plain.mean * scale, plain.std * scale).logpdf(x * scale).sum(axis=1)
    np.testing.assert_allclose(p.likelihood.log_prob(x), whole, rtol=1e-5, atol=1e-5)
    alike = own.InUnits(plain, np.array([2.0], np.float32))  # one for all elements, as of pictures
    np.testing.assert_allclose(alike.log_prob(x), alike.log_terms(x).sum(axis=1), rtol=1e-5)
    assert own.in_units(model, ()) is model


def test_what_is_said(folder):
    rng = np.random.default_rng(0)
    arrays = {"2 b": rng.random(40), "self": rng.random(40), "observed": rng.random(40), "a-b": rng.random(40)}
    arrays |= {"a b": rng.random(40), "on": rng.random((4, 3)) < 0.5}
    np.savez(folder / "odd.npz", x=(rng.random((40, 4, 3)) < 0.5).astype(np.uint8), **arrays)
    told = [f"continuous={name}" for name in ("2 b", "self", "observed", "a-b", "a b")]
    taken = own.take(own.Input(folder / "odd.npz", None, (*told, "image=on")), 0)
    assert set(taken.c) == {"_2_b", "self_2", "observed_2", "a_b", "a_b_2", "observed"}
    assert taken.record["conditions"]["a_b_2"] == "a b"
    assert taken.said == [
        "x is 'x', uint8 (40, 4, 3)",
        "'x' holds 0 and 1 only, and is taken as black and white",
        "the array '2 b' is called '_2_b' as a condition",
        "the array 'self' is called 'self_2' as a condition",
        "the array 'observed' is called 'observed_2' as a condition",
        "the array 'a-b' is called 'a_b' as a condition",
        "the array 'a b' is called 'a_b_2' as a condition",
    ]
    constant = own.take(own.Input(folder / "table.npz", "rows"), 0)
    assert constant.said == ["left out of the model, because constant in the training part: column 1 of 'rows'"]
    assert constant.x.shape == (SIZE, 2)


N = 40
RNG = np.random.default_rng(2)
ARRAYS = {
    "x": RNG.integers(0, 256, (N, 4, 3), dtype=np.uint8),
    "rows": RNG.standard_normal((N, 3)),
    "line": RNG.standard_normal(N),
    "digit": np.arange(N) % 3,
    "short": np.arange(N - 1) % 3,
    "age": RNG.standard_normal(N),
    "negative": np.where(np.arange(N) == 5, -2, np.arange(N) % 3),
    "codes": np.where(np.arange(N) == 5, 10**9, np.arange(N) % 3),
    "zeros": np.zeros(N, int),
    "holes": np.where(np.arange(N) == 3, np.nan, 1.0),
    "huge": np.where(np.arange(N) == 3, 1e300, 1.0),
    "wide": np.zeros((N, 2, 2)),
    "all_seen": np.ones((4, 3), bool),
    "one_seen": np.arange(N)[:, None, None] * np.ones((1, 4, 3)) == 6,
    "turned": np.zeros((3, 4), bool),
    "top_half": np.zeros((4, 3), bool),
    "integers": RNG.integers(0, 256, (N, 4, 3)),
    "bad_rows": np.where(np.arange(N)[:, None] == 7, np.inf, RNG.standard_normal((N, 2))),
    "same": np.full((N, 3), 4.0),
    "few": RNG.standard_normal((9, 2)),
    "empty": np.zeros((0, 4, 3), np.uint8),
}
LATE = int(cvae.arrays.split(N, 0).test[0])
ARRAYS["late"] = np.where(np.arange(N) == LATE, 3, np.arange(N) % 3)
REFUSED = {
    "--x pixel": "must hold an array 'pixel', got a file with",
    "--x rowss": "did you mean 'rows'?",
    "": "--x must be given unless one array alone will do ([N, D], [N, H, W, C]), got ['x', 'rows',",
    "--x line": "'line' must have shape [N, D], [N, H, W] or [N, H, W, C], got (40,) (add an axis: [:, None])",
    "--x integers": "'integers' must be uint8 or floats, as pictures are, got int64 (from 0 to 255? save it with",
    "--x bad_rows": "'bad_rows' must be finite numbers, below 3.4e38, got inf at row 7",
    "--x same": "'same' must vary, got 4 throughout the training part",
    "--x few": "'few' must leave every part two examples, got 9 in all",
    "--x empty": "'empty' must hold something, got shape (0, 4, 3)",
    "--x rows --likelihood bernoulli": "'rows' must be uint8 or in [0, 1] for --likelihood bernoulli, got values from",
    "--x x --likelihood bernoulli --scale 1": "--scale must be left out with --likelihood bernoulli, got 1.0",
    "--x rows --scale 0": "scale must be a finite number above 0, got 0.0",
    "--x x --condition age": "--condition must be KIND=NAME, such as label=digit, got 'age'",
    "--x x --condition label=": "--condition must be KIND=NAME, such as label=digit, got 'label='",
    "--x x --condition labels=digit": "among label, continuous, image, got 'labels=digit'; did you mean label=digit?",
    "--x x --condition colour=digit": "must be of a kind among label, continuous, image, got 'colour=digit'",
    "--x x --condition label=digit --condition continuous=digit": "must name every array once, got 'digit' twice",
    "--x x --condition continuous=x": "--condition must name another array than --x, got 'continuous=x'",
    "--x x --condition label=digits": "did you mean 'digit'?",
    "--x x --condition label=short": "'short' must hold one entry an example of 'x', 40 of them, got 39",
    "--x x --condition label=age": "'age' must be integers [N], got float64 (40,)",
    "--x x --condition label=negative": "'negative' must be classes from 0 on, got -2 at row 5",
    "--x x --condition label=codes": "return_inverse=True) does), below 40, got 1000000000 at row 5",
    "--x x --condition label=late": f"'late' must be in [0, 3), the classes of the training part, got 3 at row {LATE}",
    "--x x --condition label=zeros": "'zeros' must name two classes at least, got 0 in every row",
    "--x x --condition continuous=holes": "'holes' must be finite numbers, below 3.4e38, got nan at row 3",
    "--x x --condition continuous=huge": "'huge' must be finite numbers, below 3.4e38, got 1e+300 at row 3",
    "--x x --condition continuous=zeros": "'zeros' must vary, got 0 in every row of column 0, in the training part",
    "--x x --condition continuous=wide": "'wide' must be real numbers [N] or [N, D], got float64 (40, 2, 2)",
    "--x x --condition continuous=top_half": "'top_half' must hold one entry an example of 'x', 40 of them, got 4",
    "--x x --condition image=top_half": "must name a mask or an array, got 'top_half', which is both",
    "--x x --condition image=left_halve": "got 'left_halve'; did you mean 'left_half'?",
    "--x x --condition image=all_seen": "'all_seen' must hide something of every example, got nothing hidden at row 0",
    "--x x --condition image=one_seen": "must hide something of every example, got nothing hidden at row 6",
    "--x x --condition image=turned": "'turned' must be boolean, True where x is seen, of a shape among (4, 3, 1),",
    "--x x --condition image=rows": "got float64 (40, 3)",
    "--x rows --condition image=left_half": "mask must be random_pixels or given for ",
    "--x x --condition image=turned --condition image=all_seen": "--condition must name one image at most",
    "--x x --prior learned": "prior must be standard without a condition, got learned",
    "--x x --batch-size 33": "x must hold at least one batch, 33 examples, got 32 examples",
    "--x x --batch-size 0": "batch_size must be a whole number of at least 1, got 0",
    "--x x --latents 0": "--latents must be a whole number of at least 1, got 0",
    "--x x --epochs 0": "epochs must be a whole number of at least 1, got 0",
    "--x x --patience 0": "patience must be a whole number of at least 1, got 0",
    "--x x --num-samples 0": "--num-samples must be a whole number of at least 1, got 0",
    "--x x --seed -1": "--seed must be a whole number of at least 0, got -1",
    "--x x --test 0.95": "validation + test must be below 1, got 0.1 + 0.95",
}


@pytest.mark.parametrize(("options", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_refusals_are_one_line_and_leave_nothing(options, message, tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "mine.npz", **ARRAYS)
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, tmp_path, "--data", "mine.npz", *options.split())
    errors = capsys.readouterr().err
    assert (stop.value.code, errors.count("\n")) == (2, 1), errors
    assert message in errors
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


@pytest.mark.parametrize("kind", ["absent", "truncated", "pickled", "text"])
def test_files_that_are_none_are_refused(kind, tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.npz"
    if kind == "pickled":
        np.savez(path, x=np.array([{"a": 1}], dtype=object))
    elif kind != "absent":
        np.savez(path, **ARRAYS)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if kind == "truncated" else b"a,b\n1,2\n")
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, tmp_path, "--data", "mine.npz", "--x", "x")
    errors = capsys.readouterr().err
    assert (stop.value.code, errors.count("\n")) == (2, 1), errors
    said = {"absent": "no such file", "truncated": "damaged", "pickled": "only a pickle", "text": "starts with b'a,b"}
    assert said[kind] in errors
    assert not (tmp_path / "runs").exists()


def test_small_sets_get_small_batches_and_no_option_is_needed(folder):
    np.savez(folder / "small.npz", x=RNG.standard_normal((30, 4)), note=np.arange(30))
    planned = fit.plan(fit.Settings(own.Input(folder / "small.npz")))
    (architecture,) = planned.config.models.values()
    assert (planned.config.training.batch_size, planned.config.training.epochs) == (2, 500)
    assert (architecture.latent_size, architecture.hidden) == (4, (128, 128))
    assert planned.config.training.patience == 50
    assert [len(x) for x, _ in planned.parts.values()] == [24, 3, 3]


def test_a_folder_that_is_no_run_of_fit_is_refused(table, tmp_path):
    with pytest.raises(ValueError, match=r"run must be a folder of experiments\.fit"):
        fit.load(tmp_path)
    (tmp_path / "preprocessing.json").write_text("{}")
    for name in ("config.json", "checkpoints"):
        (tmp_path / name).symlink_to(table / name)
    with pytest.raises(ValueError, match="must be as it was written"):
        fit.load(tmp_path)


def test_help_is_quick_and_imports_no_jax(tmp_path):
    began = time.perf_counter()
    result = run_module("experiments.fit", "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert time.perf_counter() - began < 10  # under one on an idle machine; importing JAX alone may take longer
    for option in ("data", "x", "condition", "likelihood", "scale", "patience", "num-samples", "out"):
        assert f"--{option} " in result.stdout
    code = "import sys, experiments.fit; sys.exit('jax' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_other_arrays_under_the_same_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    command_line = ["--data", "mine.npz", "--x", "x", *QUICK, "--epochs", "2", "--out", "run"]
    np.savez("mine.npz", x=rng.random((60, 5), np.float32))
    assert call_module(fit, *command_line).returncode == 0
    assert "finished already" in call_module(fit, *command_line).stdout
    summary = summary_of(tmp_path / "run")
    np.savez("mine.npz", x=rng.random((60, 5), np.float32))
    assert_refused(
        call_module(fit, *command_line), "run folder must be gone on with as it was begun, got run/progress/"
    )
    assert summary_of(tmp_path / "run") == summary
