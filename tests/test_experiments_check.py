"""A run folder seen from outside: a whole one passes, and what is wrong with one is named."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import cvae
from experiments import check, fit, mnist_label, sweep_latent
from experiments.harness import cli
from tests.commands import call

CHECKS = ("config", "summary", "metrics", "parameters", "checkpoints", "test numbers")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a smoke run."""
    out = tmp_path_factory.mktemp("check") / "run"
    training = cvae.Training(epochs=2, patience=2)
    smoke = mnist_label.CONFIGS["smoke"]
    settings = cvae.replace(smoke, training=training, seed=3, save_every=1, figures=False, out=out)
    return cli.execute(mnist_label.EXPERIMENT, settings)


def edit(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_whole_run_passes_and_is_left_as_it_is(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    result = call(check, str(whole))
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"ok      {name}" for name in CHECKS]
    assert "mnist_label on digits, seed 3, models cvae, vae" in lines[0]
    assert lines[2].endswith("2 epochs of cvae, 2 epochs of vae")
    assert lines[4].endswith("cvae after epoch 2, vae after epoch 2")
    assert lines[5].endswith("14 recomputed, equal")
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


def other_bias(run: Path, name: str, change) -> None:
    _, params = cvae.load(run, name)
    params["decoder"]["head"]["bias"] = change(np.asarray(params["decoder"]["head"]["bias"]))
    cvae.runs.save_params(run, name, params)


def damage(run: Path) -> None:
    """Every file of the newest checkpoint, cut in half."""
    folders = (run / "checkpoints" / "cvae").iterdir()
    newest = max((path for path in folders if path.name.isdecimal()), key=lambda path: int(path.name))
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def metrics(change):
    """A change of the lines of the metrics."""

    def changed(run: Path) -> None:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in change(lines)))

    return changed


WRONG = {
    "config": (lambda run: edit(run / "config.json", lambda c: c.update(seed=-1)), "config.seed must be "),
    "another experiment": (
        lambda run: edit(run / "config.json", lambda c: c.update(experiment="os")),
        "experiment must be one of fit, mnist_attribute",
    ),
    "unfinished": (lambda run: (run / "summary.json").unlink(), "hold a summary.json, as a finished run does"),
    "no object": (lambda run: (run / "summary.json").write_text("[]"), "summary.json must be an object, got []"),
    "version": (lambda run: edit(run / "summary.json", lambda s: s.pop("versions")), "got no ['versions']"),
    "epoch": (metrics(lambda lines: lines[1:]), "epochs of cvae must be 1, 2, 3 and so on, got [2]"),
    "loss": (
        metrics(lambda lines: [re.sub(r'"loss": [^,]+', '"loss": Infinity', lines[0]), *lines[1:]]),
        "metrics.jsonl, line 1 must hold a finite loss, got inf",
    ),
    "truncated": (
        metrics(lambda lines: lines[:3]),
        "epochs of vae must be all 2, or as many as early stopping takes, got 1",
    ),
    "other metrics": (
        metrics(lambda lines: [re.sub(r'"seconds": [^,]+', '"seconds": 1.5', line) for line in lines]),
        "epochs of cvae in the metrics must be those of the last checkpoint, got others",
    ),
    "line": (metrics(lambda lines: ["{", *lines]), "metrics.jsonl, line 1 must be a record of an epoch"),
    "model": (
        metrics(lambda lines: [line.replace('"vae"', '"gan"') for line in lines]),
        "metrics.jsonl, line 3 must name a model of the config, ['cvae', 'vae'], got 'gan'",
    ),
    "nan": (lambda run: other_bias(run, "vae", lambda b: b * np.nan), "vae.decoder.head.bias must be finite"),
    "other parameters": (
        lambda run: other_bias(run, "cvae", lambda b: b + 1),
        "parameters of cvae must be those of the last checkpoint, got others",
    ),
    "damaged": (damage, "checkpoint of cvae must be intact"),
    "no checkpoints": (lambda run: shutil.rmtree(run / "checkpoints"), "run folder must hold checkpoints/cvae"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(change, message, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    change(run)
    result = call(check, str(run), "--no-recompute")
    assert result.returncode == 1
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert any(message in line for line in failed), failed
    assert result.stderr == f"{len(failed)} of {len(CHECKS) - 1} checks failed\n"


NUMBERS = {
    "a number": (lambda s: s["test"]["vae"]["kl"].update(value=1.25), "vae.kl.value must be ", "recomputed, got 1.25"),
    "a setting": (lambda s: s["settings"].update(epoch=3), "settings.epoch must be a known field, got 3", ""),
    "no settings": (lambda s: s.pop("settings"), "summary.json: settings must be ", "got None"),
}


@pytest.mark.parametrize(("change", "message", "end"), NUMBERS.values(), ids=NUMBERS.keys())
def test_wrong_numbers_are_named(change, message, end, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    edit(run / "summary.json", change)
    with pytest.raises(ValueError, match=f"{re.escape(message)}.*{re.escape(end)}$"):
        check.numbers_are_reproduced(run, None)


def test_a_fit_of_a_file_is_measured_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("mine.npz", x=rng.random((60, 5), np.float32), digit=rng.integers(0, 3, 60), age=rng.random(60))
    conditions = ["--condition", "label=digit", "--condition", "continuous=age"]
    quick = ["--hidden", "8", "--latent-size", "2", "--epochs", "2", "--samples", "5", "--out", "run", "--no-figures"]
    made = call(fit, "--data", "mine.npz", "--x", "x", *conditions, *quick)
    assert made.returncode == 0, made.stderr
    result = call(check, "run")
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[-1].endswith("recomputed, equal")


def test_the_members_of_a_sweep_are_checked_and_measured_again(tmp_path):
    run = tmp_path / "run"
    sizes = ["--conditions", "label", "--latent-sizes", "1", "2", "--seeds", "0", "--samples", "5", "--epochs", "1"]
    made = call(sweep_latent, "--smoke", *sizes, "--no-figures", "--out", str(run))
    assert made.returncode == 0, made.stderr
    result = call(check, str(run))
    assert result.returncode == 0, result.stdout
    assert "1 epoch of label/z01_seed0_beta1_lr0.001, 1 epoch of label/z02_" in result.stdout
    assert result.stdout.splitlines()[-1].endswith("recomputed, equal")
    shutil.rmtree(next((run / "params" / "label").iterdir()))
    assert call(check, str(run), "--no-recompute").stdout.count("FAILED  parameters") == 1


def test_what_is_no_run_fails_every_check(tmp_path):
    result = call(check, str(tmp_path / "none"))
    assert (result.returncode, result.stdout.count("FAILED")) == (1, len(CHECKS))
