"""Thickness and slant on request: a smoke run, a second one, what is counted as a failure, and what is refused."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import cvae
from experiments import command, mnist_attribute, study
from tests.commands import afresh

MODELS = ("attribute", "attribute_label")
FIGURES = ("asked_attribute", "asked_attribute_label", "curves", "grid_3")


def settings(out: Path, **models) -> mnist_attribute.Settings:
    return mnist_attribute.Settings(
        models=mnist_attribute.Models(**models),
        output=mnist_attribute.Output(out=out, num_samples=5, digit=3, smoke=True),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a smoke run."""
    return mnist_attribute.main(settings(tmp_path_factory.mktemp("attribute") / "run"))


@pytest.fixture(scope="module")
def splits():
    return mnist_attribute.measured(cvae.data.load("digits"))


def test_smoke_run_writes_everything(finished):
    config = cvae.runs.read_config(finished)
    assert config.dataset == "digits"
    assert tuple(config.models) == MODELS
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["model"], line["epoch"]) for line in lines] == [(m, e) for m in MODELS for e in (1, 2, 3)]
    assert {path.name for path in (finished / "figures").iterdir()} == {f"digits_{name}.png" for name in FIGURES}
    for name in FIGURES:
        assert min(Image.open(finished / "figures" / f"digits_{name}.png").size) > 300
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary["seconds"]) == {*MODELS, "total"}
    assert {"commit", "versions", "machine", "date", "seed"} <= set(summary)


def test_the_condition_is_standardised_by_the_training_pictures(finished, splits):
    stroke = splits["train"][1]["stroke"]
    for name in MODELS:
        condition = cvae.load(finished, name)[0].architecture.condition
        part = condition if name == "attribute" else condition.parts[1]
        np.testing.assert_allclose(part.mean, stroke.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(part.std, stroke.std(axis=0), rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_summary_is_what_the_saved_models_score(finished, splits, name):
    row = json.loads((finished / "summary.json").read_text())["test"][name]
    model, params, _ = cvae.load(finished, name)
    params = jax.tree.map(
        np.asarray, params
    )  # as the run had them, on no device in particular: nothing is compiled anew
    x, c = mnist_attribute.told(model, splits["test"])
    # Other draws of z than the run's, so equal within the noise of both.
    key = jax.random.key(99)
    bound = study.plain(study.bound(model, params, key, x, c))
    assert row["rate"] == pytest.approx(bound["rate"], rel=1e-4)
    assert row["active_units"]["active"] == bound["active_units"]["active"]
    for term in ("elbo", "distortion"):
        assert abs(row[term]["value"] - bound[term]["value"]) < 5 * row[term]["standard_error"]
    assert row["elbo"]["value"] == pytest.approx(-row["rate"]["value"] - row["distortion"]["value"], rel=1e-5)
    scored = study.likelihood(model, params, key, x, c, num_samples=5, progress=False)["log_likelihood"]
    assert abs(row["log_likelihood"]["value"] - scored.value) < 5 * scored.standard_error
    assert row["log_likelihood"]["value"] > row["elbo"]["value"]
    assert (row["examples"], row["num_samples"], row["not_measurable"]) == (len(x), 5, 0)
    drawn = mnist_attribute.generate(study.Trained(model, params, []), key, c)
    again = study.plain(mnist_attribute.obedience(c["stroke"], drawn))
    for measure in ("correlation", "mean_absolute_error"):
        for attribute, estimate in row[measure].items():
            error = again[measure][attribute]["standard_error"]
            assert abs(estimate["value"] - again[measure][attribute]["value"]) < 5 * error


def test_the_same_command_started_over_gives_the_same_numbers(finished, capsys):
    before = json.loads((finished / "summary.json").read_text())["test"]
    mnist_attribute.main(afresh(settings(finished)))
    assert json.loads((finished / "summary.json").read_text())["test"] == before
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 6
    printed = capsys.readouterr().out
    assert "digits, 300 test pictures, nats per picture" in printed
    assert all(name in printed for name in (*MODELS, "thickness: r", "not measurable", "digits_grid_3.png"))


def test_another_config_in_the_same_folder_is_refused(finished):
    with pytest.raises(ValueError, match=r"conditioning 'concat_all', not 'film'; choose another folder or delete it"):
        mnist_attribute.main(settings(finished, conditioning="film"))


def test_a_picture_that_cannot_be_measured_is_left_out():
    dataset = cvae.data.load("digits")
    train = cvae.data.Split(dataset.train.x[:7].copy(), dataset.train.label[:7])
    train.x[2] = 0
    with pytest.warns(UserWarning, match="leaving out 1 train pictures whose stroke cannot be measured"):
        splits = mnist_attribute.measured(dataset._replace(train=train))
    x, c = splits["train"]
    np.testing.assert_array_equal(x, np.delete(train.x, 2, axis=0))
    np.testing.assert_array_equal(c["label"], np.delete(train.label, 2))
    np.testing.assert_array_equal(c["stroke"], cvae.attributes.measure(x))
    assert [len(splits[name][0]) for name in splits] == [6, 200, 300]


def test_obedience_counts_what_cannot_be_measured_and_correlates_the_rest():
    asked = np.array([[1, 0.1], [2, 0.3], [4, -0.2], [3, 0.5], [2, 0.0]])
    drawn = asked + np.array([0.5, np.pi / 180])
    drawn[3, 1] = np.nan
    found = mnist_attribute.obedience(asked, drawn)
    assert found["not_measurable"] == 1
    for estimate in found["correlation"].values():
        assert estimate == (pytest.approx(1), pytest.approx(0, abs=1e-7))
    assert found["mean_absolute_error"]["thickness_px"] == (pytest.approx(0.5), pytest.approx(0, abs=1e-7))
    assert found["mean_absolute_error"]["slant_degrees"] == (pytest.approx(1), pytest.approx(0, abs=1e-7))
    nothing = mnist_attribute.obedience(asked, np.full_like(asked, np.nan))
    assert nothing["not_measurable"] == 5
    assert np.isnan(nothing["correlation"]["slant"].value)


BAD_OPTIONS = {
    "--latents 0": "--latents must be a whole number of at least 1, got 0",
    "--hidden 64 0": "hidden[1] must be a whole number of at least 1, got 0",
    "--epochs 0": "epochs must be a whole number of at least 1, got 0",
    "--batch-size 2000": "x must hold at least one batch, 2000 examples, got 1297 examples",
    "--num-samples 0": "--num-samples must be a whole number of at least 1, got 0",
    "--seed -1": "seed must be a whole number of at least 0, got -1",
    "--digit 10": "--digit must be a class in [0, 10), got 10",
    "--digit -1": "--digit must be a class in [0, 10), got -1",
    "--smoke --dataset mnist": "--dataset must be digits with --smoke, got 'mnist'",
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.items(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_refused_before_anything_is_written(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = options.split() if "--dataset" in options else ["--dataset", "digits", *options.split()]
    monkeypatch.setattr(sys, "argv", ["mnist_attribute", *arguments])
    with pytest.raises(SystemExit) as stop:
        command.run(mnist_attribute.main, mnist_attribute.Settings, mnist_attribute.__doc__)
    assert stop.value.code == 2
    assert f"error: {message}\n" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_option_and_imports_no_jax(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mnist_attribute", "--help"])
    with pytest.raises(SystemExit) as stop:
        command.run(mnist_attribute.main, mnist_attribute.Settings, mnist_attribute.__doc__)
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    defaults = mnist_attribute.Settings()
    groups = [getattr(defaults, group.name) for group in dataclasses.fields(defaults)]
    for option in [field.name.replace("_", "-") for group in groups for field in dataclasses.fields(group)]:
        assert f"--{option}" in printed
    code = "import sys, experiments.mnist_attribute; sys.exit('jax' in sys.modules)"
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
