"""Whether a run folder can be trusted, seen from outside.

    python -m experiments.check runs/mnist_label
    python -m experiments.check runs/mnist_label --no-recompute     # without the test numbers: seconds

Checked: the config can be read and its models built; the run is finished; the metrics hold every epoch of every model
once, in order, and are finite; the parameters are intact and finite; the checkpoints are intact and equal to the
parameters. Then the experiment is executed again on a copy, with the recorded settings: its models are trained there
already, so it only measures, and the test numbers must be those of the summary.

Prints a line for each check and exits with code 1 if one fails.
"""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

import cvae
from cvae import checks, loop, runs, training
from cvae.checkpoints import Checkpointer
from cvae.config import Config
from cvae.settings import from_json, replace
from experiments.harness import cli
from experiments.harness.run import plain

TOLERANCE = 1e-4  # of numbers measured on another kind of machine, relative
SMALLEST = 1e-7  # absolute difference that counts as none
EXPERIMENTS = (  # those that train models
    "fit", "mnist_attribute", "mnist_inpaint", "mnist_label", "mnist_likelihood", "mnist_quadrants", "sweep_condition",
    "sweep_latent",
)  # fmt: skip


@cvae.setting
class Settings:
    """Options."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    recompute: bool = True
    """measure the test numbers again"""
    data_dir: Path | None = None
    """folder of prepared data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets"""


def execute(settings: Settings) -> int:
    """Make all checks and print a line for each; returns how many failed."""
    every: dict[str, Callable[[Path], str]] = {
        "config": config_is_valid,
        "summary": summary_is_there,
        "metrics": metrics_are_complete,
        "parameters": parameters_are_finite,
        "checkpoints": checkpoints_are_intact,
    }
    if settings.recompute:
        every["test numbers"] = lambda run: numbers_are_reproduced(run, settings.data_dir)
    failed = 0
    for name, check in every.items():
        try:
            print(f"ok      {name}: {check(settings.run)}", flush=True)
        except (ValueError, OSError) as error:
            print(f"FAILED  {name}: {error}", flush=True)
            failed += 1
    if failed > 0:
        print(f"{failed} of {len(every)} checks failed", file=sys.stderr)
    return failed


def config_is_valid(run: Path) -> str:
    """The config can be read, and its models can be built."""
    config = runs.read_config(run)
    checks.one_of("experiment", config.experiment, EXPERIMENTS)
    for architecture in config.models.values():
        cvae.make(architecture)
    return f"{config.experiment} on {config.dataset}, seed {config.seed}, models {', '.join(config.models)}"


def summary_is_there(run: Path) -> str:
    """The run is finished, and says where its results come from."""
    summary = runs.read_summary(run)
    return f"finished {summary['date']}, commit {summary['commit']}"


def models_of(config: Config) -> list[str]:
    """The models of a run, or the members of a sweep, by the names that `cvae.load` takes."""
    if config.sweep is None:
        return list(config.models)
    return [f"{name}/{member.name}" for name in config.models for member in cvae.sweeps.members(config.sweep)]


def metrics_are_complete(run: Path) -> str:
    """Every epoch of every model once, in order, with finite losses, up to the last or where early stopping ended."""
    config, by_model, counts = runs.read_config(run), histories(run), []
    for name in models_of(config):
        history = by_model.get(name, [])
        epochs = [epoch.epoch for epoch in history]
        counts.append(f"{len(epochs)} epoch{'s' * (len(epochs) != 1)} of {name}")
        checks.require(epochs == list(range(1, len(epochs) + 1)), f"epochs of {name}", "be 1, 2, 3 and so on", epochs)
        rule = f"be all {config.training.epochs}, or as many as early stopping takes"
        checks.require(loop.ended(config.training, history), f"epochs of {name}", rule, len(epochs))
    return ", ".join(counts)


def histories(run: Path) -> dict[str, list[loop.Epoch]]:
    """The lines of the metrics, by model; a sweep's may include members of an earlier command."""
    config = runs.read_config(run)
    by_model: dict[str, list[loop.Epoch]] = {}
    for number, text in enumerate((run / "metrics.jsonl").read_text(errors="replace").splitlines(), 1):
        line = f"metrics.jsonl, line {number}"
        try:
            record = json.loads(text)
            model = record.pop("model")
            (epoch,) = runs.history_from_json([record])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{line} must be a record of an epoch, got {checks.shown(error)}") from None
        known = isinstance(model, str) and (model if config.sweep is None else model.partition("/")[0]) in config.models
        checks.require(known, line, f"name a model of the config, {list(config.models)}", checks.shown(model))
        for terms in (epoch.train, *([epoch.validation] if epoch.validation else [])):
            checks.require(isinstance(terms.loss, float), line, "hold a loss", checks.shown(terms.loss))
        checks.require(math.isfinite(epoch.train.loss), line, "hold a finite loss", epoch.train.loss)
        by_model.setdefault(model, []).append(epoch)
    return by_model


def parameters_are_finite(run: Path) -> str:
    """The parameters of every model are intact, fit the config, and are finite."""
    count = 0
    for name in models_of(runs.read_config(run)):
        for leaf, value in leaves(cvae.load(run, name)[1]).items():
            checks.require(bool(np.isfinite(value).all()), f"{name}.{leaf}", "be finite", "NaN or infinite values")
            count += value.size
    return f"{count:,}, all finite"


def checkpoints_are_intact(run: Path) -> str:
    """The last checkpoint of every model is intact, and equal to the metrics and the parameters."""
    config, checked = runs.read_config(run), []
    if config.sweep is not None:
        return "those of finished members are deleted"
    by_model = histories(run)
    for name in config.models:
        history, result = last_checkpoint(run, name, config)
        same = repr(history) == repr(by_model.get(name))
        checks.require(same, f"epochs of {name} in the metrics", "be those of the last checkpoint", "others")
        same = jax.tree.all(jax.tree.map(np.array_equal, result, cvae.load(run, name)[1]))
        checks.require(same, f"parameters of {name}", "be those of the last checkpoint", "others")
        checked.append(f"{name} after epoch {len(history)}")
    return ", ".join(checked)


def last_checkpoint(run: Path, name: str, config: Config) -> tuple[list[loop.Epoch], Any]:
    """History and parameters of a model's last checkpoint, read from a copy: reading moves damaged ones aside."""
    folder = run / "checkpoints" / name
    checks.require(folder.is_dir(), "run folder", f"hold checkpoints/{name}", f"none at {run}")
    params = jax.eval_shape(cvae.make(config.models[name]).init, jax.random.key(0))
    state = jax.eval_shape(lambda params: training.init_state(params, config.training), params)
    best = None if config.training.patience is None else params
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        copy = Path(temporary) / name
        shutil.copytree(folder, copy)
        with Checkpointer(copy) as checkpointer:
            newest = checkpointer.newest({"state": state, "best": best})
    damage = "; ".join(str(warning.message) for warning in caught)
    checks.require(not damage, f"checkpoint of {name}", "be intact", damage)
    if newest is None:
        raise ValueError(f"checkpoints of {name} must hold at least one, got none")
    history = runs.history_from_json(newest.record["history"])
    return history, loop.Progress(newest.tree["state"], newest.tree["best"], history, config.training).result


def numbers_are_reproduced(run: Path, data_dir: Path | None) -> str:
    """The experiment with the recorded settings, on a copy that is trained but not measured, gives the same numbers."""
    summary = runs.read_summary(run)
    checks.one_of("experiment", summary["experiment"], EXPERIMENTS)
    experiment: cli.Experiment = importlib.import_module(f"experiments.{summary['experiment']}").EXPERIMENT
    settings: Any = from_json(experiment.settings, summary.get("settings"), "summary.json: settings")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run, copy)
        before = results_of(copy)
        forget(copy)
        changes = {"out": copy, "figures": False, "dataset": summary["dataset"], "data_dir": data_dir}
        changes = {name: value for name, value in changes.items() if hasattr(settings, name)}  # `fit` reads a file
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            cli.execute(experiment, replace(settings, **changes))
        after = results_of(copy)
    checks.require(before.keys() == after.keys(), "summary.json", f"hold {sorted(after)}", sorted(before))
    exact = True
    for name, there in before.items():
        here = after[name]
        exact = exact and there == here
        numbers = isinstance(there, int | float) and isinstance(here, int | float)
        close = numbers and math.isclose(there, here, rel_tol=TOLERANCE, abs_tol=SMALLEST)
        checks.require(there == here or close, f"summary.json: {name}", f"be {here}, as recomputed", there)
    return f"{len(before)} recomputed, equal{'' if exact else f' to one part in {1 / TOLERANCE:,.0f}'}"


def results_of(run: Path) -> dict[str, Any]:
    """What a run measured on the test split, or on another that its summary names, by place."""
    summary = runs.read_summary(run)
    split = summary.get("split", "test")
    results = summary.get(split)
    checks.require(bool(results), "summary.json", f"hold results as {split!r}", checks.shown(results))
    return leaves(plain(results))  # earlier summaries have NaN for null


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of nested dicts and lists by their place, such as `cvae.elbo.value`."""
    paths = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda value: value is None)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in paths}


def forget(run: Path) -> None:
    """Make a run folder one that is trained, but not measured."""
    (run / "summary.json").unlink()
    for path in run.glob("members/*/*.json"):  # a member is measured again where its number of samples is another
        member = runs.read_json(path)
        member["test"]["num_samples"] = 0
        runs.write_json(path, member)


def main() -> None:
    """The command line; exits with code 1 if a check fails."""
    if execute(cli.options(Settings, __doc__)) > 0:
        sys.exit(1)


if __name__ == "__main__":
    cli.protected(main)
