"""One run of an experiment: its folder from the first epoch to the summary, resumed where it was stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

import cvae
from cvae import checkpoints, locks, loop, plotting, runs, training
from cvae.config import Config
from cvae.keys import BINARIZATION_SEEDS, named
from cvae.progress import Bar
from experiments.harness import processes
from experiments.harness.interruption import Stopped, deferred

SECONDS = 10  # between checkpoints by default

Examples = tuple[Any, dict[str, Any]]  # x and c
Proposal = Literal["posterior", "prior", "mixture"]  # of importance samples; mixture is half each


class Trained(NamedTuple):
    """A model of a run, fitted."""

    model: cvae.CVAE
    params: Any
    history: list[loop.Epoch]
    notes: list[str]

    @property
    def seconds(self) -> float:
        """Time of all training steps, compilation included."""
        return sum(epoch.seconds for epoch in self.history)


class Run:
    """A run folder, held by this process: `with Run(config, out, settings, data) as run`.

    Args:
        config: of the run; written to the folder first.
        out: the run folder.
        settings: the command's, recorded in the summary; `save_every` and `fresh` of them apply.
        data: the arrays that the results depend on, recorded by their fingerprint.
    """

    def __init__(self, config: Config, out: Path, settings: Any, data: Any):
        self.config, self.out, self.settings = config, out, settings
        self.data = runs.fingerprint(data)
        self.began = time.perf_counter()
        self.provenance = runs.provenance()  # now, because the source may change during a long run
        self.key = jax.random.key(config.seed)
        self.notes: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        runs.check_folder(self.out, self.config, fresh=self.settings.fresh)
        if self.config.sweep is None or self.settings.fresh:  # members of a sweep have locks of their own
            self._stack.enter_context(locks.lock(self.out))
        self.out.mkdir(parents=True, exist_ok=True)
        if self.settings.fresh:
            for line in runs.discard(self.out):
                print(line)
        config, written = self.config, self.out / "config.json"
        if config.sweep is not None and written.exists():  # beside the models that an earlier sweep left there
            config = cvae.replace(config, models=runs.read_config(self.out).models | config.models)
        if config.sweep is not None or not written.exists():
            runs.write_json(written, cvae.settings.to_json(config))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fit(
        self,
        name: str,
        train: Examples,
        validation: Examples,
        *,
        parts: dict[str, Any] | None = None,
        settings: cvae.Training | None = None,
    ) -> Trained:
        """Fit the config's model of this name, or go on with it; logs epochs, checkpoints, and saves its parameters.

        Args:
            name: of the model.
            train: its training examples.
            validation: its validation examples.
            parts: parameters in place of random initial ones, by the name of their part.
            settings: in place of the config's training.
        """
        model, how = cvae.make(self.config.models[name]), settings or self.config.training
        params = jax.jit(model.init)(named(self.key, "init")) | (parts or {})

        def calls(start: loop.Progress | None) -> Iterator[loop.Progress]:
            return cvae.epochs(model, start or params, self.key, *train, how, validation=validation, within=True)

        state = jax.eval_shape(lambda p: training.init_state(p, how), params)
        best = params if how.patience is not None else None
        start = loop.Progress(state, best, [], how)
        progress = self.train(name, calls, start, runs.fingerprint((train, validation, parts)))
        if processes.is_first():
            runs.save_params(self.out, name, progress.result)
        notes = loop.notes_on(progress.history)
        self.notes += [f"{name}: {note}" for note in notes]
        return Trained(model, progress.result, progress.history, notes)

    def train(
        self,
        name: str,
        calls: Callable[[loop.Progress | None], Iterator[loop.Progress]],
        like: loop.Progress,
        data: str,
    ) -> loop.Progress:
        """Iterate over epochs and their parts from where the run folder has come to: log, save, and stop on a signal.

        Args:
            name: of what is trained, for the bar and the files.
            calls: called with the progress to go on with, or None; iterates `within` epochs.
            like: its shapes and settings.
            data: fingerprint of what it is trained on.
        """
        facts = {"versions": self.provenance["versions"], "data": data}
        folder = self.out / "checkpoints" / name
        with deferred() as signal, checkpoints.Checkpointer(folder) as checkpointer:
            progress = self._sent(self._restore(checkpointer, like, facts), like)
            history = [] if progress is None else progress.history
            if self.config.sweep is None:  # once the data are known to be the same: it may ask for more epochs
                runs.write_json(self.out / "config.json", cvae.settings.to_json(self.config))
            runs.rewrite_metrics(self.out, name, history)
            over = loop.ended(like.training, history)
            if progress is not None:
                print(f"{name} is trained" if over else f"{name} goes on after {progress.place}", flush=True)
            title, saved = f"{name} on {self.config.dataset}", time.monotonic()
            with Bar(title, like.training.epochs, len(history), disable=over) as bar:
                for progress in calls(progress):  # noqa: B020
                    bar.show(progress)
                    if progress.part is None:
                        runs.append_metrics(self.out, name, progress.history[-1])
                    stopping, ended = processes.any_of(signal()), loop.ended(like.training, progress.history)
                    if stopping or ended or self._due(progress, saved):
                        self._save(checkpointer, progress, facts)
                        saved = time.monotonic()
                    if stopping:
                        checkpointer.wait()
                        raise Stopped(stopping, f"stopped after {progress.place} of {name}, saved in {self.out}")
        assert progress is not None
        return progress

    def _due(self, progress: loop.Progress, saved: float) -> bool:
        every = self.settings.save_every
        if every:
            return progress.part is None and len(progress.history) % every == 0
        return time.monotonic() - saved >= SECONDS

    def _save(self, checkpointer: Any, progress: loop.Progress, facts: dict[str, Any]) -> None:
        if not processes.is_first():
            return
        part, epochs = runs.part_to_json(progress.part), runs.history_to_json(progress.history)
        loss = math.inf  # within an epoch there is none to compare
        if progress.part is None:
            last = progress.history[-1].validation or progress.history[-1].train
            loss = float(np.mean(last.loss))  # of members side by side, their mean
        record = {"facts": facts, "history": epochs, "part": part}
        checkpointer.save(int(np.max(progress.state.step)), _tree(progress), record, loss)

    def _restore(self, checkpointer: Any, like: loop.Progress, facts: dict[str, Any]) -> loop.Progress | None:
        found = checkpointer.newest(_tree(like))
        if found is None:
            return None
        before = found.record["facts"]
        for what, now in facts.items():
            rule = f"go on with the same {what}, or start over by --fresh"
            cvae.checks.require(before.get(what) == now, "run folder", rule, f"{self.out}, begun with other {what}")
        history, part = runs.history_from_json(found.record["history"]), runs.part_from_json(found.record["part"])
        return _progress(found.tree, history, like.training, part)

    def _sent(self, progress: loop.Progress | None, like: loop.Progress) -> loop.Progress | None:
        """The progress that the first of several processes has restored, in all of them."""
        place = None
        if progress is not None:
            place = runs.history_to_json(progress.history), runs.part_to_json(progress.part)
        if (place := processes.from_first(place)) is None:
            return None
        tree = processes.arrays_from_first(progress and _tree(progress), _tree(like))
        return _progress(tree, runs.history_from_json(place[0]), like.training, runs.part_from_json(place[1]))

    def draw(self, figures: Iterator[tuple[str, Figure]]) -> None:
        """Write figures as DATASET_NAME.png and .pdf, and print where they are."""
        folder = self.out / "figures"
        for name, figure in figures:
            plotting.save(figure, folder / f"{self.config.dataset}_{name}")
        drawn = sorted(path.name for path in folder.glob("*.png"))
        what = "no figures" if not drawn else f"figures in {folder}:"
        print("\n".join([f"\n{time.perf_counter() - self.began:.0f} s; {what}", *(f"  {name}" for name in drawn)]))

    def write_summary(self, **results: Any) -> dict[str, Any]:
        """Write `summary.json`: the results, notes, settings, and where they come from; returns it."""
        results["seconds"] = results.get("seconds", {}) | {"total": time.perf_counter() - self.began}
        config = self.config
        summary = {"experiment": config.experiment, "dataset": config.dataset, "seed": config.seed}
        summary |= plain(results) | {"notes": self.notes, "settings": recorded(self.settings), "data": self.data}
        runs.write_json(self.out / "summary.json", summary | self.provenance)
        return summary | self.provenance


def _tree(progress: loop.Progress) -> dict[str, Any]:
    """The arrays of a progress, always of one form: before the first epoch has ended, none of them is the best."""
    has_best = progress.best is not None or progress.training.patience is None
    return {"state": progress.state, "best": progress.best if has_best else progress.state.result}


def _progress(
    tree: dict[str, Any], history: list[loop.Epoch], training: cvae.Training, part: loop.Part | None
) -> loop.Progress:
    """The inverse of `_tree`."""
    return loop.Progress(tree["state"], tree["best"] if history else None, history, training, part)


NOT_RECORDED = (
    "data_dir", "out", "save_every", "fresh", "smoke", "figures", "compilation_cache", "distributed", "coordinator",
    "num_processes", "process_id", "coordinator_timeout",
)  # fmt: skip  # settings that change no result


def recorded(settings: Any) -> dict[str, Any]:
    """The settings that decide results, as JSON."""
    return {name: value for name, value in cvae.settings.to_json(settings).items() if name not in NOT_RECORDED}


def finished(out: Path, settings: Any, data: Any) -> dict[str, Any] | None:
    """The summary in a run folder, announced, if it is of these very settings and arrays and is to stay."""
    if settings.fresh or not (out / "summary.json").exists():
        return None
    summary = runs.read_summary(out)
    if summary.get("settings") != recorded(settings) or summary.get("data") != runs.fingerprint(data):
        return None
    print(f"finished on {summary['date'][:10]}: {out / 'summary.json'}; --fresh starts over\n")
    return summary


def plain(results: Any) -> Any:
    """Results as JSON has them: named tuples and dicts are objects, arrays lists, and NaN, which JSON lacks, null."""
    if hasattr(results, "_asdict"):
        return plain(results._asdict())
    if hasattr(results, "tolist"):
        return plain(results.tolist())
    if isinstance(results, dict):
        return {str(name): plain(value) for name, value in results.items()}
    if isinstance(results, list | tuple):
        return [plain(value) for value in results]
    if isinstance(results, float) and math.isnan(results):
        return None
    return str(results) if isinstance(results, Path) else results


def binarized(x: Any, c: dict[str, Any]) -> Examples:
    """Test examples with pixels drawn 0 or 1 once, always the same, and with them the image that is conditioned on."""
    x = cvae.data.binarize(BINARIZATION_SEEDS["test"], x)
    return x, c | ({"image": x} if "image" in c else {})


def elbo_summary(trained: Trained, key: jax.Array, x: Any, c: Any) -> dict[str, Any]:
    """The ELBO with its two terms, rate and distortion, each with its standard error, and active units."""
    model, params, *_ = trained
    terms, units = cvae.evaluate(model, params, key, x, c), cvae.active_units(model, params, key, x, c)
    mean = cvae.evaluation.mean
    bound = {"elbo": mean(terms.value), "rate": mean(terms.kl), "distortion": mean(-terms.log_likelihood)}
    return bound | {"active_units": units}


def likelihood_summary(
    trained: Trained, key: jax.Array, x: Any, c: Any, *, num_samples: int, proposal: Proposal = "posterior"
) -> dict[str, Any]:
    """Importance-sampled log p(x | c), a lower bound, with its effective sample size."""
    model, params, *_ = trained
    scored = cvae.log_likelihood(model, params, key, x, c, num_samples=num_samples, proposal=proposal, progress=True)
    mean = cvae.evaluation.mean
    return {
        "log_likelihood": mean(scored.value),
        "effective_samples": mean(scored.effective_samples),
        "num_samples": num_samples,
        "examples": len(scored.value),
    }
