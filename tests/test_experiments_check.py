"""A run folder seen from outside: a whole one passes, and whatever is wrong with it is named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import cvae
from experiments import check, mnist_label
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


def test_something_that_is_no_run_fails_every_check(tmp_path):
    result = call(check, str(tmp_path / "none"))
    assert result.returncode == 1
    assert result.stdout.count("FAILED") == len(CHECKS)
    assert "Traceback" not in result.stderr
