"""Command lines: settings from a preset and options, refusals in one line, and what every experiment does."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

import cvae
from cvae import checks
from cvae.config import Architecture, Config
from cvae.data import Dataset, Split
from cvae.settings import Count, CountOrZero, Seed, replace, setting
from experiments.harness import processes
from experiments.harness.compilation import enable_cache, use_eigen_convolutions
from experiments.harness.interruption import Stopped
from experiments.harness.run import Examples, Run, Trained, finished

PROJECT = (Path(cvae.__file__).parent, Path(__file__).parent.parent)
T = TypeVar("T")
FLAGS = (tyro.conf.OmitArgPrefixes, tyro.conf.SuppressFixed)


@setting
class RunSettings:
    """Options that every run has."""

    seed: Seed = 0
    """source of all randomness; the same seed gives the same results"""
    out: Path | None = None
    """run folder"""
    save_every: CountOrZero = 0
    """epochs between checkpoints, from which the same command resumes; 0 is one every ten seconds"""
    fresh: bool = False
    """start over, and discard what the run folder holds"""
    figures: bool = True
    """draw the figures"""
    distributed: bool = False
    """this is one of several processes that run this command; JAX finds the others under SLURM, Open MPI, Kubernetes"""
    coordinator: str | None = None
    """HOST:PORT of the first process, where the others are not found"""
    num_processes: Count | None = None
    """how many processes there are, with --coordinator"""
    process_id: CountOrZero | None = None
    """the number of this process from 0 on, with --coordinator"""
    coordinator_timeout: Count = 300
    """seconds to wait for all processes to connect"""
    compilation_cache: bool = True
    """keep compiled programs in the cache folder, so that the next call starts sooner"""


@setting
class Settings(RunSettings):
    """Options that every experiment on a known data set has."""

    dataset: Literal["auto", "mnist", "fashion_mnist", "kmnist", "digits"] = "auto"
    """auto is MNIST if it is prepared or can be downloaded, otherwise the 8x8 digits of scikit-learn"""
    data_dir: Path | None = None
    """folder of prepared data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets"""
    smoke: bool = False
    """a short run on the 8x8 digits, to see that everything works; its results are poor"""


def load(settings: Any) -> Dataset:
    """The data set of the settings; a smoke run takes the smallest.

    Raises:
        ValueError: it cannot be had, or a smoke run is to be on another.
    """
    valid = not settings.smoke or settings.dataset in ("auto", "digits")
    checks.require(valid, "--dataset", "be digits with --smoke", repr(settings.dataset))
    return cvae.data.load("digits" if settings.smoke else settings.dataset, settings.data_dir)


def by_spec(architecture: Architecture, split: Split) -> Examples:
    """A split as a model takes it: its condition reads the split's arrays by name, x as image, and 0 as shift."""
    arrays = {"image": split.x, "shift": np.zeros((len(split.x), 2), np.float32)} | split._asdict()
    return split.x, {name: arrays[name] for name in architecture.condition.spec}


@dataclass(frozen=True)
class Experiment:
    """An experiment: named configs, what is measured, and what is drawn."""

    name: str
    configs: Mapping[str, Any]  # settings by data set; "mnist" for all that are not named, "smoke" for --smoke
    models: Callable[[Any, Any], dict[str, Architecture]]  # (settings, dataset) -> the models by name
    evaluate: Callable[[Any], dict[str, Any]]  # (job) -> results of the test split by model
    figures: Callable[[Any], Iterator[tuple[str, Figure]]]  # (job) -> the figures with their names
    table: Callable[[dict[str, Any]], str]  # (summary) -> what is printed at the end
    examples: Callable[[Architecture, Any], Examples] = by_spec
    check: Callable[[Any, Any], None] = lambda settings, dataset: None  # refuses options
    load: Callable[[Any], Any] = load  # (settings) -> the data set, its splits with more fields if needed
    fit: Callable[[Any, str], Trained] = lambda job, name: job.fit(name)  # (job, name of a model)
    facts: Callable[[Any], dict[str, Any]] = lambda job: {}  # (job) -> more entries of the summary

    @property
    def settings(self) -> type:
        """The class of its settings."""
        return type(self.configs["mnist"])


@dataclass
class Job:
    """What `evaluate` and `figures` of an experiment work on."""

    settings: Any
    dataset: Dataset
    run: Run
    examples: Callable[[Architecture, Split], Examples]
    trained: dict[str, Trained] = field(default_factory=dict)

    def split(self, name: str, part: str) -> Examples:
        """A split as the model of this name takes it: "train", "validation" or "test"."""
        return self.examples(self.run.config.models[name], getattr(self.dataset, part))

    def fit(self, name: str, **options: Any) -> Trained:
        """Fit the model of this name on its training split; options as `Run.fit`."""
        return self.run.fit(name, self.split(name, "train"), self.split(name, "validation"), **options)

    def key(self, purpose: str) -> Any:
        """The key for a purpose: "test" or "figures"."""
        return cvae.keys.named(self.run.key, purpose)

    def title(self, text: str, model: str | None = None) -> str:
        """A title that names the data set and the size of a model."""
        config = self.run.config
        latents = config.models[model or next(iter(config.models))].latent_size
        return f"{self.dataset.name}: {text}, {latents} latent{'s' * (latents != 1)}, {config.training.epochs} epochs"


def plan(experiment: Experiment, settings: Any) -> tuple[Dataset, Config, Path]:
    """The data set, config and run folder of the settings; refuses what cannot work, and writes nothing."""
    dataset = experiment.load(settings)
    experiment.check(settings, dataset)
    count, batch = len(dataset.train[0]), settings.training.batch_size
    checks.require(batch <= count, "batch_size", f"be at most the number of training examples, {count}", batch)
    models = experiment.models(settings, dataset)
    sweep = getattr(settings, "sweep", None)
    config = Config(experiment.name, dataset.name, settings.seed, settings.training, models, sweep)
    out = folder(experiment.name, settings, dataset.name)
    cvae.runs.check_folder(out, config, fresh=settings.fresh)
    return dataset, config, out


def execute(experiment: Experiment, settings: Any) -> Path:
    """Fit, measure and draw what the settings say, or print the results that are there; returns the run folder."""
    dataset, config, out = plan(experiment, settings)
    processes.require_same("settings and data", cvae.settings.to_json(config), cvae.runs.fingerprint(dataset))
    summary = finished(out, settings, dataset)
    if processes.from_first(summary is not None):
        print(report(experiment, summary) if summary else "")
        return out
    with processes.own_folder(out) as own, Run(config, own, settings, dataset) as run:
        job = Job(settings, dataset, run, experiment.examples)
        for name in config.models:
            job.trained[name] = experiment.fit(job, name)
        results, facts = experiment.evaluate(job), experiment.facts(job)
        seconds = {name: trained.seconds for name, trained in job.trained.items()}
        summary = run.write_summary(**facts, **{facts.get("split", "test"): results}, seconds=seconds)
        print(f"\n{report(experiment, summary)}")
        if settings.figures:
            run.draw(experiment.figures(job))
    return out


def execute_all(experiment: Experiment, runs: Mapping[str, Any]) -> None:
    """Execute several runs, settings by title; what cannot work is refused before the first is trained."""
    for settings in runs.values():
        plan(experiment, settings)
    for title, settings in runs.items():
        print(f"\n{title}")
        execute(experiment, settings)


def report(experiment: Experiment, summary: dict[str, Any]) -> str:
    """The table of a run, and the notes on it."""
    notes = [f"note: {note}" for note in summary.get("notes", [])]
    return "\n".join([experiment.table(summary), *notes])


def folder(experiment: str, settings: Any, dataset: str) -> Path:
    """The run folder: --out, or runs/EXPERIMENT, followed by the data set unless that is MNIST."""
    suffix = ("" if dataset == "mnist" else f"_{dataset}") + ("_smoke" if getattr(settings, "smoke", False) else "")
    return settings.out or Path("runs") / f"{experiment}{suffix}"


# The command line


@setting
class Which:
    """The options that decide the preset."""

    dataset: str = "auto"
    data_dir: Path | None = None
    smoke: bool = False

    @property
    def meant(self) -> str:
        """The name of the data set; "auto" where only the help is shown, which must not download it."""
        if self.dataset != "auto" or {"-h", "--help"} & set(sys.argv):
            return self.dataset
        return "digits" if self.smoke else available(self.data_dir)


@cache
def available(data_dir: Path | None) -> str:
    """The name of the data set that "auto" stands for here; warns once if that is not MNIST."""
    return cvae.data.load("auto", data_dir).name


def command(experiment: Experiment, description: str | None) -> None:
    """The command line of an experiment: its options default to the preset of the data set."""

    def parse() -> Any:
        which = partially(Which)
        preset = with_folder(experiment.name, chosen(experiment.configs, which.meant, which.smoke), which)
        return options(type(preset), description, default=preset)

    protected(lambda: execute(experiment, parse()))


def partially(kind: type[T]) -> T:
    """Settings of this class from the command line, whatever else that holds."""
    return tyro.cli(kind, return_unknown_args=True, add_help=False, config=FLAGS)[0]


def chosen(configs: Mapping[str, T], dataset: str, smoke: bool) -> T:
    """The config that has the defaults on a data set: "smoke", that of its name, or "mnist"."""
    return configs["smoke" if smoke else dataset if dataset in configs else "mnist"]


def with_folder(experiment: str, preset: Any, which: Which) -> Any:
    """A preset with its data set and its usual run folder, which the help then shows."""
    name = which.meant
    out = folder(experiment, preset, "digits" if which.smoke else "mnist" if name == "auto" else name)
    return replace(preset, dataset=name, out=out)


def options(kind: type, description: str | None, default: Any = None, package: str = "experiments") -> Any:
    """Settings of this class from the command line; `default` is an instance, or None for the class's own defaults."""
    name = Path(sys.argv[0]).stem
    prog, defaults = f"python -m {package}.{name}", {} if default is None else {"default": default}
    with (
        warnings.catch_warnings()
    ):  # tyro's, of the defaults of fields that are no options, such as a condition's parts
        warnings.filterwarnings("ignore", "The field `architecture")
        settings = tyro.cli(kind, prog=prog, description=description, config=FLAGS, **defaults)
    use_eigen_convolutions()
    if getattr(settings, "compilation_cache", True):
        enable_cache()
    if isinstance(settings, RunSettings):
        processes.join(settings)
    return settings


@contextlib.contextmanager
def naming(**options: str) -> Iterator[None]:
    """Refusals name arguments of the library as the options that give them."""
    try:
        yield
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        if name not in options or not rest.startswith("must "):
            raise
        raise ValueError(f"{options[name]} {rest}") from None


def protected(main: Callable[[], object]) -> None:
    """Call `main`; refusals and signals end the process with one line.

    Exit codes: 0, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM.
    """
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    sys.unraisablehook = _show_unraisable
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, lambda number, _: _exit("\nstopped", 128 + number))
    try:
        main()
    except Stopped as stopped:
        without = ", without --fresh," if "--fresh" in sys.argv else ""
        _exit(f"{stopped}; the same command{without} goes on from there", 128 + stopped.signal)
    except ValueError as error:
        if not _is_refusal(error):
            raise
        _exit(f"error: {_as_option(str(error))}", 2)
    except (OSError, FloatingPointError) as error:  # a folder that cannot be written; a loss that is not finite
        _exit(f"error: {error}", 2)
    except jax.errors.JaxRuntimeError:
        if jax.process_count() == 1:
            raise
        processes.stop_alone()
    except KeyboardInterrupt:
        _exit("\nstopped", 130)


def _exit(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    processes.leave(code)
    sys.exit(code)


def _is_refusal(error: ValueError) -> bool:
    """Whether this project raised the error; a ValueError of a library is a bug and shows its traceback."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return any(parent in Path(frame.filename).parents for parent in PROJECT)


def _as_option(message: str) -> str:
    """A refusal of a setting, by the name of its option."""
    name, _, rest = message.partition(" ")
    option = "--" + name.replace("_", "-")
    kinds: tuple[Any, ...] = (Architecture, cvae.Training, cvae.Sweep, Settings)
    fields = {field for kind in kinds for field in kind.__dataclass_fields__}
    known = name.partition("[")[0] in fields or option.partition("[")[0] in sys.argv
    if known and rest.startswith("must "):  # not of a column or condition whose name follows
        return f"{option} {rest}"
    return re.sub(r"^c\[('.*?')\] must ", r"condition \1 must ", message)


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _show_unraisable(unraisable: Any) -> None:
    """Leave out what TensorStore's threads report after a failed write, which raises an error of its own."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
