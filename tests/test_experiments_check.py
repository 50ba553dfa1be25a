"""A run folder seen from outside: a whole one passes, and whatever is wrong with it is named."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import cvae
from experiments import check, fit, mnist_label, mnist_quadrants
from tests.commands import call

CHECKS = ("config", "summary", "metrics", "parameters", "checkpoints", "test numbers")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("check") / "run"
    result = call(mnist_label, "--dataset", "digits", "--smoke", "--epochs", "2", "--seed", "3", "--out", str(run))
    assert result.returncode == 0, result.stderr
    return run


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
    assert lines[5].endswith("12 recomputed, equal")
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


def shift(run: Path) -> None:
    """Other parameters than were trained."""
    model, params, _ = cvae.load(run, "cvae")
    assert model.architecture is not None
    params["decoder"]["outputs"]["bias"] = params["decoder"]["outputs"]["bias"] + 1
    cvae.runs.save(run, "cvae", params)


def poison(run: Path) -> None:
    """Parameters that are no numbers."""
    _, params, _ = cvae.load(run, "vae")
    params["decoder"]["outputs"]["bias"] = np.full_like(params["decoder"]["outputs"]["bias"], np.nan)
    cvae.runs.save(run, "vae", params)


def damage(run: Path) -> None:
    """Every file of the newest checkpoint, cut in half."""
    for path in (run / "progress" / "cvae" / "2").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def skip(run: Path) -> None:
    """An epoch that is not there."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[1], *lines[2:]]) + "\n")


def infinite(run: Path) -> None:
    text = (run / "metrics.jsonl").read_text().splitlines()
    line = json.loads(text[0])
    line["train"]["loss"] = float("inf")
    (run / "metrics.jsonl").write_text("\n".join([json.dumps(line), *text[1:]]) + "\n")


WRONG = {
    "config": (lambda run: edit(run / "config.json", lambda c: c.update(seed=-1)), "seed must be a whole number"),
    "unfinished": (lambda run: (run / "summary.json").unlink(), "hold a summary.json, as a finished run does"),
    "epoch": (skip, "epochs of cvae must be 1, 2, 3 and so on, got [2]"),
    "loss": (infinite, "metrics.jsonl, line 1 must hold a finite loss, got inf"),
    "truncated": (
        lambda run: (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().splitlines()[0] + "\n"),
        "epochs of cvae must be all 2, or as many as early stopping takes, got 1",
    ),
    "other metrics": (
        lambda run: (run / "metrics.jsonl").write_text(
            re.sub(r'"seconds": [0-9.]+', '"seconds": 1.5', (run / "metrics.jsonl").read_text())
        ),
        "epochs of cvae in the metrics must be those of the last checkpoint, got others",
    ),
    "no object": (lambda run: (run / "summary.json").write_text("[]"), "summary.json must be an object, got []"),
    "another experiment": (
        lambda run: edit(run / "config.json", lambda c: c.update(experiment="os")),
        "experiment must be one of fit, mnist_attribute",
    ),
    "line": (lambda run: (run / "metrics.jsonl").write_text("{"), "metrics.jsonl, line 1 must be a record of an epoch"),
    "nan": (poison, "vae['decoder']['outputs']['bias'] must be finite"),
    "other parameters": (shift, "parameters of cvae must be those of the last checkpoint, got others"),
    "damaged": (damage, "checkpoint of cvae must be whole"),
    "no progress": (lambda run: shutil.rmtree(run / "progress"), "run folder must hold progress/cvae, got none"),
    "number": (
        lambda run: edit(run / "summary.json", lambda s: s["test"]["vae"].update(kl=1.25)),
        "summary.json.vae.kl must be 1.25, as in the run folder, got ",
    ),
    "version": (
        lambda run: edit(run / "summary.json", lambda s: s.pop("versions")),
        "summary.json must say where the run came from, got no ['versions']",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named(change, message, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    change(run)
    recompute = "kl must" in message
    result = call(check, str(run), *([] if recompute else ["--no-recompute"]))
    assert result.returncode == 1
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    assert any(message in line for line in failed), failed
    assert f"{len(failed)} of {len(CHECKS) - (not recompute)} checks failed" in result.stderr


@pytest.mark.parametrize("conditions", [[], ["label=digit"], ["label=digit", "continuous=age"]])
def test_a_fit_of_any_number_of_conditions_is_measured_again(conditions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("mine.npz", x=rng.random((60, 5), np.float32), digit=rng.integers(0, 3, 60), age=rng.random(60))
    told = [word for condition in conditions for word in ("--condition", condition)]
    quick = ["--hidden", "8", "--latents", "2", "--epochs", "2", "--num-samples", "5", "--out", "run"]
    made = call(fit, "--data", "mine.npz", "--x", "x", *told, *quick)
    assert made.returncode == 0, made.stderr
    result = call(check, "run")
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[-1].endswith("recomputed, equal")


def test_options_that_the_command_does_not_know_are_a_failure(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    edit(run / "summary.json", lambda summary: summary["options"].update(epoch=3))
    result = call(check, str(run))
    assert "FAILED  test numbers: options of summary.json must be those of mnist_label" in result.stdout


def test_what_a_later_command_did_not_ask_for_is_not_measured_again(tmp_path):
    out = ["--smoke", "--quadrants", "3", "--rows", "gsnn", "--many-samples", "0", "--out", str(tmp_path / "run")]
    for samples in ("20", "30"):
        assert call(mnist_quadrants, *out, "--samples", samples).returncode == 0
    result = call(check, str(tmp_path / "run" / "quadrants_3" / "gsnn"))
    assert result.returncode == 0, result.stdout
    assert "equal; of an earlier command, and not again: monte_carlo_20" in result.stdout


def test_something_that_is_no_run_fails_every_check(tmp_path):
    result = call(check, str(tmp_path / "none"))
    assert result.returncode == 1
    assert result.stdout.count("FAILED") == len(CHECKS)
    assert "Traceback" not in result.stderr
