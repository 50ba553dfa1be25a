"""Run folders: what a run leaves on disk, and how it is read back.

config.json       the data set, the models, and how they are fitted
schema.json       the columns of a table, where the data are one
metrics.jsonl     one line for each epoch of each model
summary.json      the results, with versions, commit and machine; written last
checkpoints/NAME  the progress of a fit, by `checkpoints.Checkpointer`
params/NAME       the final parameters, by `checkpoints.save_tree`
figures/

A sweep writes several models for each name of its config, in `params/NAME/MEMBER`, their scores in `members`, and
tables of them in `results.csv` and `results.md`. `save` needs no run: it writes one model to a folder of its own, as
`architecture.json` and `params`. `load` reads both.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cvae import checkpoints, checks, locks
from cvae.config import Architecture, Config
from cvae.loop import Epoch, Part
from cvae.model import CVAE, dtype_of, make, masked
from cvae.networks import Params
from cvae.settings import from_json, replace, to_json
from cvae.streamed import Streamed
from cvae.training import Metrics

PARTS = (  # all that a run leaves
    "summary.json", "results.csv", "results.md", "members", "metrics.jsonl", "checkpoints", "params", "figures",
    "locks", "schema.json", "config.json",
)  # fmt: skip
SOURCES = ("experiment", "dataset", "seed", "date", "commit", "versions", "machine")  # in every summary
FITTED = ("mean", "location", "scale", "categories", "decimals", "low", "high", "counts")  # to the data
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

# Models


def save(folder: str | os.PathLike[str], model: CVAE, params: Params) -> None:
    """Write a model and its parameters to a folder, from which `load` reads them.

    Raises:
        ValueError: the model was not made by `make`, the parameters are not its own, or the folder is a run's; nothing
            is written.
        OSError: the parameters cannot be written; those that the folder held are left as they were.
    """
    path = checks.path("folder", folder)
    checkpoints.check_path("folder", path)
    checks.require(not path.is_file(), "folder", "be a folder", f"a file at {path}")
    checks.require(not (path / "config.json").exists(), "folder", "be another than that of a run", path)
    made = model.architecture is not None
    checks.require(made, "model", "be made by cvae.make", "functions of your own; see cvae.checkpoints.save_tree")
    dtype = np.dtype(dtype_of(params)).name
    checkpoints.check_leaves(params, _like(model, dtype), "params")
    checkpoints.save_tree(path / "params", params)
    described = {"architecture": to_json(model.architecture), "latent_mask": model.latent_mask, "dtype": dtype}
    write_json(path / "architecture.json", described)


def save_params(folder: Path, name: str, params: Params) -> None:
    """Write the final parameters of one of a run's models."""
    checkpoints.save_tree(folder / "params" / name, params)


def load(folder: str | os.PathLike[str], name: str | None = None) -> tuple[CVAE, Params]:
    """Read a model and its parameters from a folder that `save` or an experiment wrote.

    Args:
        folder: such as `runs/mnist_label`.
        name: which of a run's models, such as `"cvae"`; the first by default. In a sweep, the name of a model and of a
            member, such as `"label/z08_seed0_beta1_lr0.001"`, which is `masked` to its latent size.

    Raises:
        ValueError: there is no such model, its files are damaged, or its parameters do not fit its architecture; names
            the leaf.
    """
    path = checks.path("folder", folder)
    if (path / "architecture.json").is_file():
        checks.require(name is None, "name", "be left out for a folder of a single model", checks.shown(name))
        return _load_saved(path)
    config = read_config(path)
    checks.require(len(config.models) > 0, "config.models", "name at least one model", "{}")
    name = next(iter(config.models)) if name is None else name
    kind, _, member = name.partition("/") if config.sweep is not None else (name, "", "")
    checks.one_of("name", kind, list(config.models))
    checkpoints.check_saved(path / "params" / kind, path)
    model = make(config.models[kind])
    if config.sweep is not None:
        members = sorted(each.name for each in (path / "params" / kind).glob("[!.]*"))
        checks.require(member in members, "name", f"be {kind}/MEMBER, with a member of {members}", checks.shown(name))
        model = masked(model)
    return model, checkpoints.load_tree(path / "params" / name, _like(model))


def _load_saved(folder: Path) -> tuple[CVAE, Params]:
    file = folder / "architecture.json"
    described = read_json(file)
    fields = {"architecture", "latent_mask", "dtype"}
    whole = isinstance(described, dict) and fields <= described.keys()
    checks.require(whole, str(file), f"be an object with {sorted(fields)}", checks.shown(described))
    model = make(from_json(Architecture, described["architecture"], "architecture"))
    dtype = described["dtype"]
    checks.one_of("dtype", dtype, ["bfloat16", "float16", "float32", "float64"])
    usable = jax.dtypes.canonicalize_dtype(dtype) == dtype
    checks.require(usable, "JAX_ENABLE_X64", f"be set to load parameters in {dtype}", "32 bits")
    model = masked(model) if described["latent_mask"] else model
    return model, checkpoints.load_tree(folder / "params", _like(model, dtype))


def _like(model: CVAE, dtype: str | None = None) -> Params:
    """Shapes and dtypes of a model's parameters, in a dtype of their own if one is named."""
    shapes: Params = jax.eval_shape(model.init, jax.random.key(0))
    if dtype is None:
        return shapes
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)  # type: ignore[no-any-return, no-untyped-call]


# Run folders


def check_folder(folder: Path, config: Config, *, fresh: bool = False) -> None:
    """Refuse a folder that is not for this run; writes nothing.

    Args:
        folder: the run folder; it need not exist.
        config: of the run that is to start or resume.
        fresh: whether what a run left in the folder will be discarded, so that its config does not matter.

    Raises:
        ValueError: the folder holds something else than a run, or the run of another config, or of other data; names
            the first setting that differs.
    """
    checkpoints.check_path("run folder", folder)
    checks.require(not folder.exists() or folder.is_dir(), "run folder", "be a folder", f"a file at {folder}")
    if not _begun(folder):
        return
    held = read_config(folder)
    if held.sweep is not None and config.sweep is not None:  # its axes may be extended, and models added
        shared = {name: held.models.get(name, model) for name, model in config.models.items()}
        held = replace(held, sweep=config.sweep, models=shared)
    if held.sweep is None and held.training.schedule == "constant":  # a fit may go on to more epochs
        more = max(held.training.epochs, config.training.epochs)
        held = replace(held, training=replace(held.training, epochs=more))
    if not fresh and held != config:
        setting, there, here = _first_difference(to_json(held), to_json(config))
        what, got = "config", f"{folder} with {setting} {checks.shown(there)}, not {checks.shown(here)}"
        if setting.rpartition(".")[2] in FITTED:
            what, got = "data", f"{folder}, begun with other data ({setting} differs)"
        remedy = "choose another folder (--out) or discard that run (--fresh)"
        raise ValueError(f"run folder must be of the same {what}, got {got}; {remedy}")


def discard(folder: Path) -> list[str]:
    """Delete what a run left in its folder, and nothing else; returns lines that say what that was.

    Raises:
        ValueError: the folder holds something else than a run.
        OSError: something cannot be deleted; names it.
    """
    if not _begun(folder):
        return []
    read_config(folder)  # many programs write a config.json: only in a run's own folder is anything deleted
    metrics = folder / "metrics.jsonl"
    epochs = len(metrics.read_bytes().splitlines()) if metrics.is_file() else 0
    for name in PARTS:  # the config last: until then the folder is a run's
        path = folder / name
        if path.is_symlink() or not path.is_dir():  # a link is deleted, not what it leads to
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)
    return [f"discarding {epochs} epochs in {folder}"] if epochs else []


def _begun(folder: Path) -> bool:
    """Whether a folder holds more than a run leaves that was killed before it wrote its config."""
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return not all(
        name in (locks.LOCK, locks.HOLDER, locks.METRICS) or re.fullmatch(r"\..+\.jsonl?\.\d+", name) for name in names
    )


def _first_difference(there: Any, here: Any, name: str = "") -> tuple[str, Any, Any]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys(), key=lambda key: (key == "models", key)):  # settings of data last
            if there.get(key) != here.get(key):
                return _first_difference(there.get(key), here.get(key), f"{name}.{key}".lstrip("."))
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        number = next(k for k, pair in enumerate(zip(there, here, strict=True)) if pair[0] != pair[1])
        if isinstance(there[number], dict):
            return _first_difference(there[number], here[number], f"{name}[{number}]")
    return name, there, here


# Files


def read_config(folder: Path) -> Config:
    """Read the config of a run folder.

    Raises:
        ValueError: the folder is not a run's, or its config is damaged; names the field.
    """
    path = folder / "config.json"
    checks.require(path.is_file(), "run folder", "hold a config.json", f"none at {folder}")
    return from_json(Config, read_json(path))


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of a finished run.

    Raises:
        ValueError: the run is not finished, or its summary is damaged or does not say where the results come from.
    """
    path = folder / "summary.json"
    checks.require(path.is_file(), "run folder", "hold a summary.json, as a finished run does", f"none at {folder}")
    summary = read_json(path)
    checks.require(isinstance(summary, dict), str(path), "be an object", checks.shown(summary))
    missing = [name for name in SOURCES if name not in summary]
    checks.require(not missing, str(path), f"have the entries {list(SOURCES)}", f"no {missing}")
    return dict(summary)


def append_metrics(folder: Path, model: str, epoch: Epoch) -> None:
    """Append a line to `metrics.jsonl`.

    Raises:
        OSError: it cannot be written; names the file.
    """
    path = folder / "metrics.jsonl"
    try:
        folder.stat()  # the lock would make a folder that is missing
        with locks.metrics(folder), path.open("a", encoding="utf-8") as file:
            file.write(_line(model, epoch))
    except OSError as error:
        raise OSError(f"epoch {epoch.epoch} of {model} cannot be written to {path}: {error.strerror}") from error


def rewrite_metrics(folder: Path, model: str, history: list[Epoch]) -> None:
    """Leave in `metrics.jsonl` the lines of other models, and of this one the epochs from which its fit resumes."""
    path, own = folder / "metrics.jsonl", json.dumps({"model": model})[:-1] + ","
    with locks.metrics(folder):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
        others = [line for line in lines if line.endswith("}\n") and not line.startswith(own)]  # a kill cuts one off
        _write_text(path, "".join(others + [_line(model, epoch) for epoch in history]))


def history_to_json(history: list[Epoch]) -> list[dict[str, Any]]:
    """The epochs of a fit as plain data."""
    return [_plain(epoch) for epoch in history]


def part_to_json(part: Part | None) -> dict[str, Any] | None:
    """An epoch that is not finished as plain data."""
    return part and _plain(part)


def part_from_json(data: Any) -> Part | None:
    """The inverse of `part_to_json`, to the bit."""
    return data and Part(**{**data, "sums": Metrics(**data["sums"])})


def history_from_json(data: Any) -> list[Epoch]:
    """The inverse of `history_to_json`, to the bit; of members side by side, metrics are lists.

    Raises:
        ValueError: the data are something else.
    """

    def one(epoch: Any) -> Epoch:
        validation = epoch["validation"] and Metrics(**epoch["validation"])
        return Epoch(**{**epoch, "train": Metrics(**epoch["train"]), "validation": validation})

    try:
        return [one(epoch) for epoch in data]
    except (KeyError, TypeError) as error:
        raise ValueError(f"history must be as history_to_json writes it, got {checks.shown(data)}: {error}") from None


def _line(model: str, epoch: Epoch) -> str:
    return json.dumps({"model": model} | _plain(epoch)) + "\n"


def _plain(value: Any) -> Any:
    return {name: _plain(part) for name, part in value._asdict().items()} if hasattr(value, "_asdict") else value


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file in one step: it holds the old data or the new.

    Raises:
        OSError: it cannot be written; names the file.
    """
    _write_text(path, json.dumps(data, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it holds something else; names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON, got {error}") from None


# Where results come from


def provenance() -> dict[str, Any]:
    """Date, git commit, versions and kind of machine; names no host and no user."""
    versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}
    return {"date": _now(), "commit": commit(), "versions": versions, "machine": machine()}


def fingerprint(tree: Any) -> str:
    """The SHA-256 of a tree of arrays: of their names, shapes, dtypes and bytes; of those on disk, of a sample."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = leaf.sample() if isinstance(leaf, Streamed) else np.asarray(leaf)
        shape = np.shape(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {shape} {values.dtype}".encode())
        total.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def commit() -> str | None:
    """The git commit of this source, with `-dirty` if it was changed; None outside a checkout of it."""

    def git(*args: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", "-C", here, *args], capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails where installed inside another repository
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """The kind of machine: processor, cores this process may use, memory, accelerators, system."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu,
        "cores": cores,
        "memory_gib": round(memory / 2**30, 1),
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
