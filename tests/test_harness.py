"""What experiments share: tables, run folders that survive every way to be stopped, command lines and refusals."""

import dataclasses
import importlib
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import cvae
from cvae import runs
from experiments import __main__ as listing
from experiments import mnist_label
from experiments.harness import Row, cli, finished, interruption, tables
from experiments.harness.compilation import EIGEN, enable_cache, use_eigen_convolutions
from experiments.harness.run import plain
from tests.commands import ROOT, assert_refused, call, offline
from tests.stress import kills

EPOCHS = 12  # of each of two models
CACHE = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
POSIX = pytest.mark.skipif(platform.system() == "Windows", reason="signals of POSIX")


# Tables


def test_a_table_shows_estimates_with_their_errors_in_aligned_columns():
    rows = [Row("-log p(x)", "bound", negate=True), Row("accuracy", "by.rate", "percent"), Row("time", "s", "seconds")]
    estimate = {"value": -81.236, "standard_error": 0.124}
    results = {
        "cvae": {"bound": estimate, "by": {"rate": cvae.evaluation.Estimate(0.98765, 0.001)._asdict()}, "s": 61.4},
        "vae": {"bound": {"value": 7.0, "standard_error": float("nan")}, "by": 3},
    }
    assert tables.by_model(rows, results, "nats").splitlines() == [
        "| nats      |           cvae |   vae |",
        "| --------- | -------------: | ----: |",
        "| -log p(x) |   81.24 ± 0.12 | -7.00 |",
        "| accuracy  | 98.77 ± 0.10 % |     - |",
        "| time      |           61 s |     - |",
    ]
    transposed = tables.by_row(rows, results).splitlines()
    assert transposed[0] == "|      |    -log p(x) |       accuracy | time |"
    assert transposed[3] == "| vae  |        -7.00 |              - |    - |"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("small", 0.12345, "0.1235"), ("signed", 1.5, "+1.50"), ("count", 12345.0, "12,345"), ("text", "IS", "IS")],
)
def test_formats(name, value, text):
    assert tables.cell(Row("", "a.b", name), {"a": {"b": value}}) == text


def test_results_are_written_as_json_has_them():
    results = {"a": (cvae.evaluation.Estimate(1.0, 0.5), np.float32(2)), 3: np.arange(2), "path": Path("x")}
    assert plain(results) == {"a": [{"value": 1.0, "standard_error": 0.5}, 2.0], "3": [0, 1], "path": "x"}


def test_what_is_not_a_number_is_null_and_a_dash():
    """JSON has no NaN: the confidence of an empty bin, the correlation of images that cannot be measured."""
    found = plain({"bins": np.array([np.nan, 0.5]), "correlation": cvae.evaluation.Estimate(math.nan, math.nan)})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found == {"bins": [None, 0.5], "correlation": {"value": None, "standard_error": None}}
    assert tables.cell(Row("", "correlation", "correlation"), found) == "-"
    np.testing.assert_array_equal(np.array(found["bins"], float), [np.nan, 0.5])  # as the figure reads them


# Runs


def options(out) -> list[str]:
    """Those of `kills.start`, with fewer checkpoints."""
    return ["--smoke", "--epochs", str(EPOCHS), "--save-every", "3", "--no-figures", "--out", str(out)]


def contents(folder) -> dict[str, bytes]:
    """All files but those of the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lines(out) -> int:
    """The number of epochs in the metrics."""
    metrics = out / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never interrupted."""
    out = tmp_path_factory.mktemp("harness") / "run"
    done = call(mnist_label, *options(out))
    assert (done.returncode, lines(out)) == (0, 2 * EPOCHS), done.stderr
    return out


@POSIX
def test_a_run_that_is_stopped_in_every_way_ends_at_the_same_bits(whole, tmp_path, monkeypatch):
    out, append = tmp_path / "out", runs.append_metrics

    def stopped(number, at, model):
        """Call the command, and send its process a signal during an epoch."""

        def log(folder, name, epoch):
            append(folder, name, epoch)
            if (name, epoch.epoch) == (model, at):
                os.kill(os.getpid(), number)
                time.sleep(0.2)

        monkeypatch.setattr(runs, "append_metrics", log)
        return call(mnist_label, *options(out))

    result = stopped(signal.SIGTERM, 4, "cvae")
    assert (result.returncode, lines(out)) == (143, 4)
    last = f"stopped after epoch 4 of cvae, saved in {out}; the same command goes on from there\n"
    assert result.stderr.endswith(last)

    process, deadline = kills.start(out, EPOCHS, CACHE), time.monotonic() + 100
    try:
        while lines(out) < EPOCHS + 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        before = contents(out)
        result = call(mnist_label, *options(out))  # a second process meanwhile
        assert_refused(result, f"error: run folder must be free, got {out}, in use by process {process.pid} since 20")
        assert contents(out) == before
    finally:
        process.kill()
        process.communicate()

    result = stopped(signal.SIGINT, EPOCHS - 2, "vae")
    assert (result.returncode, lines(out)) == (130, 2 * EPOCHS - 2)
    assert "cvae is trained\n" in result.stdout
    result = stopped(None, None, None)
    assert result.returncode == 0, result.stderr
    assert f"vae goes on after epoch {EPOCHS - 2}\n" in result.stdout
    assert kills.difference(kills.result(whole), kills.result(out)) is None


def test_a_finished_run_prints_its_table_and_starts_over_by_fresh(whole):
    before, summary = contents(whole), runs.read_summary(whole)
    result = call(mnist_label, *options(whole))
    start = (
        rf"finished on 20\d\d-\d\d-\d\d: {re.escape(str(whole))}/summary\.json; --fresh starts over\n\n\| digits, nats"
    )
    assert re.match(start, result.stdout)
    assert contents(whole) == before
    result = call(mnist_label, *options(whole), "--fresh")
    assert result.stdout.startswith(f"discarding {2 * EPOCHS} epochs in {whole}\n")
    assert contents(whole)["metrics.jsonl"] != before["metrics.jsonl"]  # its times
    assert runs.read_summary(whole)["test"] == summary["test"]


def test_what_is_measured_otherwise_is_measured_again_but_not_trained(whole, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    settings, summary, digits = recorded_settings(out), runs.read_summary(out), cvae.data.load("digits")
    assert finished(out, settings, digits) == summary
    assert finished(out, cvae.replace(settings, fresh=True), digits) is None
    assert finished(out, cvae.replace(settings, digit=3), digits) is None
    result = call(mnist_label, *options(out), "--digit", "3")
    assert result.stdout.startswith("cvae is trained\nvae is trained\n")
    assert runs.read_summary(out)["test"] == summary["test"]


def recorded_settings(out):
    recorded = runs.read_summary(out)["settings"]
    return cvae.replace(cvae.settings.from_json(mnist_label.Settings, recorded), out=out, smoke=True, figures=False)


@pytest.mark.parametrize("change", ["values", "rows"])
def test_other_data_are_another_run_and_are_refused(change, whole):
    digits = cvae.data.load("digits")
    x, label = digits.train
    x = x * np.uint8(3) if change == "values" else np.roll(x, 1, axis=0)
    dataset, settings = digits._replace(train=digits.train._replace(x=x, label=label)), recorded_settings(whole)
    assert finished(whole, settings, dataset) is None
    before = contents(whole)
    message = "run folder must go on with the same data, or start over by --fresh, got .*, begun with other data"
    with pytest.raises(ValueError, match=message):
        cli.execute(dataclasses.replace(mnist_label.EXPERIMENT, load=lambda settings: dataset), settings)
    assert contents(whole) == before


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="a folder of Linux in which nobody can make another")
def test_a_folder_that_cannot_be_written_is_one_line():
    result = call(mnist_label, *options("/sys/run"))
    assert result.returncode == 2
    assert re.fullmatch(r"error: \[Errno \d+\] .*: '/sys/run'\n", result.stderr)


# Signals

WAIT = """
import time
from experiments.harness import interruption
with interruption.deferred() as stopping:
    print("ready", flush=True)
    while stopping() is None:
        time.sleep(0.01)
    print("signal", stopping(), flush=True)
    time.sleep(60)  # a long epoch
"""


@POSIX
def test_the_first_signal_waits_for_the_epoch_and_ctrl_c_after_it_does_not():
    command = [sys.executable, "-c", WAIT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"signal {signal.SIGTERM}\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)  # half of the epoch
    assert process.returncode == 130
    assert errors == "\nstopping, once the progress is saved; Ctrl-C stops at once\n\nstopped\n"


@POSIX
def test_a_signal_after_the_last_epoch_is_not_lost():
    def late():
        with interruption.deferred() as stopping:
            assert stopping() is None
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(interruption.Stopped, match="stopped after the last epoch") as stop:
        late()
    assert stop.value.signal == signal.SIGTERM


@POSIX
def test_ctrl_c_while_the_libraries_are_imported_gives_no_traceback(tmp_path):
    ours, its = os.openpty()  # a terminal, where the command says that it is starting
    command, environment = [sys.executable, "-m", "experiments.mnist_label"], os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=its)
    try:
        assert os.read(ours, 100).startswith(b"loading JAX ...")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        os.close(its)
    with pytest.raises(OSError, match="Input/output"):  # nothing more was printed
        os.read(ours, 100)
    os.close(ours)


def test_a_bug_keeps_its_traceback_and_a_full_disk_is_one_line(capsys):
    with pytest.raises(ValueError, match="cannot reshape"):
        cli.protected(lambda: np.zeros(3).reshape(2))
    for error in (PermissionError(13, "Permission denied", "runs"), FloatingPointError("a loss must be finite")):
        with pytest.raises(SystemExit) as stop:
            cli.protected(lambda error=error: (_ for _ in ()).throw(error))
        assert (stop.value.code, capsys.readouterr().err) == (2, f"error: {error}\n")


def test_threads_of_a_failed_write_add_no_traceback_and_other_errors_keep_theirs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    cli.protected(lambda: None)

    class Unraisable:
        def __init__(self, message):
            self.message = message

        def __del__(self):  # the interpreter can only report what is raised here
            raise RuntimeError(self.message)

    Unraisable("Event loop is closed")
    assert capsys.readouterr().err == ""
    Unraisable("another error")
    assert "RuntimeError: another error" in capsys.readouterr().err


# Command lines


def test_the_experiments_are_listed_and_nothing_else(capsys):
    listing.main()
    names = re.findall(r"python -m experiments\.(\w+) +\w", capsys.readouterr().out)
    assert names == sorted(listing.commands())
    assert set(names) == {name for name, _ in BAD} | {"check"}  # which reports what is wrong instead of refusing
    for name in names:
        assert 'if __name__ == "__main__":' in (ROOT / "experiments" / f"{name}.py").read_text(encoding="utf-8")


BAD = {
    ("fit", "--data absent.npz"): "absent.npz must be an .npz file, as numpy.savez writes it, got no such file",
    ("fit", "--data absent.csv"): "absent.csv must be a .csv or .parquet file, got no such file",
    (
        "fit",
        "--data absent.txt",
    ): "--data must be a .csv, .parquet, .npz or .npy file, or a folder of images, got",
    (
        "mnist_attribute",
        "--smoke --binarization dynamic",
    ): "--binarization must be none, because strokes are of grey",
    ("mnist_fidelity", "--run absent"): "run folder must hold a summary.json, as a finished run does, got none at",
    ("mnist_inpaint", "--smoke --mask given"): "invalid choice 'given' for argument '--mask'. Expected one of",
    ("mnist_label", "--smoke --digit 10"): "--digit must be a class in [0, 10), got 10",
    ("mnist_label", "--smoke --batch-size 2000"): "--batch-size must be at most the number of training examples, 1297,",
    ("mnist_label", "--smoke --dataset mnist"): "--dataset must be digits with --smoke, got 'mnist'",
    ("mnist_label", "--dataset digits --data-dir /nowhere"): "--data-dir must be an existing, readable folder, got",
    ("mnist_label", "--dataset cifar"): "error: --dataset must be 'auto', 'mnist', 'fashion_mnist', 'kmnist' or",
    ("mnist_likelihood", "--smoke --binarization none"): "--binarization must be dynamic or static, got none",
    ("mnist_quadrants", "--smoke --samples 7 --many-samples 7"): "--many-samples must be more than --samples, 7, or 0,",
    ("quadrants_ablation", "--smoke --variants deep"): "--variants must be one of default, one_layer,",
    ("sweep_condition", "--smoke --betas 0"): "betas[0] must be greater than 0, got 0.0",
    ("sweep_latent", "--smoke --latent-sizes 2 2"): "latent_sizes must have every value once, got [2, 2]",
    (
        "use",
        "generate absent",
    ): "absent must be the folder of a fitted model (experiments.fit makes one), got no such folder",
    ("write", "2026"): "--run must be the folder of a finished run (make one with `python -m experiments.mnist_label`)",
}


@pytest.mark.parametrize(("command", "message"), BAD.items(), ids=[" ".join(command) for command in BAD])
def test_bad_options_are_refused_before_anything_is_written(command, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, arguments = command
    assert_refused(call(importlib.import_module(f"experiments.{name}"), *arguments.split()), message)
    assert list(tmp_path.iterdir()) == []


def test_mnist_by_name_is_never_replaced_by_the_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in offline(tmp_path).items():
        monkeypatch.setenv(name, value)
    result = call(mnist_label, "--dataset", "mnist")
    assert_refused(result, "error: mnist is not at")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", listing.commands())
def test_help_names_the_command_and_its_options(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    module = importlib.import_module(f"experiments.{name}")
    result = call(module, *["generate"] * (name == "use"), "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: python -m experiments.{name} ")
    kind = module.EXPERIMENT.settings if hasattr(module, "EXPERIMENT") else module.Settings
    names = {field.name for field in dataclasses.fields(kind)}
    if "training" in names:
        names |= {field.name for field in dataclasses.fields(cvae.Training)}
    options = {option.replace("-", "_") for option in re.findall(r"--(?:no-)?([a-z][a-z-]*)", result.stdout)}
    positional = {"text"} if name == "write" else {"run"} if name in ("check", "use") else set()
    assert names - positional - {"architecture", "training", "sweep"} <= options


# Compiled programs


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, EIGEN),
        ("--theirs", f"{EIGEN} --theirs"),
        (f"{EIGEN} --theirs", f"{EIGEN} --theirs"),
        ("/a/file/of/flags", "/a/file/of/flags"),
    ],
)
def test_commands_use_eigen_convolutions(before, after, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False) if before is None else monkeypatch.setenv("XLA_FLAGS", before)
    use_eigen_convolutions()
    assert os.environ["XLA_FLAGS"] == after


def test_an_unknown_xla_gets_no_flag_that_might_end_the_process(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    use_eigen_convolutions()
    assert "XLA_FLAGS" not in os.environ


def test_compiled_programs_are_cached_where_a_folder_can_be_made(monkeypatch, tmp_path):
    options = {}
    monkeypatch.setattr("jax.config.update", lambda name, value: options.update({name: value}))
    enable_cache(tmp_path / "programs")
    assert not options  # the environment names a folder: so does the suite's
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    enable_cache(tmp_path / "programs")
    assert options["jax_compilation_cache_dir"] == str(tmp_path / "programs")
    options.clear()
    (tmp_path / "file").touch()
    enable_cache(tmp_path / "file" / "programs")
    assert not options
