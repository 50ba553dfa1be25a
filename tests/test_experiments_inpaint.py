"""Part of a picture completed: a smoke run, a second one, what is seen stays, hidden pixels alone count, refusals."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import cvae
from experiments import command, mnist_inpaint, study
from tests.commands import afresh

FIGURES = ("completions", "curves")
TERMS = ("log_likelihood", "elbo", "rate", "distortion")


def settings(out: Path, **models) -> mnist_inpaint.Settings:
    return mnist_inpaint.Settings(
        models=mnist_inpaint.Models(**models),
        output=mnist_inpaint.Output(out=out, num_samples=5, smoke=True),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a smoke run."""
    return mnist_inpaint.main(settings(tmp_path_factory.mktemp("inpaint") / "run"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The folder of a smoke run that is told the label too, with masks that differ from picture to picture."""
    out = tmp_path_factory.mktemp("inpaint_label") / "run"
    return mnist_inpaint.main(settings(out, mask="random_box", label=True, prior="standard"))


def reloaded(folder: Path) -> tuple[study.Trained, study.Examples, np.ndarray]:
    """The saved model, the test pictures, with masks from another key than the run's, and which pixels are hidden."""
    _, params, config = cvae.load(folder)
    model, test, hidden = mnist_inpaint.masked_once(config, jax.random.key(5), cvae.data.load("digits").test)
    # As the run had them, on no device in particular: nothing is compiled anew.
    return study.Trained(model, jax.tree.map(np.asarray, params), []), test, hidden


@pytest.mark.parametrize("run", ["finished", "labelled"])
def test_smoke_run_writes_everything(run, request):
    folder = request.getfixturevalue(run)
    config = cvae.runs.read_config(folder)
    assert (config.dataset, list(config.models), config.training.targets) == ("digits", ["cvae"], "dynamic")
    assert config.models["cvae"].prior == ("learned" if run == "finished" else "standard")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["model"], line["epoch"]) for line in lines] == [("cvae", e) for e in (1, 2, 3)]
    assert {path.name for path in (folder / "figures").iterdir()} == {f"digits_{name}.png" for name in FIGURES}
    for name in FIGURES:
        assert min(Image.open(folder / "figures" / f"digits_{name}.png").size) > 300
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["seconds"]) == {"cvae", "total"}
    assert {"commit", "versions", "machine", "date", "seed"} <= set(summary)


@pytest.mark.parametrize("run", ["finished", "labelled"])
def test_summary_is_what_the_saved_model_scores(run, request):
    folder = request.getfixturevalue(run)
    row = json.loads((folder / "summary.json").read_text())["test"]["cvae"]
    # Other draws of z, and of random masks, than the run's, so equal within the noise of both.
    trained, test, hidden = reloaded(folder)
    again = study.plain(mnist_inpaint.measure(trained, jax.random.key(99), test, hidden, 5))
    for there, here in ((row, again), (row["per_hidden_pixel"], again["per_hidden_pixel"])):
        for term in TERMS:
            noise = math.hypot(there[term]["standard_error"], here[term]["standard_error"])
            assert abs(there[term]["value"] - here[term]["value"]) < 5 * noise
        assert there["elbo"]["value"] == pytest.approx(-there["rate"]["value"] - there["distortion"]["value"], rel=1e-5)
        assert there["log_likelihood"]["value"] > there["elbo"]["value"]
    assert (row["examples"], row["num_samples"]) == (300, 5)
    assert 1 <= row["effective_samples"]["value"] <= 5


def test_nats_per_hidden_pixel_are_those_of_a_picture_over_its_hidden_pixels(finished):
    row = json.loads((finished / "summary.json").read_text())["test"]["cvae"]
    assert row["hidden_pixels"] == {"value": 48, "standard_error": 0}  # three quadrants of 8x8
    for term in TERMS:
        for figure in ("value", "standard_error"):
            assert row["per_hidden_pixel"][term][figure] == pytest.approx(row[term][figure] / 48, rel=1e-6)


def test_the_standard_error_of_a_ratio_has_the_coverage_it_claims():
    rng = np.random.default_rng(0)
    hidden = rng.integers(4, 36, (2000, 50))
    nats = 0.3 * hidden + rng.normal(size=hidden.shape) * np.sqrt(hidden)
    estimates = np.array([mnist_inpaint.per_pixel(n, h) for n, h in zip(nats, hidden, strict=True)])
    spread = estimates[:, 0].std()
    assert abs(estimates[:, 0].mean() - 0.3) < 5 * spread / math.sqrt(2000)
    # The spread of 2000 ratios is itself known to 1 / sqrt(4000); the rest is that 50 pictures are few.
    assert estimates[:, 1].mean() == pytest.approx(spread, rel=5 / math.sqrt(4000))


@pytest.mark.parametrize("run", ["finished", "labelled"])
def test_what_is_seen_is_returned_unchanged(run, request):
    trained, (x, c), hidden = reloaded(request.getfixturevalue(run))
    rows = slice(7)
    some = x[rows], {name: value[rows] for name, value in c.items()}
    drawn = mnist_inpaint.complete(trained, jax.random.key(3), some, 6)
    assert drawn.shape == (7, 6, 8, 8, 1)
    seen = np.broadcast_to(~hidden[rows][:, None], drawn.shape)
    np.testing.assert_array_equal(drawn[seen], np.broadcast_to(some[0][:, None] / np.float32(255), drawn.shape)[seen])
    assert set(np.unique(some[0])) == {0, 255}  # drawn black or white once
    assert np.all((drawn[~seen] > 0) & (drawn[~seen] < 1))
    assert np.all(drawn.std(axis=1)[hidden[rows]] > 0)


def test_hidden_pixels_do_not_reach_the_completions(finished):
    trained, (x, c), hidden = reloaded(finished)
    x, hidden = x[:7], hidden[:7]
    first = mnist_inpaint.complete(trained, jax.random.key(3), (x, c), 6)
    other = np.where(hidden, 255 - x, x)
    np.testing.assert_array_equal(mnist_inpaint.complete(trained, jax.random.key(3), (other, c), 6), first)


def test_the_same_command_started_over_gives_the_same_numbers(finished, capsys):
    before = json.loads((finished / "summary.json").read_text())["test"]
    mnist_inpaint.main(afresh(settings(finished)))
    assert json.loads((finished / "summary.json").read_text())["test"] == before
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 3
    printed = capsys.readouterr().out
    assert "digits, 300 test pictures, pixels drawn black or white once; nats of the 48 of 64 hidden" in printed
    assert all(words in printed for words in ("-log p(x | c)", "per hidden pixel", "effective", "digits_curves.png"))


def test_another_config_in_the_same_folder_is_refused(finished):
    with pytest.raises(ValueError, match="mask 'quadrants_1', not 'top_half'; choose another folder or delete it"):
        mnist_inpaint.main(settings(finished, mask="top_half"))


BAD_OPTIONS = {
    "--mask diagonal": f"--mask must be one of {', '.join(cvae.masks.MASKS)}, got 'diagonal'",
    "--mask given": f"--mask must be one of {', '.join(cvae.masks.MASKS)}, got 'given'",
    "--latents 0": "--latents must be a whole number of at least 1, got 0",
    "--hidden 0": "hidden[0] must be a whole number of at least 1, got 0",
    "--average 1": "average must be below 1, got 1.0",
    "--batch-size 2000": "x must hold at least one batch, 2000 examples, got 1297 examples",
    "--num-samples 0": "--num-samples must be a whole number of at least 1, got 0",
    "--seed -1": "seed must be a whole number of at least 0, got -1",
    "--smoke --dataset mnist": "--dataset must be digits with --smoke, got 'mnist'",
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.items(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_refused_before_anything_is_written(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = options.split() if "--dataset" in options else ["--dataset", "digits", *options.split()]
    monkeypatch.setattr(sys, "argv", ["mnist_inpaint", *arguments])
    with pytest.raises(SystemExit) as stop:
        command.run(mnist_inpaint.main, mnist_inpaint.Settings, mnist_inpaint.__doc__)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_option_and_mask_and_imports_no_jax(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mnist_inpaint", "--help"])
    with pytest.raises(SystemExit) as stop:
        command.run(mnist_inpaint.main, mnist_inpaint.Settings, mnist_inpaint.__doc__)
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    defaults = mnist_inpaint.Settings()
    groups = [getattr(defaults, group.name) for group in dataclasses.fields(defaults)]
    for option in [field.name.replace("_", "-") for group in groups for field in dataclasses.fields(group)]:
        assert f"--{option}" in printed
    assert all(mask in printed for mask in cvae.masks.MASKS)
    code = "import sys, experiments.mnist_inpaint; sys.exit('jax' in sys.modules)"
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
