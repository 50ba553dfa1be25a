"""Whether a run folder can be trusted, seen from outside.

    python -m experiments.check runs/mnist_label
    python -m experiments.check runs/mnist_label --no-recompute     # without the test numbers: seconds

Checked: the config is one; the metrics hold every epoch of every model once, in order, and are finite; the parameters
can be read and are finite; the checkpoints can be read. Then the command that made the run is called again on a copy:
training is over there, so that it only measures, and its numbers must be those of the summary.

Prints a line a check and exits with code 1 if one fails.
"""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import cvae
from experiments import command

if TYPE_CHECKING:
    from cvae.config import Config
    from cvae.training import Epoch

TOLERANCE = 1e-4  # of numbers measured on another kind of machine, relative
# What trains models, and can be called again.
EXPERIMENTS = (
    "fit", "mnist_attribute", "mnist_inpaint", "mnist_label", "mnist_likelihood", "mnist_quadrants", "sweep_condition",
    "sweep_latent",
)  # fmt: skip
DEPTH = {"mnist_quadrants": 2}  # folders between --out and a run, where there are some


@dataclass(frozen=True)
class Settings:
    """Options."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    recompute: bool = True
    """measure the test numbers again"""
    data_dir: Path | None = None
    """folder of prepared data sets; $TFDS_DATA_DIR or ~/tensorflow_datasets if left out"""


def main(settings: Settings) -> None:
    """Make all checks; exits with code 1 if one fails."""
    checks: dict[str, Callable[[], str]] = {
        "config": lambda: config_is_valid(settings.run),
        "summary": lambda: summary_is_there(settings.run),
        "metrics": lambda: metrics_are_complete(settings.run),
        "parameters": lambda: parameters_are_finite(settings.run),
        "checkpoints": lambda: checkpoints_are_whole(settings.run),
    }
    if settings.recompute:
        checks["test numbers"] = lambda: numbers_are_those(settings)
    failed = 0
    for name, check in checks.items():
        try:
            print(f"ok      {name}: {check()}", flush=True)
        except (ValueError, OSError) as error:
            print(f"FAILED  {name}: {error}", flush=True)
            failed += 1
    if failed > 0:
        print(f"{failed} of {len(checks)} checks failed", file=sys.stderr)
        sys.exit(1)


def config_is_valid(run: Path) -> str:
    """The config can be read, and its models be made."""
    config = cvae.runs.read_config(run)
    cvae.checks.one_of("experiment", config.experiment, EXPERIMENTS)
    for architecture in config.models.values():
        cvae.make(architecture)
    return f"{config.experiment} on {config.dataset}, seed {config.seed}, models {', '.join(config.models)}"


def summary_is_there(run: Path) -> str:
    """The run is finished, and says where it came from."""
    summary = cvae.runs.read_summary(run)
    return f"finished {summary['date']}, commit {summary['commit']}"


def metrics_are_complete(run: Path) -> str:
    """Every epoch of every model once, in order, with finite losses; as many as the summary's settings allow."""
    config = cvae.runs.read_config(run)
    if config.sweep is not None:
        return members_are_complete(run, config)
    by_model = histories(run, config)
    for model, history in by_model.items():
        epochs = [epoch.epoch for epoch in history]
        wanted = list(range(1, len(epochs) + 1))
        cvae.checks.require(epochs == wanted, f"epochs of {model}", "be 1, 2, 3 and so on", epochs)
        rule = f"be all {config.training.epochs}, or as many as early stopping takes"
        ended = cvae.training.ended(config.training, history)
        cvae.checks.require(ended, f"epochs of {model}", rule, len(epochs))
    return ", ".join(f"{len(history)} epochs of {model}" for model, history in by_model.items())


def histories(run: Path, config: Config) -> dict[str, list[Epoch]]:
    """The lines of the metrics, by model."""
    by_model: dict[str, list[Epoch]] = {name: [] for name in config.models}
    for number, text in enumerate((run / "metrics.jsonl").read_text(errors="replace").splitlines(), 1):
        line = f"metrics.jsonl, line {number}"
        try:
            record = json.loads(text)
            model = record.pop("model")
            epoch = cvae.runs.epoch_from_json(record)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{line} must be a record of an epoch, got {cvae.checks.shown(error)}") from None
        known = isinstance(model, str) and model in by_model
        cvae.checks.require(known, line, f"name a model of the config, {list(by_model)}", repr(model))
        for terms in (epoch.train, *([epoch.validation] if epoch.validation else [])):
            cvae.checks.require(isinstance(terms.loss, float), line, "hold a loss", cvae.checks.shown(terms.loss))
        finite = math.isfinite(epoch.train.loss)
        cvae.checks.require(finite, line, "hold a finite loss", repr(epoch.train.loss))
        by_model[model].append(epoch)
    return by_model


def members_are_complete(run: Path, config: Config) -> str:
    """A file for every member of a sweep."""
    assert config.sweep is not None
    members = cvae.sweeps.members(config.sweep)
    for name in config.models:
        for member in members:
            path = run / "members" / name / f"{member.name}.json"
            cvae.checks.require(path.is_file(), "members", "all be there", f"no {name}/{member.name}")
    return f"{len(members)} members of each of {', '.join(config.models)}"


def names(run: Path) -> Iterator[str]:
    """The models of a run, or the members of a sweep, as `load` takes them."""
    config = cvae.runs.read_config(run)
    for name in config.models:
        if config.sweep is None:
            yield name
        else:
            yield from (f"{name}/{member.name}" for member in cvae.sweeps.members(config.sweep))


def parameters_are_finite(run: Path) -> str:
    """The parameters of every model can be read, fit the config, and are numbers."""
    import jax
    import numpy as np

    count = 0
    for name in names(run):
        _, params, _ = cvae.load(run, name)
        for leaf, value in cvae.checkpoints.leaves(params).items():
            cvae.checks.require(bool(np.isfinite(value).all()), f"{name}{leaf}", "be finite", "others")
        count += sum(leaf.size for leaf in jax.tree.leaves(params))
    return f"{count:,}, all finite"


def checkpoints_are_whole(run: Path) -> str:
    """What training would go on from can be read, and comes to the parameters that are kept, bit for bit."""
    import jax
    import numpy as np

    config, whole = cvae.runs.read_config(run), []
    if config.sweep is not None:
        return "none are kept of a sweep's finished members"
    for name, architecture in config.models.items():
        cvae.checks.require((run / "progress" / name).is_dir(), "run folder", f"hold progress/{name}", f"none at {run}")
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            copy = Path(folder) / "progress" / name
            shutil.copytree(run / "progress" / name, copy)
            progress = cvae.runs.newest(copy, cvae.make(architecture), config.training)
            cvae.checks.require(not said, f"checkpoint of {name}", "be whole", "; ".join(str(w.message) for w in said))
            cvae.checks.require(progress is not None, f"checkpoints of {name}", "be there", "none")
        assert progress is not None
        same = repr(progress.history) == repr(histories(run, config)[name])
        cvae.checks.require(same, f"epochs of {name} in the metrics", "be those of the last checkpoint", "others")
        _, params, _ = cvae.load(run, name)
        same = jax.tree.all(jax.tree.map(np.array_equal, progress.result, params))
        cvae.checks.require(same, f"parameters of {name}", "be those of the last checkpoint", "others")
        whole.append(f"{name} after epoch {len(progress.history)}")
    return ", ".join(whole)


def numbers_are_those(settings: Settings) -> str:
    """The same command, on a copy that is trained but not measured, comes to the same numbers."""
    run = settings.run.resolve()
    summary = cvae.runs.read_summary(run)
    experiment, options = summary["experiment"], summary.get("options")
    if not isinstance(options, dict) or options == {}:
        raise ValueError(f"summary.json must hold the options of its command, got {cvae.checks.shown(options)}")
    cvae.checks.one_of("experiment", experiment, EXPERIMENTS)
    module = importlib.import_module(f"experiments.{experiment}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        copy = out.joinpath(*run.parts[len(run.parts) - DEPTH.get(experiment, 0) :])
        shutil.copytree(run, copy)
        before = measured(copy)
        forget(copy)
        arguments = [*as_arguments(options), "--out", str(out)]
        if experiment != "fit":  # whose data are a file, an option among the others
            arguments += ["--dataset", summary["dataset"]]
        if settings.data_dir is not None:
            arguments += ["--data-dir", str(settings.data_dir)]
        try:
            with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
                parsed = tyro.cli(module.Settings, args=arguments, config=(tyro.conf.OmitArgPrefixes,))
        except SystemExit:
            raise ValueError(f"options of summary.json must be those of {experiment}, got {options}") from None
        with redirect_stdout(StringIO()):
            module.main(parsed)
        after = measured(copy)
    # A row of `mnist_quadrants` may have been scored by more samples than its last command names.
    left = sorted(before.keys() - after.keys()) if experiment == "mnist_quadrants" else []
    before = {name: found for name, found in before.items() if name not in left}
    numbers, exact = 0, True
    for name, there, here in pairs(before, after, "summary.json"):
        numbers += 1
        exact = exact and there == here
        close = there == here or abs(there - here) <= TOLERANCE * max(abs(there), abs(here))
        cvae.checks.require(close, name, f"be {there}, as in the run folder", here)
    how = "equal" if exact else f"equal to one part in {1 / TOLERANCE:,.0f}"
    return f"{numbers} recomputed, {how}" + (
        f"; of an earlier command, and not again: {', '.join(left)}" if left else ""
    )


def measured(run: Path) -> Any:
    """What a run measured: the scores of its summary, or of every member of a sweep."""
    members = {
        str(path.relative_to(run)): cvae.runs.read_json(path)["test"] for path in sorted(run.glob("members/*/*.json"))
    }
    summary = cvae.runs.read_json(run / "summary.json")
    return members or summary[summary.get("split", "test")]


def forget(run: Path) -> None:
    """Make a run folder one that is trained, but not measured."""
    (run / "summary.json").unlink()
    for path in run.glob("members/*/*.json"):  # scored again where the number of samples is not the one asked for
        member = cvae.runs.read_json(path)
        member["test"]["num_samples"] = 0
        cvae.runs.write_json(path, member)


def as_arguments(options: dict[str, Any]) -> list[str]:
    """The options of a summary as a command line."""
    arguments = []
    for name, value in options.items():
        option = name.replace("_", "-")
        if name == "condition":  # said once for each
            arguments += [part for item in value for part in (f"--{option}", str(item))]
        elif isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, list) and value:
            arguments += [f"--{option}", *map(str, value)]
        elif value is not None and value != []:
            arguments += [f"--{option}", str(value)]
    return arguments


def pairs(there: Any, here: Any, name: str) -> Iterator[tuple[str, float, float]]:
    """The numbers at the same places of two results.

    Raises:
        ValueError: they have other places.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        cvae.checks.require(there.keys() == here.keys(), name, f"hold {sorted(there)}", sorted(here))
        for key in there.keys() - {"commit"}:  # of the source that measured
            yield from pairs(there[key], here[key], f"{name}.{key}")
    elif isinstance(there, list) and isinstance(here, list):
        cvae.checks.require(len(there) == len(here), name, f"have {len(there)} entries", len(here))
        for i, (one, two) in enumerate(zip(there, here, strict=True)):
            yield from pairs(one, two, f"{name}[{i}]")
    elif isinstance(there, int | float) and isinstance(here, int | float):
        yield name, there, here
    else:
        cvae.checks.require(there == here, name, f"be {there!r}", repr(here))


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
