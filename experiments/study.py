"""What the experiments share: reading the data set, training the models of a config, keeping what came of it.

An experiment plans (options to config, refusing what cannot work, writing nothing), studies (trains and measures),
and keeps (a run folder with config, metrics, parameters, figures and `summary.json`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cvae
from experiments import interruption

if TYPE_CHECKING:
    import jax
    from matplotlib.figure import Figure

    from cvae.config import Architecture, Config, Training
    from cvae.data import Dataset
    from cvae.evaluation import LogLikelihood
    from cvae.model import CVAE
    from cvae.networks import Params
    from cvae.training import Epoch

Examples = tuple[Any, dict[str, Any]]  # x and c as stored
HOW = ("dataset", "data_dir", "out", "save_every", "fresh")  # options that change nothing a config does not say


@dataclass(frozen=True)
class Data:
    """Which pictures."""

    dataset: Literal["auto", "mnist", "fashion_mnist", "kmnist", "digits"] = "auto"
    """auto is MNIST if it is prepared or can be downloaded, otherwise the 8x8 digits inside scikit-learn"""
    data_dir: Path | None = None
    """folder of prepared data sets; $TFDS_DATA_DIR or ~/tensorflow_datasets if left out"""


@dataclass(frozen=True)
class Keeping:
    """What is left behind."""

    out: Path | None = None
    """run folder; runs/EXPERIMENT if left out, with the name of the data set added if it is not MNIST"""
    save_every: int | None = None
    """epochs between checkpoints, from which the same command goes on; as many as take ten seconds if left out"""
    fresh: bool = False
    """start over, and discard what the run folder holds"""


@dataclass(frozen=True)
class Output(Keeping):
    """What is left behind."""

    smoke: bool = False
    """a short run on the 8x8 digits, to see that everything works; the figures will be poor"""


def unmoved(architecture: Architecture, examples: int) -> dict[str, Any]:
    """What a condition told of shifts stores of pictures that have not been moved: none, [N, 2]; else nothing."""
    import numpy as np

    told = "shift" in architecture.condition.stored_names
    return {"shift": np.zeros((examples, 2), np.float32)} if told else {}


def check_latents(latents: int | None) -> None:
    """Refuse `--latents` below 1, which makes no CVAE; None is the preset's."""
    if latents is not None:
        cvae.checks.whole_number("--latents", latents)


def read(data: Data, smoke: bool) -> Dataset:
    """The data set that was asked for; a smoke run takes the smallest.

    Raises: ValueError if it cannot be had, or if a smoke run was asked on another.
    """
    right = not smoke or data.dataset in ("auto", "digits")
    cvae.checks.require(right, "--dataset", "be digits with --smoke", repr(data.dataset))
    return cvae.data.load("digits" if smoke else data.dataset, data.data_dir)


def folder(experiment: str, dataset: str, smoke: bool, out: Path | None) -> Path:
    """Where a run goes: runs/EXPERIMENT, with the data set added if it is not MNIST, unless `out` says otherwise."""
    suffix = ("" if dataset == "mnist" else f"_{dataset}") + ("_smoke" if smoke else "")
    return out or Path("runs") / f"{experiment}{suffix}"


class Trained(NamedTuple):
    """A model of a run, fitted."""

    model: CVAE
    params: Params
    history: list[Epoch]

    @property
    def seconds(self) -> float:
        """Of all training steps, compilation included."""
        return sum(epoch.seconds for epoch in self.history)


def facts(*examples: Examples) -> dict[str, Any]:
    """What must be the same where training goes on: the versions of what computes, and the examples it is given."""
    return {"versions": cvae.runs.versions() | {"cvae": cvae.__version__}, "data": cvae.runs.digest(examples)}


def options(settings: Any) -> dict[str, Any]:
    """The options of a command that have a say in its results, by name, but for the data set, which the config has."""
    kept: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        kept |= options(value) if is_dataclass(value) else {field.name: plain(value)}
    return {name: value for name, value in kept.items() if name not in HOW}


def check_free(out: Path, config: Config, output: Keeping) -> None:
    """Refuse a run folder that holds another run, unless that is to go, and checkpoints at no number of epochs."""
    if output.save_every is not None:
        cvae.checks.whole_number("--save-every", output.save_every)
    if output.fresh:
        cvae.runs.check_discardable(out)
    else:
        cvae.runs.check_free(out, config)


def is_finished(out: Path, settings: Any, data: Any) -> bool:
    """Whether the run folder holds the summary of this very command on these arrays, which is then said.

    Not if it is to go.
    """
    path = out / "summary.json"
    if settings.output.fresh or not path.exists():
        return False
    summary = cvae.runs.read_summary(out)
    if summary.get("options") != options(settings) or summary.get("data") != cvae.runs.digest(data):
        return False
    print(f"finished already, {summary['date']}: {path}; --fresh starts over")
    return True


class Study:
    """One run, from its start to its summary, or from where it was stopped: `with Study(config, out) as run`.

    Makes the run folder at once, so that a folder that cannot be written is refused before anything is trained, and
    holds it until the end, so that no second process writes there.
    """

    def __init__(self, config: Config, out: Path, settings: Any = None, data: Any = None):
        """Take hold of the folder; `settings` are the command's, with `output`, and `data` the arrays it has read."""
        output = Keeping() if settings is None else settings.output
        self.data = cvae.runs.digest(data)
        self.config, self.out, self.save_every = config, out, output.save_every
        self.options = {} if settings is None else options(settings)
        self.began = time.perf_counter()
        self.provenance = cvae.runs.provenance()  # now, because the source may change during a long run
        self.lock = cvae.runs.Lock(out)
        if output.fresh:
            for line in cvae.runs.discard(out):
                print(line)
        cvae.runs.start(out, config, fresh=output.fresh)

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def fit(
        self,
        name: str,
        key: jax.Array,
        train: Examples,
        validation: Examples,
        *,
        init_key: jax.Array | None = None,
        model: CVAE | None = None,
        training: Training | None = None,
        parts: dict[str, Any] | None = None,
    ) -> Trained:
        """Train the config's model of this name, or go on with it, log its epochs and save its parameters.

        The parameters start from `init_key`, or from half of `key`; those of `parts` take the place of the random
        ones. `training` takes the place of the config's. `model` is fitted in place of the config's own,
        where its density is in other units; its parameters must be those of the config's.
        """
        import jax

        fit_key = key
        if init_key is None:
            init_key, fit_key = jax.random.split(key)
        model, training = model or cvae.make(self.config.models[name]), training or self.config.training
        params = jax.jit(model.init)(init_key) | (parts or {})
        if (self.out / "checkpoints" / name).exists() and not (self.out / "progress" / name).exists():
            print(
                f"{name} is trained again: of its training there is no checkpoint in {self.out / 'progress'}",
                flush=True,
            )
        with interruption.deferred() as asked:
            keeper = cvae.runs.Keeper(
                self.out, name, params, training, facts(train, validation), save_every=self.save_every, asked=asked
            )
            if keeper.progress is not None:
                epochs = len(keeper.progress.history)
                over = cvae.training.ended(training, keeper.progress.history)
                print(
                    f"{name} is trained, {epochs} epochs" if over else f"{name} goes on after epoch {epochs}",
                    flush=True,
                )
            with keeper.saver:
                fitted = cvae.fit(
                    model,
                    params,
                    fit_key,
                    *train,
                    training,
                    validation=validation,
                    on_epoch=keeper.after,
                    resume=keeper.progress,
                    name=f"{name} on {self.config.dataset}",
                )
        cvae.runs.save(self.out, name, fitted.params)
        return Trained(model, fitted.params, fitted.history)

    def draw(self, name: str, figure: Figure) -> None:
        """Write a figure as DATASET_NAME.png."""
        figure.savefig(self.out / "figures" / f"{self.config.dataset}_{name}.png", dpi=200)

    def keep(self, **results: Any) -> dict[str, Any]:
        """Write `summary.json`: the results, and where they came from; returns it.

        `seconds`, a dict of times, is given the total.
        """
        results["seconds"] = results.get("seconds", {}) | {"total": time.perf_counter() - self.began}
        config = self.config
        summary = {"experiment": config.experiment, "dataset": config.dataset, "seed": config.seed}
        summary |= plain(results) | {"options": self.options, "data": self.data} | self.provenance
        cvae.runs.write_json(self.out / "summary.json", summary)
        return summary

    def say_where(self) -> None:
        """Print where the figures are."""
        print(f"\n{time.perf_counter() - self.began:.0f} s in all; pictures in {self.out / 'figures'}:")
        for path in sorted((self.out / "figures").iterdir()):
            print(f"  {path.name}")


def plain(results: Any) -> Any:
    """Results as JSON has them: named tuples and dicts become objects, arrays lists, NumPy's numbers numbers."""
    if hasattr(results, "_asdict"):
        return plain(results._asdict())
    if isinstance(results, dict):
        return {str(name): plain(value) for name, value in results.items()}
    if isinstance(results, list | tuple):
        return [plain(value) for value in results]
    if hasattr(results, "tolist"):
        return results.tolist()
    return str(results) if isinstance(results, Path) else results


def bound(model: CVAE, params: Params, key: jax.Array, x: Any, c: Any) -> dict[str, Any]:
    """The test split's ELBO with its two terms, rate and distortion, each with its standard error, and active units."""
    terms = cvae.evaluate(model, params, key, x, c)
    units = cvae.evaluation.active_units(model, params, key, x, c)
    return {
        "elbo": cvae.evaluation.mean(terms.value),
        "rate": cvae.evaluation.mean(terms.kl),
        "distortion": cvae.evaluation.mean(-terms.log_likelihood),
        "active_units": {"active": units.active, "variance": units.variance, "standard_error": units.standard_error},
    }


def likelihood(
    model: CVAE, params: Params, key: jax.Array, x: Any, c: Any, *, num_samples: int, progress: bool = True
) -> dict[str, Any]:
    """Importance-sampled log p(x | c) of the test split, with its effective sample size."""
    scored = cvae.log_likelihood(model, params, key, x, c, num_samples=num_samples, progress=progress)
    return likelihood_of(scored, num_samples)


def likelihood_of(scored: LogLikelihood, num_samples: int) -> dict[str, Any]:
    """The means of an importance-sampled log p(x | c), as they go into a summary."""
    return {
        "log_likelihood": cvae.evaluation.mean(scored.value),
        "effective_samples": cvae.evaluation.mean(scored.effective_samples),
        "num_samples": num_samples,
        "examples": len(scored.value),
    }


def plus_minus(estimate: Any, digits: int = 2) -> str:
    """An estimate as it is printed, `131.26 +- 0.46`."""
    value, error = (estimate["value"], estimate["standard_error"]) if isinstance(estimate, dict) else estimate
    return f"{value:.{digits}f} +- {error:.{digits}f}"
