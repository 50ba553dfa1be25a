"""Run folders: what an experiment leaves behind, and how it is read back.

config.json      what was asked for, enough to build the models again
metrics.jsonl    one line an epoch a model
summary.json     the figures on the test split, with versions, commit and machine
checkpoints/     the parameters of each model, by name
figures/         pictures

The folder of a sweep has `members/MODEL/MEMBER.json` in place of metrics, a file a finished member, and parameters
in `checkpoints/MODEL/MEMBER`. Each stands for itself, so one folder may hold several sweeps of the same models.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from cvae import checkpoints, checks
from cvae.config import Config, from_json, to_json
from cvae.model import CVAE, make, masked
from cvae.networks import Params
from cvae.training import Epoch

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def check_free(folder: Path, config: Config) -> None:
    """Refuse a folder that holds another run, or something that is no run; touches nothing.

    Beside the members of a sweep may lie those of other axes, or of models of other names.

    Raises:
        ValueError: names the folder and the first setting that differs.
    """
    checks.require(not folder.exists() or folder.is_dir(), "run folder", "be a folder", f"a file at {folder}")
    if not folder.exists() or not any(folder.iterdir()):
        return
    held, wanted = to_json(read_config(folder)), to_json(config)
    if held["sweep"] is not None and wanted["sweep"] is not None:
        held["sweep"], both = wanted["sweep"], held["models"].keys() & wanted["models"].keys()
        for part in (held, wanted):
            part["models"] = {name: model for name, model in part["models"].items() if name in both}
    if held != wanted:
        setting, there, here = _first_difference(held, wanted)
        raise ValueError(
            f"run folder must hold this config or none, got {folder} with {setting} {there!r}, not {here!r}; "
            "choose another folder or delete it"
        )


def _first_difference(held: Any, wanted: Any, name: str = "") -> tuple[str, Any, Any]:
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in sorted(held.keys() | wanted.keys()):
            if held.get(key) != wanted.get(key):
                return _first_difference(held.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    return name, held, wanted


def start(folder: Path, config: Config) -> None:
    """Make the folder of a run and write its config; metrics of an earlier run of the same config go.

    The config of a sweep is written with the models that the folder holds already.
    """
    check_free(folder, config)
    for part in ("checkpoints", "figures"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if config.sweep is None:
        (folder / "metrics.jsonl").write_text("")
    elif (folder / "config.json").exists():
        config = replace(config, models=read_config(folder).models | config.models)
    write_json(folder / "config.json", to_json(config))
    (folder / "summary.json").unlink(missing_ok=True)


def log_epoch(folder: Path, model: str, epoch: Epoch) -> None:
    """Append a line to `metrics.jsonl`."""
    validation = epoch.validation._asdict() if epoch.validation else None
    record = {"model": model} | epoch._asdict() | {"train": epoch.train._asdict(), "validation": validation}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def write_json(path: Path, data: Any) -> None:
    """Write a file that is whole or not there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(data, indent=2) + "\n")
    partial.replace(path)


def save(folder: Path, model: str, params: Params) -> None:
    """Save the parameters of one of the run's models."""
    checkpoints.save(folder / "checkpoints" / model, params)


def read_config(folder: Path) -> Config:
    """The config of a run folder.

    Raises:
        ValueError: the folder is not a run, or its config is damaged; names the field.
    """
    path = folder / "config.json"
    checks.require(path.is_file(), "run folder", "hold a config.json", f"none at {folder}")
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, got {error}") from None
    return from_json(Config, data)


def load(run_dir: str | os.PathLike[str], name: str | None = None) -> tuple[CVAE, Params, Config]:
    """Read a trained model back from a run folder.

    Args:
        run_dir: what an experiment wrote, such as `runs/mnist_label`.
        name: which of the run's models, such as `"cvae"` or `"vae"`; the first if left out. Of a sweep, model and
            member, such as `"label/z08_seed0_beta1_lr0.001"`, which is loaded as `masked` by its latent size.

    Returns:
        The model's functions, its parameters, and the run's config.

    Raises:
        ValueError: the folder is not a run, has no such model, or holds parameters that do not fit its config;
            the message names the leaf.
    """
    folder = Path(run_dir)
    config = read_config(folder)
    checks.require(len(config.models) > 0, "config.models", "name at least one model", "{}")
    name = next(iter(config.models)) if name is None else name
    kind, _, member = name.partition("/") if config.sweep is not None else (name, "", "")
    checks.require(kind in config.models, "name", f"be one of {list(config.models)}", repr(kind))
    model = make(config.models[kind])
    if config.sweep is not None:
        checks.require(member != "", "name", f"be {kind}/ and a member of the sweep", repr(name))
        model = masked(model)
    expected = jax.eval_shape(model.init, jax.random.key(0))
    return model, checkpoints.restore(folder / "checkpoints" / name, expected), config


def provenance() -> dict[str, Any]:
    """Where a figure came from: versions, git commit, machine kind and date. Names no host and no user."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "machine": machine(),
    }


def commit() -> str | None:
    """The git commit of this source, with `-dirty` if it was changed; None outside a checkout of it."""

    def git(*args: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", "-C", here, *args], capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # installed inside somebody else's repository?
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """The kind of machine: processor, cores this process may use, memory, accelerators, system."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu,
        "cores": cores,
        "memory_gib": round(memory / 2**30, 1),
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "system": f"{platform.system()} {platform.machine()}",
    }
