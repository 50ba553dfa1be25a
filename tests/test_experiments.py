"""The command lines, as a user meets them: a smoke run, a second run, and what is refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cvae
from experiments import command, mnist_label, pictures, write

ROOT = Path(__file__).parent.parent
FIGURES = ("curves", "handwriting", "latents", "manifold_5", "reconstructions")


def run(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Call a module of the project from another folder, with no data but scikit-learn's and no network."""
    paths = {"PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": str(cwd / "absent"), "CVAE_CACHE_DIR": str(cwd / "cache")}
    # A proxy that refuses at once stands for the missing network.
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, "-m", *args],
        cwd=cwd,
        env=os.environ | paths | offline | {"NO_PROXY": "", "no_proxy": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def assert_refused(result: subprocess.CompletedProcess, message: str) -> None:
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A folder in which the smoke run of the experiment was made."""
    folder = tmp_path_factory.mktemp("smoke")
    return folder, run("experiments.mnist_label", "--smoke", cwd=folder)


@pytest.fixture(scope="module")
def finished(smoke):
    """Its run folder."""
    folder, result = smoke
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "mnist_label_digits_smoke"


def test_smoke_run_writes_everything(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["dataset"] == "digits"
    assert list(config["models"]) == ["cvae", "vae"]
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["model"], line["epoch"]) for line in lines] == [(m, e) for m in ("cvae", "vae") for e in (1, 2, 3)]
    for line in lines:
        for split in ("train", "validation"):
            terms = line[split]
            assert terms["loss"] == pytest.approx(terms["kl"] - terms["log_likelihood"], rel=1e-4)
    for name in FIGURES:
        width, height = Image.open(finished / "figures" / f"digits_{name}.png").size
        assert min(width, height) > 300
    assert len(list((finished / "figures").iterdir())) == len(FIGURES)


def test_summary_is_what_the_saved_models_score(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["dataset"] == "digits"
    assert set(summary["seconds"]) == {"cvae", "vae", "total"}
    assert {"commit", "versions", "machine", "date", "seed"} <= set(summary)
    test = cvae.data.load("digits").test
    for name, row in summary["test"].items():
        model, params, _ = cvae.load(finished, name)
        c = pictures.given(model, test.label)
        # Another draw of z than the run's, so equal within the noise of both.
        import jax

        terms = cvae.evaluate(model, params, jax.random.key(99), test.x, c, num_samples=20)
        assert row["pictures"] == len(test.x)
        assert row["loss"] == pytest.approx(-row["elbo"])
        assert row["kl"] == pytest.approx(float(terms.kl.mean()), rel=1e-4)
        assert abs(row["elbo"] - float(terms.value.mean())) < 5 * row["standard_error"]


def test_smoke_run_ends_with_a_table_and_the_pictures(smoke):
    _, result = smoke
    assert "digits, 300 test pictures, nats per picture" in result.stdout
    for name in ("cvae", "vae", "log-likelihood", *(f"digits_{figure}.png" for figure in FIGURES)):
        assert name in result.stdout
    assert "cvae on digits: 100%" in result.stderr


def test_the_same_command_again_gives_the_same_numbers(smoke, finished):
    folder, _ = smoke
    before = json.loads((finished / "summary.json").read_text())["test"]
    assert run("experiments.mnist_label", "--smoke", cwd=folder).returncode == 0
    assert json.loads((finished / "summary.json").read_text())["test"] == before
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 6


def test_another_config_in_the_same_folder_is_refused(smoke, finished):
    folder, _ = smoke
    result = run("experiments.mnist_label", "--smoke", "--latents", "3", cwd=folder)
    assert_refused(result, "models.cvae.latent_size 2, not 3; choose another folder or delete it")


def test_without_mnist_auto_says_so_and_uses_digits(tmp_path):
    result = run("experiments.mnist_label", "--epochs", "1", "--hidden", "16", "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "warning: using scikit-learn's 1,797 digits of 8x8 pixels instead of MNIST" in result.stderr
    assert "--dataset mnist" in result.stderr
    assert "digits, 300 test pictures" in result.stdout


def test_mnist_never_falls_back(tmp_path):
    result = run("experiments.mnist_label", "--dataset", "mnist", cwd=tmp_path)
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
def test_bad_options_are_refused_before_anything_is_written(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = options.split() if "--dataset" in options else ["--dataset", "digits", *options.split()]
    monkeypatch.setattr(sys, "argv", ["mnist_label", *arguments])
    with pytest.raises(SystemExit) as stop:
        command.run(mnist_label.main, mnist_label.Settings, mnist_label.__doc__)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [["--dataset", "cifar"], ["--epochs", "many"], ["--latent", "3"]])
def test_unknown_options_are_refused(options, tmp_path):
    result = run("experiments.mnist_label", *options, cwd=tmp_path)
    assert result.returncode == 2
    assert options[0] in result.stderr
    assert "Traceback" not in result.stderr


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


def test_ctrl_c_stops_without_a_traceback(tmp_path):
    arguments = ["experiments.mnist_label", "--dataset", "digits", "--epochs", "100000", "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    metrics, deadline = tmp_path / "out" / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in errors
    assert "Traceback" not in errors


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


@pytest.mark.parametrize("latents", [1, 3])
def test_other_latent_sizes_are_drawn_too(latents, tmp_path):
    settings = mnist_label.Settings(
        models=mnist_label.Models(latents=latents, hidden=(8,)),
        output=mnist_label.Output(smoke=True, out=tmp_path / "run", digit=7),
    )
    out = mnist_label.main(settings)
    assert (out / "figures" / "digits_manifold_7.png").is_file()


def test_plane_takes_the_latents_that_vary_most():
    means = np.random.default_rng(0).normal(size=(500, 4)) * [0.1, 2.0, 0.01, 1.0]
    points, axes = pictures.plane(means)
    assert axes == (1, 3)
    np.testing.assert_array_equal(points, means[:, [1, 3]])


def test_write_draws_one_hand_a_row(finished, tmp_path):
    out = write.main(write.Settings("2026", run=finished, hands=3, out=tmp_path / "page.png"))
    page = np.asarray(Image.open(out))
    assert page.shape == (3 * 112, 4 * 112)
    two, nought, again, _ = np.split(page[:112], 4, axis=1)
    # The same digit in the same hand is the same picture, but for the smoothing at the edges.
    np.testing.assert_array_equal(two[:, 28:-28], again[:, 28:-28])
    assert np.any(two[:, 28:-28] != nought[:, 28:-28])
    assert np.any(page[:112] != page[112:224])


def test_write_without_spread_has_one_hand(finished, tmp_path):
    out = write.main(write.Settings("7", run=finished, hands=2, temperature=0.0, out=tmp_path / "page.png"))
    page = np.asarray(Image.open(out))
    np.testing.assert_array_equal(page[28:84], page[140:196])


def test_write_puts_its_picture_in_the_run_folder(smoke, finished):
    folder, _ = smoke
    result = run("experiments.write", "42", "--run", str(finished.relative_to(folder)), cwd=folder)
    assert result.returncode == 0, result.stderr
    out = finished / "figures" / "digits_write_42.png"
    assert str(out.relative_to(folder)) in result.stdout
    out.unlink()


BAD_TEXT = {
    "a letter": (["20a6"], "text must hold only what the model was trained on, 0123456789, got 'a' in '20a6'"),
    "nothing": ([""], "text must hold at least one character"),
    "no hands": (["1", "--hands", "0"], "--hands must be a whole number of at least 1, got 0"),
    "cold": (["1", "--temperature", "-1"], "--temperature must be at least 0, got -1.0"),
    "seed": (["1", "--seed", "-1"], "--seed must be a whole number of at least 0, got -1"),
    "not a png": (["1", "--out", "page.pdf"], "--out must end in .png, got 'page.pdf'"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_TEXT.values(), ids=BAD_TEXT.keys())
def test_write_refuses(arguments, message, finished, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["write", *arguments, "--run", str(finished)])
    with pytest.raises(SystemExit) as stop:
        command.run(write.main, write.Settings, write.__doc__)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_write_without_a_run_says_how_to_make_one(tmp_path):
    result = run("experiments.write", "2026", cwd=tmp_path)
    assert_refused(result, "make one with `python -m experiments.mnist_label`")
    assert "runs/mnist_label" in result.stderr


def test_kmnist_is_typed_in_hiragana():
    np.testing.assert_array_equal(write.labels_of("はつお", "kmnist"), [5, 3, 0])
    with pytest.raises(ValueError, match="got 'fashion_mnist'"):
        write.labels_of("1", "fashion_mnist")
