"""What all command lines share: options, refusals in one line, help, Ctrl-C."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from experiments import command, mnist_label
from tests.commands import ROOT, assert_refused, call, offline, run


def test_mnist_never_falls_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    result = call(mnist_label, "--dataset", "mnist")
    assert_refused(result, "error: mnist is not at")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


BAD_OPTIONS = {
    "--latents 0": "--latents must be a whole number of at least 1, got 0",
    "--hidden 512 -1": "hidden[1] must be a whole number of at least 1, got -1",
    "--epochs 0": "epochs must be a whole number of at least 1, got 0",
    "--batch-size 0": "batch_size must be a whole number of at least 1, got 0",
    "--batch-size 2000": "x must hold at least one batch, 2000 examples, got 1297 examples",
    "--learning-rate -1": "learning_rate must be a finite number above 0, got -1.0",
    "--seed -1": "seed must be a whole number of at least 0, got -1",
    "--seed 5000000000": "seed must be below 2**32, got 5000000000",
    "--digit 10": "--digit must be a class in [0, 10), got 10",
    "--smoke --dataset mnist": "--dataset must be digits with --smoke, got 'mnist'",
    "--data-dir /nowhere/at/all": "data_dir must be an existing, readable folder",
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.items(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_refused_before_anything_is_written(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = options.split() if "--dataset" in options else ["--dataset", "digits", *options.split()]
    assert_refused(call(mnist_label, *arguments), message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--dataset", "cifar"], ["--epochs", "many"], ["--latent", "3"]])
def test_unknown_options_are_refused(options):
    assert_refused(call(mnist_label, *options), options[0])


def test_help_names_every_option_and_imports_no_jax(tmp_path):
    result = run("experiments.mnist_label", "--help", cwd=tmp_path)
    assert result.returncode == 0
    settings = mnist_label.Settings()
    groups = [getattr(settings, group.name) for group in dataclasses.fields(settings)]
    for option in [field.name.replace("_", "-") for group in groups for field in dataclasses.fields(group)]:
        assert f"--{option}" in result.stdout
    assert result.stdout.count("python -m experiments.mnist_label") == 2
    assert "Expected on MNIST" in result.stdout
    code = "import sys, experiments.mnist_label, experiments.write; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "runs"), FloatingPointError("a loss")])
def test_a_full_disk_or_a_wild_loss_is_one_line(error, monkeypatch, capsys):
    def main(settings):
        raise error

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as stop:
        command.run(main, mnist_label.Settings, "")
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    def main(settings):
        np.zeros(3).reshape(2)  # a ValueError that is none of ours

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(ValueError, match="cannot reshape"):
        command.run(main, mnist_label.Settings, "")
