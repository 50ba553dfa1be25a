"""Run folders: what an experiment leaves behind, and how it is read back.

config.json      what was asked for, enough to build the models again
metrics.jsonl    one line an epoch a model
summary.json     the figures on the test split, with versions, commit and machine; there once the run was finished
checkpoints/     the parameters of each model, by name
progress/        what a fit goes on from, by model and epoch: the newest three checkpoints and the best
figures/         pictures

The folder of a sweep has `members/MODEL/MEMBER.json` in place of metrics, a file a finished member, and parameters
in `checkpoints/MODEL/MEMBER`. Each stands for itself, so one folder may hold several sweeps of the same models.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cvae import checkpoints, checks
from cvae import training as trainings
from cvae.config import Config, Training, from_json, to_json
from cvae.evaluation import Terms
from cvae.model import CVAE, make, masked
from cvae.networks import Params
from cvae.training import Epoch, Progress

LOCK = ".lock"  # says who writes in a run folder
SECONDS = 10  # between checkpoints, where nothing else is asked for
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def check_free(folder: Path, config: Config) -> None:
    """Refuse a folder that holds another run, or something that is no run; touches nothing.

    Beside the members of a sweep may lie those of other axes, or of models of other names.

    Raises:
        ValueError: names the folder and the first setting that differs.
    """
    checks.require(not folder.exists() or folder.is_dir(), "run folder", "be a folder", f"a file at {folder}")
    if _holds_nothing(folder):
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


def start(folder: Path, config: Config, *, fresh: bool = False) -> None:
    """Make the folder of a run and write its config.

    The config of a sweep is written with the models that the folder holds already. `fresh` is for a folder of which
    everything was discarded: what is still there is none of a run's.

    Raises:
        ValueError: as of `check_free`.
    """
    if not fresh:
        check_free(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    if config.sweep is not None and (folder / "config.json").exists():
        config = replace(config, models=read_config(folder).models | config.models)
    write_json(folder / "config.json", to_json(config))  # first: what else is there is a run's because of it
    for part in ("checkpoints", "figures"):
        (folder / part).mkdir(exist_ok=True)
    if config.sweep is None:
        (folder / "metrics.jsonl").touch()


def check_discardable(folder: Path) -> None:
    """Refuse a folder that holds something that is no run; touches nothing.

    Raises: ValueError.
    """
    checks.require(not folder.exists() or folder.is_dir(), "run folder", "be a folder", f"a file at {folder}")
    if not _holds_nothing(folder):
        read_config(folder)  # many programs write a config.json: only in a run's own folder is anything deleted


def discard(folder: Path) -> list[str]:
    """Delete what a run left in its folder, and nothing else; returns what that was, a line each.

    Raises:
        ValueError: the folder holds something that is no run.
        OSError: something cannot be deleted; names it.
    """
    check_discardable(folder)
    lines = []
    metrics = folder / "metrics.jsonl"
    if metrics.exists():
        lines.append(f"discarding {len(metrics.read_bytes().splitlines())} epochs in {folder}")
    if members := list(folder.glob("members/*/*.json")):
        lines.append(f"discarding {len(members)} members in {folder}")
    left = ("summary.json", "metrics.jsonl", "results.csv", "results.md", "preprocessing.json")
    for name in (*left, "progress", "checkpoints", "members", "figures", "config.json"):  # last, as it is written first
        path = folder / name
        if path.is_symlink() or not path.is_dir():  # where a link leads is not this folder's
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)
    return lines


def _holds_nothing(folder: Path) -> bool:
    """Whether no run has begun here: no folder, or at most what a run leaves that was killed before it had a config."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return all(name == LOCK or re.fullmatch(r"\.config\.json\.\d+", name) for name in names)


class Lock:
    """A run folder is written by one process: the second is refused. The system frees it when the holder ends."""

    def __init__(self, folder: Path):
        """Take it, making the folder if there is none.

        Raises:
            ValueError: another process holds it; names it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / LOCK).open("a+")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.seek(0)
            holder = self.file.read().strip() or "another process"
            self.file.close()
            raise ValueError(f"run folder must be free, got {folder}, held by {holder}") from None
        self.file.truncate(0)
        self.file.write(
            f"process {os.getpid()} since {datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')}"
        )
        self.file.flush()

    def release(self) -> None:
        """Let it go."""
        self.file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def log_epoch(folder: Path, model: str, epoch: Epoch) -> None:
    """Append a line to `metrics.jsonl`; raises `OSError` where it cannot be written."""
    path = folder / "metrics.jsonl"
    try:
        with path.open("a") as file:
            file.write(_line(model, epoch))
    except OSError as error:  # of a full disk it would not say which file
        raise OSError(f"epoch {epoch.epoch} of {model} cannot be written to {path}: {error.strerror}") from error


def _line(model: str, epoch: Epoch) -> str:
    return json.dumps({"model": model} | epoch_to_json(epoch)) + "\n"


def epoch_to_json(epoch: Epoch) -> dict[str, Any]:
    """An epoch as plain data."""
    validation = epoch.validation._asdict() if epoch.validation else None
    return epoch._asdict() | {"train": epoch.train._asdict(), "validation": validation}


def epoch_from_json(data: dict[str, Any]) -> Epoch:
    """The inverse of `epoch_to_json`, exact to the bit."""
    validation = Terms(**data["validation"]) if data["validation"] else None
    return Epoch(**data | {"train": Terms(**data["train"]), "validation": validation})


class Stopped(Exception):  # noqa: N818
    """A fit was asked to stop, and has saved where it is."""

    def __init__(self, signal: int, words: str):
        super().__init__(words)
        self.signal = signal


class Saver:
    """Checkpoints of something that is trained, in a folder of its own, and when it is time for one."""

    def __init__(
        self,
        folder: Path,
        facts: dict[str, Any],
        *,
        save_every: int | None = None,
        asked: Callable[[], int | None] = lambda: None,
    ):
        """Begin, or go on with what is there.

        Args:
            folder: of the checkpoints.
            facts: what must be the same when it goes on, such as versions.
            save_every: epochs between checkpoints; those that take `SECONDS` if left out.
            asked: the number of the signal that asks to stop after this epoch, or None.
        """
        self.folder, self.facts, self.save_every, self.asked = folder, facts, save_every, asked
        self.series, self.saved = checkpoints.Series(folder), time.monotonic()

    def found(self, like: Any) -> checkpoints.Found | None:
        """The newest checkpoint that is whole, None if there is none.

        Raises:
            ValueError: it was made with other facts; names the first that differs.
        """
        try:
            return self.series.newest(like, self._accept)
        except ValueError:
            self.series.close()
            raise

    def _accept(self, record: dict[str, Any]) -> None:
        if record["facts"] != self.facts:
            name, there, here = _first_difference(record["facts"], self.facts)
            raise ValueError(
                f"run folder must be gone on with as it was begun, got {self.folder} with {name} {there!r}, not "
                f"{here!r}; --fresh starts over"
            )

    def after(self, epoch: int, arrays: Any, record: dict[str, Any], loss: float, *, last: bool, name: str) -> None:
        """Save what there is after an epoch, if it is time to.

        Raises:
            OSError: the folder cannot be written; names the checkpoint that is whole.
            Stopped: it was asked to.
        """
        signal = self.asked()
        every = self.save_every
        due = time.monotonic() - self.saved >= SECONDS if every is None else epoch % every == 0
        if due or last or signal is not None:
            self.series.save(epoch, arrays, {"facts": self.facts} | record, loss)
            self.saved = time.monotonic()
        if signal is not None:
            self.series.wait()
            raise Stopped(signal, f"stopped after epoch {epoch} of {name}, which is saved in {self.folder}")

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Wait until everything is written; what else went wrong has been said by the error."""
        with suppress(OSError) if error else nullcontext():
            self.series.close()


def _like(params: Params, training: Training) -> dict[str, Any]:
    """The shapes of a fit's checkpoints."""
    state = jax.eval_shape(partial(trainings.start, training=training), params)
    return {"state": state, "best": params if training.patience is not None else None}


def _progress(found: checkpoints.Found) -> Progress:
    history = [epoch_from_json(epoch) for epoch in found.record["history"]]
    return Progress(found.arrays["state"], found.arrays["best"], history)


def newest(folder: Path, model: CVAE, training: Training) -> Progress | None:
    """What the newest checkpoint of a fit that is whole holds, whatever it was begun with; None if there is none."""
    series = checkpoints.Series(folder)
    found = series.newest(_like(jax.eval_shape(model.init, jax.random.key(0)), training))
    series.close()
    return None if found is None else _progress(found)


class Keeper:
    """What a run folder keeps of a fit while it goes on, so that the same fit can go on from there.

    A line of `metrics.jsonl` for every epoch, and checkpoints in `progress/MODEL`. `progress` is what an earlier run
    left of it, None if nothing, to be given to `fit`; `after` is to be its `on_epoch`.
    """

    def __init__(
        self, folder: Path, model: str, params: Params, training: Training, facts: dict[str, Any], **saving: Any
    ):
        """Read back what is there.

        Args:
            folder: the run folder.
            model: the name of the model.
            params: of the fit's shapes.
            training: the fit's settings.
            facts: as of `Saver`, and what follows.
            saving: as of `Saver`.

        Raises:
            ValueError: as of `Saver.found`.
        """
        self.folder, self.model, self.training = folder, model, training
        self.saver = Saver(folder / "progress" / model, facts, **saving)  # whose `with` a fit is to be in
        found = self.saver.found(_like(params, training))
        self.progress = None if found is None else _progress(found)
        self._rewrite([] if self.progress is None else self.progress.history)

    def _rewrite(self, history: list[Epoch]) -> None:
        """Leave exactly the lines of the other models, and of this one's epochs that are kept."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
        mine = json.dumps({"model": self.model})[:-1]
        others = [line for line in lines if line.endswith("}\n") and not line.startswith(mine)]
        write_text(path, "".join(others) + "".join(_line(self.model, epoch) for epoch in history))

    def after(self, progress: Progress) -> None:
        """Log the last epoch, and save the progress if it is time to.

        Raises:
            OSError, Stopped: as of `Saver.after`.
        """
        epoch, history = progress.history[-1], [epoch_to_json(one) for one in progress.history]
        log_epoch(self.folder, self.model, epoch)
        self.saver.after(
            epoch.epoch,
            {"state": progress.state, "best": progress.best},
            {"history": history},
            (epoch.validation or epoch.train).loss,
            last=trainings.ended(self.training, progress.history),
            name=self.model,
        )


def write_json(path: Path, data: Any) -> None:
    """Write a file that is whole or not there."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a file that a run left.

    Raises:
        ValueError: it is no JSON; names it.
    """
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON, got {error}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole or not there."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    unfinished.replace(path)


def save(folder: Path, model: str, params: Params) -> None:
    """Save the parameters of one of the run's models."""
    checkpoints.save(folder / "checkpoints" / model, params)


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished run.

    Raises:
        ValueError: the run is not finished, or its summary is damaged or does not say where the run came from.
    """
    path = folder / "summary.json"
    checks.require(path.is_file(), "run folder", "hold a summary.json, as a finished run does", f"none at {folder}")
    summary = read_json(path)
    checks.require(isinstance(summary, dict), str(path), "be an object", checks.shown(summary))
    missing = {"experiment", "dataset", "seed", "date", "commit", "versions", "machine"} - summary.keys()
    checks.require(not missing, "summary.json", "say where the run came from", f"no {sorted(missing)}")
    found: dict[str, Any] = summary
    return found


def read_config(folder: Path) -> Config:
    """The config of a run folder.

    Raises:
        ValueError: the folder is not a run, or its config is damaged; names the field.
    """
    path = folder / "config.json"
    checks.require(path.is_file(), "run folder", "hold a config.json", f"none at {folder}")
    return from_json(Config, read_json(path))


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
    folder = checks.path("run_dir", run_dir)
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
        "versions": versions(),
        "machine": machine(),
    }


def versions() -> dict[str, str]:
    """Of Python and of what computes."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES}


def digest(arrays: Any) -> str:
    """The SHA-256 of a tree of arrays, their names, shapes and dtypes."""
    total = hashlib.sha256()
    for name, leaf in checkpoints.leaves(arrays).items():
        values = np.ascontiguousarray(leaf)
        total.update(f"{name} {values.shape} {values.dtype}".encode())
        total.update(values.tobytes())
    return total.hexdigest()


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
