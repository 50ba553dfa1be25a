"""Command lines, called as a user calls them: in a process of their own, or in this one, which is far quicker."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cvae
from experiments import command, mnist_label, study
from tests.conftest import weights

ROOT = Path(__file__).parent.parent


def offline(folder: Path) -> dict[str, str]:
    """The environment of a machine with no data but scikit-learn's, and no network."""
    # A proxy that refuses at once stands for the missing network.
    refusing = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    data = {"TFDS_DATA_DIR": str(folder / "absent"), "CVAE_CACHE_DIR": str(folder / "cache")}
    return data | refusing | {"NO_PROXY": "", "no_proxy": ""}


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess:
    """Call a module of the project from another folder, offline, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", *args],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | offline(cwd),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def call(module: ModuleType, *args: str) -> subprocess.CompletedProcess:
    """Call a module of the project in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [module.__name__, *args])
        try:
            command.run(module.main, module.Settings, module.__doc__)
        except SystemExit as stop:
            code = stop.code
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def assert_refused(result: subprocess.CompletedProcess, message: str) -> None:
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def afresh(settings: Any) -> Any:
    """The same settings, to start over."""
    return replace(settings, output=replace(settings.output, fresh=True))


def untrained(folder: Path) -> Path:
    """A run folder of `mnist_label` on the digits whose models were drawn by NumPy: nothing is compiled."""
    _, config, out = mnist_label.plan(mnist_label.Settings(output=mnist_label.Output(out=folder, smoke=True)))
    kept = study.Study(config, out)
    for name, architecture in config.models.items():
        cvae.runs.save(out, name, weights(cvae.make(architecture)))
    kept.keep()
    return out
