"""The paper's table: its protocol, a smoke run of its rows, what a second call finds, the tables, refusals."""

import csv
import json
import shutil
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

import cvae
from experiments import command, mnist_quadrants
from experiments.mnist_quadrants import Fitting, Measuring, Models, Settings, Task
from experiments.study import Data, Output

ESTIMATES = {f"{name}_{samples}" for name in ("importance_sampling", "monte_carlo") for samples in (50, 100)}


def settings(out, *, rows=("deterministic", "gsnn", "residual"), guess="none", **task) -> Settings:
    return Settings(
        task=Task(**{"quadrants": (3,)} | task),
        models=Models(rows=rows, guess=guess),
        measuring=Measuring(samples=50, many_samples=100, pictures=20),
        output=Output(out=out, smoke=True),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a smoke run of three rows."""
    return mnist_quadrants.main(settings(tmp_path_factory.mktemp("quadrants") / "run"))


def summary(folder, row: str) -> dict:
    return json.loads((folder / "quadrants_3" / row / "summary.json").read_text())


def test_a_smoke_run_writes_every_row(finished):
    for row in ("deterministic", "gsnn", "residual"):
        folder = finished / "quadrants_3" / row
        assert {"config.json", "metrics.jsonl", "summary.json", "checkpoints"} <= {p.name for p in folder.iterdir()}
        record = summary(finished, row)
        assert (record["task"], record["row"], record["protocol"]) == ("quadrants_3", row, "binary")
        assert record["missing_pixels"] == 16
        assert {"commit", "versions", "machine", "date", "seed"} <= set(record)
    figure = finished / "quadrants_3" / "residual" / "figures" / "digits_completions.png"
    assert min(Image.open(figure).size) > 500


def test_every_row_has_the_estimates_that_it_can_have(finished):
    assert set(summary(finished, "deterministic")["test"]) == {"exact"}
    gsnn = {name for name in ESTIMATES if name.startswith("monte_carlo")}
    assert set(summary(finished, "gsnn")["test"]) == gsnn
    residual = summary(finished, "residual")["test"]
    assert set(residual) == ESTIMATES | {"elbo", "rate", "distortion", "active_units"}
    for name in ESTIMATES:
        assert residual[name]["pictures"] == (20 if name.endswith("100") else 300)
    # More samples of the same pictures: a tighter bound, less noise of either.
    many, few = (residual[f"monte_carlo_{n}"] for n in (100, 50))
    assert many["nll"]["value"] < few["nll"]["value"] + 5 * many["nll"]["standard_error"]


def test_the_deterministic_score_is_the_cross_entropy_of_the_missing_pixels(finished):
    model, params, _ = cvae.load(finished / "quadrants_3" / "deterministic")
    x = cvae.preparation.binarise(mnist_quadrants.SEEDS["test"], cvae.data.load("digits").test.x) / np.float32(255)
    hidden = ~cvae.masks.fixed("quadrants_3", x.shape[1:])
    grey = cvae.data.load("digits").test.x / np.float32(255)
    c = {"image": np.where(hidden, 0, grey), "observed": np.broadcast_to(~hidden, x.shape)}
    p = np.asarray(model.decode(params, np.zeros((len(x), 0), np.float32), c).mean, np.float64)
    nll = -np.log(np.where(x == 1, p, 1 - p)[:, hidden]).sum(axis=1)
    assert hidden.sum() == 16
    exact = summary(finished, "deterministic")["test"]["exact"]["nll"]
    assert exact["value"] == pytest.approx(nll.mean(), rel=1e-5)
    assert exact["standard_error"] == pytest.approx(nll.std(ddof=1) / np.sqrt(len(nll)), rel=1e-4)


def test_the_tables_say_what_the_runs_say(finished):
    records = json.loads((finished / "table.json").read_text())
    assert [record["row"] for record in records] == ["deterministic", "gsnn", "residual"]
    with (finished / "table.csv").open() as file:
        written = list(csv.DictReader(file))
    residual = summary(finished, "residual")["test"]["importance_sampling_50"]["nll"]
    for record in (records[2], written[2]):
        assert float(record["importance_sampling_50"]) == residual["value"]
        assert float(record["importance_sampling_50_error"]) == residual["standard_error"]
    cell = f"{residual['value']:.2f} ± {residual['standard_error']:.2f}"
    text = (finished / "table.md").read_text()
    assert f"| residual | IS, S = 50 | {cell} |" in text
    few = summary(finished, "residual")["test"]["importance_sampling_50"]["nll_of_first"]
    assert f"| residual | IS, S = 50, first 20 pictures | {few['value']:.2f} ± {few['standard_error']:.2f} |" in text
    many = summary(finished, "residual")["test"]["importance_sampling_100"]["nll"]
    assert f"| residual | IS, S = 100, first 20 pictures | {many['value']:.2f} ± {many['standard_error']:.2f} |" in text


def test_a_second_call_finds_what_is_there(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("summary.json")}
    mnist_quadrants.main(settings(finished))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("summary.json")} == before
    printed = capsys.readouterr().out
    assert "quadrants_3 residual: found in" in printed
    assert "| deterministic | exact |" in printed


def test_a_row_is_of_one_split(finished):
    asked = settings(finished)
    asked = replace(asked, measuring=replace(asked.measuring, split="validation"))
    with pytest.raises(ValueError, match=r"--split must be test, as in .*, or have another --out, got validation"):
        mnist_quadrants.main(asked)


def test_a_row_of_other_pictures_is_not_found(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished / "quadrants_3" / "gsnn", folder / "quadrants_3" / "gsnn")
    dataset, (planned,), _ = mnist_quadrants.plan(settings(folder, rows=("gsnn",)))
    assert mnist_quadrants.is_found(planned, cvae.runs.digest(dataset))
    other = dataset._replace(test=dataset.test._replace(x=255 - dataset.test.x))
    assert not mnist_quadrants.is_found(planned, cvae.runs.digest(other))


def test_other_first_pictures_are_scored_too(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished / "quadrants_3" / "gsnn", folder / "quadrants_3" / "gsnn")
    asked = settings(folder, rows=("gsnn",))
    mnist_quadrants.main(replace(asked, measuring=replace(asked.measuring, pictures=30)))
    found = summary(folder, "gsnn")["test"]
    assert {name: score["pictures"] for name, score in found.items()} == {"monte_carlo_50": 300, "monte_carlo_100": 30}


def test_a_second_call_adds_the_estimates_it_lacks(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished / "quadrants_3" / "gsnn", folder / "quadrants_3" / "gsnn")
    before = summary(folder, "gsnn")["test"]
    again = settings(folder, rows=("gsnn",))
    mnist_quadrants.main(replace(again, measuring=replace(again.measuring, many_samples=150)))
    after = summary(folder, "gsnn")["test"]
    assert set(after) - set(before) == {"monte_carlo_150"}
    assert all(after[name] == before[name] for name in before)
    found, known = after["monte_carlo_150"], before["monte_carlo_100"]
    assert abs(found["nll"]["value"] - known["nll"]["value"]) < 5 * known["nll"]["standard_error"]
    assert found["pictures"] == 20


@pytest.fixture(scope="module")
def guessed(tmp_path_factory):
    """The folder of a smoke run of a CVAE with a frozen guess, the bottom half from the top, grey targets."""
    out = tmp_path_factory.mktemp("guessed") / "run"
    return mnist_quadrants.main(settings(out, rows=("cvae",), guess="frozen", protocol="grey", task="top"))


def test_grey_targets_are_scored_by_the_elbo(guessed):
    record = json.loads((guessed / "top_half" / "cvae" / "summary.json").read_text())
    assert (record["protocol"], record["missing_pixels"]) == ("grey", 32)
    assert set(record["test"]) == {"negative_elbo"}
    score = record["test"]["negative_elbo"]
    assert score["num_samples"] == 10
    model, params, config = cvae.load(guessed / "top_half" / "cvae", "cvae")
    test = mnist_quadrants.examples(config, cvae.data.load("digits").test.x, cvae.data.load("digits").test.x)
    again = -cvae.evaluate(model, params, jax.random.key(5), *test, num_samples=10).value
    assert abs(score["nll"]["value"] - again.mean()) < 5 * score["nll"]["standard_error"]
    assert "| cvae | -ELBO, grey targets |" in (guessed / "table.md").read_text()


def test_a_gsnn_is_scored_under_its_prior(tmp_path):
    for protocol, proposals in (("grey", ["prior"]), ("binary", ["prior", "prior"])):
        asked = settings(tmp_path, rows=("gsnn",), protocol=protocol)
        (plan,) = mnist_quadrants.plan(asked)[1]
        assert [e.proposal for e in mnist_quadrants.estimators(plan.config, asked.measuring)] == proposals


def test_a_frozen_guess_is_that_of_the_deterministic_network(guessed):
    run = guessed / "top_half" / "cvae"
    (_, guess, _), (_, params, config) = cvae.load(run, "guess"), cvae.load(run, "cvae")
    assert config.training.frozen == ("guess",)
    for a, b in zip(*(map(np.asarray, leaves(tree)) for tree in (guess["decoder"], params["guess"])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)  # the moving average of a constant, rounded


def leaves(tree) -> list:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    return [tree]


def test_the_split_is_the_files_own_order():
    """The first five sixths for training, the last sixth for validation; the test split stays."""
    dataset = cvae.data.load("digits")
    part = mnist_quadrants.split(dataset)
    assert (len(part.train.x), len(part.validation.x), len(part.test.x)) == (1248, 249, 300)
    joined = np.concatenate([dataset.validation.x, dataset.train.x])
    np.testing.assert_array_equal(np.concatenate([part.train.x, part.validation.x]), joined)
    np.testing.assert_array_equal(part.test.x, dataset.test.x)


def test_options_change_every_row(tmp_path):
    asked = Settings(
        data=Data(dataset="digits"),
        task=Task(quadrants=(1,)),
        models=Models(hidden=(9,), latent_layers=1, latents=6, guess="joint"),
        fitting=Fitting(alpha=0.5, omission=0.2, shift=0),
        output=Output(out=tmp_path / "run"),
    )
    plans = {plan.row: plan.config for plan in mnist_quadrants.plan(asked)[1]}
    config = plans["residual"]
    assert config.models["cvae"] == cvae.Architecture(
        (8, 8, 1), cvae.Image((8, 8, 1), "quadrants_1", stored=True), 6, (9,), "residual", prior="learned", guess=True
    )
    assert config.models["guess"].latent_size == 0
    assert (config.training.alpha, config.training.omission, config.training.frozen) == (0.5, 0.2, ())
    assert not (tmp_path / "run").exists()


def test_what_is_told_of_moves_is_nothing_for_what_is_scored(tmp_path):
    plan = mnist_quadrants.plan(settings(tmp_path, rows=("residual",)))[1][0]
    assert plan.config.training.shift == 1
    x = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    _, c = mnist_quadrants.examples(plan.config, 0 * x, x)
    np.testing.assert_array_equal(c["image"], x)
    np.testing.assert_array_equal(c["shift"], np.zeros((4, 2)))


BAD_OPTIONS = {
    "--quadrants": "--quadrants must name at least one, got none",
    "--quadrants 1 1": "--quadrants must name every one once, got 1 1",
    "--rows cvae cvae": "--rows must name every one once, got cvae cvae",
    "--samples 0": "--samples must be a whole number of at least 1, got 0",
    "--many-samples -1": "--many-samples must be a whole number of at least 0, got -1",
    "--pictures 1": "--pictures must be a whole number of at least 2, got 1",
    "--alpha 2": "alpha must be a number from 0 to 1, got 2.0",
    "--latents 7 --latent-layers 2": "latent_size must be a multiple of latent_layers, 2, got 7",
    "--hidden 0": "hidden[0] must be a whole number of at least 1, got 0",
    "--batch-size 5000": "x must hold at least one batch, 5000 examples, got 1248 examples",
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.items(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_refused_before_anything_is_written(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mnist_quadrants", "--dataset", "digits", *options.split()])
    with pytest.raises(SystemExit) as stop:
        command.run(mnist_quadrants.main, mnist_quadrants.Settings, mnist_quadrants.__doc__)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert list(tmp_path.iterdir()) == []
