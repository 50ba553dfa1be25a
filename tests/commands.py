"""Command lines, called as a user calls them: in a process of their own, or in this one, which is far quicker."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest

import cvae
from experiments import harness, mnist_label
from experiments.harness import cli
from tests.conftest import weights

ROOT = Path(__file__).parent.parent


def offline(folder: Path) -> dict[str, str]:
    """The environment of a machine with no data but scikit-learn's, and no network."""
    # A proxy that refuses at once stands for the missing network.
    refusing = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    data = {"TFDS_DATA_DIR": str(folder / "absent"), "CVAE_CACHE_DIR": str(folder / "cache")}
    return data | refusing | {"NO_PROXY": "", "no_proxy": ""}


def call(module: ModuleType, *args: str) -> subprocess.CompletedProcess:
    """Call a module of the project in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [module.__name__.rpartition(".")[2], *args])
        patch.setattr(warnings, "showwarning", warnings.showwarning)  # restores it
        try:
            if hasattr(module, "main"):
                cli.protected(module.main)
            else:
                harness.command(module.EXPERIMENT, module.__doc__)
        except SystemExit as stop:
            code = stop.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def assert_refused(result: subprocess.CompletedProcess, message: str) -> None:
    """The command ended with this sentence, which may be broken into the lines of a box."""
    assert result.returncode == 2, result.stderr
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split()), result.stderr
    assert "Traceback" not in result.stderr


def untrained(folder: Path) -> Path:
    """A run folder of `mnist_label` on the digits whose parameters are drawn by NumPy: nothing is compiled."""
    settings = cvae.replace(mnist_label.CONFIGS["smoke"], out=folder)
    dataset, config, out = cli.plan(mnist_label.EXPERIMENT, settings)
    with harness.Run(config, out, settings, dataset) as run:
        for name, architecture in config.models.items():
            cvae.runs.save_params(out, name, weights(cvae.make(architecture)))
        run.write_summary(test={}, seconds={})
    return out
