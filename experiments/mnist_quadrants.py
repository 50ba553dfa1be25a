"""Structured prediction: some quadrants of a digit are seen, and the rest is predicted (Sohn, Lee & Yan 2015, 5.1).

    python -m experiments.mnist_quadrants                          # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_quadrants --quadrants 1            # one column of the table
    python -m experiments.mnist_quadrants --task top               # the bottom half from the top
    python -m experiments.mnist_quadrants --rows residual --protocol grey --out runs/mnist_quadrants_grey
    python -m experiments.mnist_quadrants --quadrants 1 --rows residual --alpha 0.5 --out runs/hybrid

The protocol, the same for every row:

- examples: MNIST's training file in its own order, the first 50,000 for training and the last 10,000 for validation
  (of another set the last sixth), and its 10,000 test pictures;
- seen: of 1 quadrant the bottom left, of 2 the left half, of 3 all but the bottom right; with `--task top` the top;
- targets: pixels drawn 1 with their grey level as probability; for training afresh each time a picture is seen, for
  validation and test once, by fixed seeds that `--seed` does not touch;
- what is seen keeps its grey levels: so the deterministic network comes out as the paper's, which does not say. With
  `--seen drawn` the seen pixels are those that were drawn, black or white: a harder task by some nats;
- score: the negative log-likelihood of the missing pixels alone (588, 392 or 196 of 784), in nats, its mean over the
  test pictures and standard error. By importance sampling from the posterior (IS) and by Monte Carlo under the prior
  (MC), each with S = 100 on every test picture and S = 5,000 on the first `--pictures` of them;
- selection, of settings and of the epoch, on the validation pictures only.

`--protocol grey` scores grey targets by the negative ELBO with 10 samples instead, as Pyro's tutorial does. That is no
log-likelihood: a grey pixel's cross-entropy is not a normalised density, and is never below the entropy of its level.

Rows, each in a run folder OUT/TASK/ROW, which a second call with the same settings finds and keeps:

    deterministic, gsnn, cvae    of the paper's size: two layers of 1,000 ReLU, 200 latents, a learned prior
    residual                     the default: residual networks, four layers of latents, training pictures moved by up
                                 to a pixel, which the networks are told
    record                       the same with two blocks, for twice as long, of which the epoch that validates best is
                                 kept: half an hour a column on two cores

Options such as `--alpha` change every row that is trained. OUT/table.md, table.csv and table.json hold what all rows in
OUT came to.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import cvae
from experiments import command, pictures, study

if TYPE_CHECKING:
    import jax
    from matplotlib.figure import Figure

    from cvae.config import Config
    from cvae.data import Dataset

SEEDS = {"validation": 1, "test": 2}  # of the pixels drawn once
SHOWN = 10  # samples of a picture in the figure
GREY_SAMPLES = 10  # of the ELBO, as in Pyro's tutorial
SEEN = {
    "quadrants_1": "1 quadrant seen",
    "quadrants_2": "2 quadrants seen",
    "quadrants_3": "3 quadrants seen",
    "top_half": "top half seen",
}
TASKS = {1: "quadrants_1", 2: "quadrants_2", 3: "quadrants_3"}

RowName = Literal["deterministic", "gsnn", "cvae", "residual", "record"]


@dataclass(frozen=True)
class Task:
    """What is predicted from what."""

    quadrants: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)
    """how many quadrants are seen, a column each"""
    task: Literal["quadrants", "top"] = "quadrants"
    """top: the bottom half is predicted from the top half, whatever --quadrants says"""
    seen: Literal["grey", "drawn"] = "grey"
    """what is seen: its grey levels, or its pixels as they were drawn, black or white"""
    protocol: Literal["binary", "grey"] = "binary"
    """grey: grey targets, scored by the negative ELBO with 10 samples"""


@dataclass(frozen=True)
class Models:
    """Which rows, and what changes all of them; a row's own setting where left out."""

    rows: tuple[RowName, ...] = ("deterministic", "gsnn", "cvae", "residual")
    """deterministic, gsnn and cvae are of the paper's size; residual is the default network, record the largest"""
    hidden: tuple[int, ...] | None = None
    """widths of the hidden layers, or of the residual blocks"""
    latents: int | None = None
    """number of latent dimensions, of all layers together; 0 is the deterministic network, which has none whatever is
    said here, nor layers, a prior or a guess"""
    latent_layers: int | None = None
    """layers of latents, each given those above it (a ladder)"""
    prior: Literal["learned", "standard"] | None = None
    """p(z | c) as a network of its own, or N(0, I)"""
    guess: Literal["none", "frozen", "joint"] = "none"
    """recurrent connection: a deterministic guess, trained first, is fed to the prior network; it stays frozen, or is
    trained on jointly"""


@dataclass(frozen=True)
class Fitting:
    """How the rows are trained; a row's own setting where left out."""

    epochs: int | None = None
    """passes over the training pictures, at most"""
    batch_size: int | None = None
    """pictures a step"""
    learning_rate: float | None = None
    """Adam's, the highest of the schedule"""
    weight_decay: float | None = None
    """AdamW's"""
    average: float | None = None
    """decay of the moving average of the parameters, a step"""
    alpha: float | None = None
    """share of the CVAE's objective; the rest is the GSNN's, with z drawn from the prior"""
    objective: Literal["elbo", "iwae"] | None = None
    """iwae is the importance-weighted bound"""
    train_samples: int | None = None
    """samples of z a picture and step"""
    shift: int | None = None
    """training pictures are moved by up to so many pixels each way, and the networks are told how far"""
    moved: float | None = None
    """share of the training pictures that are moved"""
    omission: float | None = None
    """probability that a block of what is seen is left out of a training picture"""
    seed: int = 0
    """source of all randomness but the pixels that are drawn once"""


@dataclass(frozen=True)
class Measuring:
    """How the rows are measured."""

    split: Literal["test", "validation"] = "test"
    """choices are made on validation"""
    samples: int = 100
    """samples S on every picture"""
    many_samples: int = 5000
    """samples S on the first pictures; 0 leaves that out"""
    pictures: int = 1000
    """how many the first pictures are"""


@dataclass(frozen=True)
class Settings:
    """Options of the experiment."""

    data: study.Data = field(default_factory=study.Data)
    task: Task = field(default_factory=Task)
    models: Models = field(default_factory=Models)
    fitting: Fitting = field(default_factory=Fitting)
    measuring: Measuring = field(default_factory=Measuring)
    output: study.Output = field(default_factory=study.Output)


class Row(NamedTuple):
    """A row of the table: what differs from the defaults of `Architecture` and `Training`."""

    architecture: dict[str, Any]
    training: dict[str, Any]


def _rows(paper: dict[str, Any], plain: dict[str, Any], strong: Row, strongest: Row) -> dict[str, Row]:
    return {
        "deterministic": Row(paper | {"latent_size": 0, "prior": "standard"}, plain),
        "gsnn": Row(paper, plain | {"alpha": 0.0}),
        "cvae": Row(paper, plain),
        "residual": strong,
        "record": strongest,
    }


def _residual(hidden: tuple[int, ...], latents: int, layers: int, epochs: int, **training: Any) -> Row:
    architecture = {
        "body": "residual",
        "prior": "learned",
        "hidden": hidden,
        "latent_size": latents,
        "latent_layers": layers,
    }
    schedule = {"epochs": epochs, "batch_size": 200, "schedule": "warmup_cosine", "learning_rate": 1.5e-3}
    regularised = {"average": 0.999, "weight_decay": 0.1, "shift": 1, "moved": 0.7}
    return Row(architecture, schedule | regularised | training)


def _paper(width: int, latents: int) -> dict[str, Any]:
    return {"hidden": (width, width), "latent_size": latents, "prior": "learned"}


# As in 2015: plain Adam, and the epoch that validates best.
_PLAIN = {"epochs": 50, "batch_size": 100, "patience": 4}
_STOPS = {"patience": 20}  # the more is seen, the sooner the larger network knows the training pictures by heart
ROWS = _rows(_paper(1000, 200), _PLAIN, _residual((500,), 64, 4, 60), _residual((500, 500), 64, 4, 120, **_STOPS))
DIGITS = _rows(
    _paper(128, 16),
    _PLAIN,
    _residual((128,), 16, 4, 100, batch_size=50),
    _residual((128, 128), 16, 4, 150, batch_size=50, **_STOPS),
)
SMOKE = _rows(_paper(16, 4), _PLAIN | {"epochs": 2}, _residual((16,), 4, 2, 2), _residual((16, 16), 4, 2, 2))


def presets(dataset: str, smoke: bool) -> dict[str, Row]:
    """The rows as a data set wants them."""
    return SMOKE if smoke else {"digits": DIGITS}.get(dataset, ROWS)


class Plan(NamedTuple):
    """A row of a column: its config and its run folder."""

    task: str
    row: RowName
    config: Config
    out: Path


def plan(settings: Settings) -> tuple[Dataset, list[Plan], Path]:
    """Turn the options into a data set, the runs to make and their folder, refusing what cannot work."""
    smoke, measuring, models = settings.output.smoke, settings.measuring, settings.models
    require = cvae.checks.require
    cvae.checks.whole_number("--samples", measuring.samples)
    many = cvae.checks.whole_number("--many-samples", measuring.many_samples, least=0)
    rule = f"be more than --samples, {measuring.samples}, or 0"
    require(many == 0 or many > measuring.samples, "--many-samples", rule, many)
    cvae.checks.whole_number("--pictures", measuring.pictures, least=2)
    protocol, seen = settings.task.protocol, settings.task.seen
    require(protocol == "binary" or seen == "grey", "--seen", "be grey with --protocol grey", seen)
    for name, values in (("--quadrants", settings.task.quadrants), ("--rows", models.rows)):
        require(len(values) > 0, name, "name at least one", "none")
        require(len(set(values)) == len(values), name, "name every one once", " ".join(map(str, values)))
    dataset = split(study.read(settings.data, smoke))
    out = study.folder("mnist_quadrants", dataset.name, smoke, settings.output.out)
    rows = presets(dataset.name, smoke)
    tasks = ["top_half"] if settings.task.task == "top" else [TASKS[quadrants] for quadrants in settings.task.quadrants]
    plans = []
    for task in tasks:
        for row in models.rows:
            config = configure(settings, dataset, task, row, rows[row])
            plans.append(Plan(task, row, config, out / task / row))
    for planned in plans:
        study.check_free(planned.out, planned.config, settings.output)
        if (planned.out / "summary.json").exists() and not settings.output.fresh:
            split_there = cvae.runs.read_summary(planned.out).get("split")
            rule = f"be {split_there}, as in {planned.out}, or have another --out"
            require(split_there == measuring.split, "--split", rule, measuring.split)
        model = cvae.make(planned.config.models["cvae"])
        cvae.training.check_fit(
            model, *examples(planned.config, dataset.train.x, dataset.train.x), planned.config.training
        )
    return dataset, plans, out


def configure(settings: Settings, dataset: Dataset, task: str, name: str, row: Row) -> Config:
    """The config of a row, with what the options change."""
    models, fitting = settings.models, settings.fitting
    shape = dataset.train.x.shape[1:]
    asked = {
        "hidden": models.hidden,
        "latent_size": models.latents,
        "latent_layers": models.latent_layers,
        "prior": models.prior,
    }
    if row.architecture["latent_size"] == 0:  # stays without latents, whatever the others are given
        asked = {"hidden": models.hidden}
    of_network = row.architecture | {key: value for key, value in asked.items() if value is not None}
    if of_network["latent_size"] == 0:
        of_network |= {"latent_layers": 1, "prior": "standard"}
    names = (
        "epochs", "batch_size", "learning_rate", "weight_decay", "average", "alpha", "objective", "shift", "moved",
        "omission",
    )  # fmt: skip
    chosen = {key: getattr(fitting, key) for key in names} | {"num_samples": fitting.train_samples}
    of_training = row.training | {key: value for key, value in chosen.items() if value is not None}
    of_training["targets"] = "dynamic" if settings.task.protocol == "binary" else "grey"
    image = cvae.Image(shape, task, stored=settings.task.seen == "grey" and settings.task.protocol == "binary")
    told = of_training.get("shift", 0) > 0
    condition = cvae.Mixed(image=image, shift=cvae.Continuous(2)) if told else image
    architecture = cvae.Architecture(event_shape=shape, condition=condition, **of_network)
    of_models = {"cvae": architecture}
    if models.guess != "none" and architecture.latent_size > 0:
        of_models = {
            "guess": replace(architecture, latent_size=0, latent_layers=1, prior="standard"),
            "cvae": replace(architecture, guess=True),
        }
        of_training["frozen"] = ("guess",) if models.guess == "frozen" else ()
    training = cvae.Training(**of_training)
    experiment = "mnist_quadrants"
    return cvae.config.Config(experiment, dataset.name, fitting.seed, training, of_models)


def examples(config: Config, x: np.ndarray, grey: np.ndarray) -> study.Examples:
    """Pictures with what a model's condition stores: their grey levels, and that they have not been moved."""
    architecture = config.models["cvae"]
    stored = {"image": grey} if "image" in architecture.condition.stored_names else {}
    return x, stored | study.unmoved(architecture, len(x))


def split(dataset: Dataset) -> Dataset:
    """The protocol's split: the last sixth of the training file for validation, in the file's own order."""
    # `data.load` takes its validation examples from the front of the file.
    x = np.concatenate([dataset.validation.x, dataset.train.x])
    label = np.concatenate([dataset.validation.label, dataset.train.label])
    cut = len(x) - len(x) // 6
    train, validation = (cvae.data.Split(x[part], label[part]) for part in (slice(cut), slice(cut, None)))
    return dataset._replace(train=train, validation=validation)


def main(settings: Settings) -> Path:
    """Train and measure every row that is not there yet, and write the table; returns the folder."""
    dataset, plans, out = plan(settings)
    data = cvae.runs.digest(dataset)
    for planned in plans:
        if not settings.output.fresh and is_found(planned, data):
            print(f"{planned.task} {planned.row}: found in {planned.out}")
            measure_more(settings, dataset, planned)
        else:
            make_row(settings, dataset, planned)
    for planned in plans:  # when every row of a column is there, because a figure shows two of them
        draw_row(settings, dataset, planned)
    rows = collect(out)
    write(rows, out)
    print("\n" + markdown(rows))
    print(f"tables and runs in {out}")
    return out


def is_found(planned: Plan, data: str) -> bool:
    """Whether a row is finished, on the very pictures of this digest."""
    there = (planned.out / "summary.json").exists()
    return there and cvae.runs.read_summary(planned.out).get("data") == data


def make_row(settings: Settings, dataset: Dataset, planned: Plan) -> None:
    """Train a row, measure it, draw its figures."""
    import jax

    task, name, config, out = planned
    with study.Study(config, out, alone(settings, planned), dataset) as run:
        fit_key, guess_key, test_key, _ = jax.random.split(jax.random.key(config.seed), 4)
        train, validation = examples(config, dataset.train.x, dataset.train.x), held_out(config, dataset, "validation")
        histories, parts = {}, {}
        if "guess" in config.models:
            guess = run.fit("guess", guess_key, train, validation, training=replace(config.training, frozen=()))
            histories["guess"], parts["guess"] = guess, guess.params["decoder"]
        trained = run.fit("cvae", fit_key, train, validation, parts=parts)
        histories["cvae"] = trained
        split = settings.measuring.split
        held = held_out(config, dataset, split)
        results = measure(trained, test_key, held, estimators(config, settings.measuring), settings.measuring.pictures)
        if "importance_sampling" in "".join(results):
            results |= study.bound(*trained[:2], test_key, *held)
        hidden = int((~cvae.masks.fixed(task, dataset.train.x.shape[1:])).sum())  # type: ignore[operator]
        run.draw("curves", pictures.curves(histories, f"{dataset.name}, {SEEN[task]}, {name}: training and validation"))
        run.keep(
            task=task,
            row=name,
            protocol=settings.task.protocol,
            seen="grey" if settings.task.protocol == "grey" else settings.task.seen,
            split=split,
            missing_pixels=hidden,
            **{split: results},
            epochs=len(trained.history),
            parameters=sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
            seconds={model: fitted.seconds for model, fitted in histories.items()},
        )


def alone(settings: Settings, planned: Plan) -> Settings:
    """The options that make this row and no other."""
    quadrants = tuple(number for number in settings.task.quadrants if TASKS[number] == planned.task)
    task = replace(settings.task, quadrants=quadrants or settings.task.quadrants)
    return replace(settings, task=task, models=replace(settings.models, rows=(planned.row,)))


def held_out(config: Config, dataset: Dataset, split: str) -> study.Examples:
    """A split that is scored, its pixels drawn once unless they stay grey."""
    x = getattr(dataset, split).x
    grey = config.training.targets == "grey"
    return examples(config, x if grey else cvae.preparation.binarise(SEEDS[split], x), x)


def measure_more(settings: Settings, dataset: Dataset, planned: Plan) -> None:
    """Score a finished row by the estimators that are asked for and not there yet."""
    import jax

    split = settings.measuring.split
    with cvae.runs.Lock(planned.out):
        summary = cvae.runs.read_summary(planned.out)
        held = held_out(planned.config, dataset, split)
        asked = {e: len(held[0][: e.only]) for e in estimators(planned.config, settings.measuring)}
        missing = [e for e, count in asked.items() if summary[split].get(e.name, {}).get("pictures") != count]
        if not missing:
            return
        model, params, config = cvae.runs.load(planned.out, "cvae")
        key = jax.random.split(jax.random.key(config.seed), 4)[2]
        trained = study.Trained(model, params, [])
        summary[split] |= study.plain(measure(trained, key, held, missing, settings.measuring.pictures))
        summary["options"] = study.options(alone(settings, planned))
        cvae.runs.write_json(planned.out / "summary.json", summary)


class Estimator(NamedTuple):
    """A way to score a row."""

    name: str
    proposal: str
    samples: int
    only: int | None  # of so many pictures, the first; None is of all


def estimators(config: Config, measuring: Measuring) -> list[Estimator]:
    """Those that a row's protocol and model have."""
    gsnn = config.training.alpha == 0  # its encoder has learned nothing
    if config.training.targets == "grey":
        return [Estimator("negative_elbo", "prior" if gsnn else "posterior", GREY_SAMPLES, None)]
    if config.models["cvae"].latent_size == 0:  # nothing is drawn: one sample is exact
        return [Estimator("exact", "posterior", 1, None)]
    found = []
    for name, proposal in (("importance_sampling", "posterior"), ("monte_carlo", "prior")):
        for samples, count in ((measuring.samples, None), (measuring.many_samples, measuring.pictures)):
            if samples > 0 and not (gsnn and proposal == "posterior"):
                found.append(Estimator(f"{name}_{samples}", proposal, samples, count))
    return found


def measure(
    trained: study.Trained, key: jax.Array, held: study.Examples, estimators: list[Estimator], first: int
) -> dict[str, Any]:
    """Negative log-likelihoods in nats, each with the commit that measured it."""
    import jax

    results: dict[str, Any] = {}
    for name, proposal, samples, count in estimators:
        some: study.Examples = jax.tree.map(lambda values, count=count: values[:count], held)
        if name == "negative_elbo":
            terms = cvae.evaluate(*trained[:2], key, *some, num_samples=samples, proposal=proposal)
            nll, effective = np.asarray(-terms.value), None
        else:
            scored = cvae.log_likelihood(
                *trained[:2], key, *some, num_samples=samples, proposal=proposal, progress=samples > 1
            )
            nll, effective = -scored.value, cvae.evaluation.mean(scored.effective_samples)
        results[name] = {"nll": cvae.evaluation.mean(nll), "num_samples": samples, "pictures": len(nll)}
        if count is None:  # also of those that more samples are drawn for, to compare the two
            results[name]["nll_of_first"] = cvae.evaluation.mean(nll[:first])
        results[name] |= {"effective_samples": effective, "commit": cvae.runs.commit()}
    return results


def draw_row(settings: Settings, dataset: Dataset, planned: Plan) -> None:
    """Draw the completions of a row with latents, unless they are there, and no older than the guess they show."""
    task, name, config, out = planned
    guesser = out.parent / "deterministic"
    path = out / "figures" / f"{dataset.name}_completions.png"
    has_guess = (guesser / "summary.json").exists()
    if config.models["cvae"].latent_size == 0:
        return
    if path.exists() and not (has_guess and (guesser / "summary.json").stat().st_mtime > path.stat().st_mtime):
        return
    title = f"{dataset.name}, {SEEN[task]}, {name}: completions"
    figure = draw(dataset, settings.measuring.split, config, out, guesser if has_guess else None, title)
    figure.savefig(path, dpi=200)


def draw(dataset: Dataset, split: str, config: Config, run: Path, guesser: Path | None, title: str) -> Figure:
    """A picture of each class: what is seen, the deterministic guess, samples, their mean and spread, the truth.

    What is seen is shown in its grey levels, also where the model is told pixels drawn black or white.
    """
    import jax

    part = getattr(dataset, split)
    rows = np.array([np.flatnonzero(part.label == k)[0] for k in range(dataset.num_classes)])
    model, params, _ = cvae.runs.load(run, "cvae")
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    held = jax.tree.map(lambda values: values[rows], held_out(config, dataset, split))
    _, c = cvae.model.default_preparation(model)(key, *held)
    keys = jax.random.split(key, 100)
    sample = jax.jit(jax.vmap(lambda key: cvae.sample(model, params, key, c)))
    drawn = np.moveaxis(np.asarray(sample(keys)), 0, 1)
    truth = part.x[rows].astype(np.float32) / 255
    hidden = ~np.asarray(c["observed"])
    guess = None
    if guesser is not None:
        network = cvae.runs.load(guesser, "cvae")[:2]
        seen = {name: c[name] for name in ("image", "observed")}
        guess = np.where(hidden, np.asarray(cvae.sample(*network, key, seen)), truth)
    drawn = np.where(hidden[:, None], drawn, truth[:, None])
    return cvae.plotting.completions(np.where(hidden, 0, truth), hidden, drawn, truth, title, SHOWN, guess)


def collect(out: Path) -> list[dict[str, Any]]:
    """A record for every finished run under a folder, in the order of the tasks and rows."""
    order = [*TASKS.values(), "top_half"], list(ROWS)
    records = []
    for path in sorted(out.glob("*/*/summary.json")):
        summary = cvae.runs.read_summary(path.parent)
        scores = summary[summary["split"]]
        record = {
            "task": summary["task"],
            "row": summary["row"],
            "protocol": summary["protocol"],
            "split": summary["split"],
            "epochs": summary["epochs"],
            "parameters": summary["parameters"],
            "training_seconds": round(sum(v for k, v in summary["seconds"].items() if k != "total"), 1),
        }
        scores = {name: score for name, score in scores.items() if "nll" in score}
        first = min(score["pictures"] for score in scores.values())  # those that more samples were drawn for
        for name, score in scores.items():
            kept = {name: (score["nll"], score["pictures"])}
            if score["pictures"] > first:
                kept[f"{name}_of_first"] = score["nll_of_first"], first
            for key, (nll, count) in kept.items():
                record |= {key: nll["value"], f"{key}_error": nll["standard_error"], f"{key}_pictures": count}
        records.append(record)
    return sorted(records, key=lambda record: (order[0].index(record["task"]), order[1].index(record["row"])))


def markdown(records: list[dict[str, Any]]) -> str:
    """The table as people read it: a line for every row and estimator, a column a task."""
    tasks = [task for task in (*TASKS.values(), "top_half") if any(r["task"] == task for r in records)]
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for record in records:
        names = [key for key in record if f"{key}_error" in record]
        everything = max(record[f"{name}_pictures"] for name in names)
        for name in names:
            words = {"exact": "exact", "negative_elbo": "-ELBO, grey targets"}.get(name)
            words = words or name.replace("importance_sampling_", "IS, S = ").replace("monte_carlo_", "MC, S = ")
            if (count := record[f"{name}_pictures"]) < everything:
                words = f"{words.removesuffix('_of_first')}, first {count:,} pictures"
            words += ", validation" if record["split"] == "validation" else ""
            cell = f"{record[name]:.2f} ± {record[f'{name}_error']:.2f}"
            lines.setdefault((record["row"], words), {})[record["task"]] = cell
    head = ["row", "estimate", *tasks]
    body = [[row, words, *(cells.get(task, "-") for task in tasks)] for (row, words), cells in lines.items()]
    table = [head, ["---", "---", *["---:"] * len(tasks)], *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table) + "\n"


def write(records: list[dict[str, Any]], out: Path) -> None:
    """Write table.json, table.csv and table.md."""
    cvae.runs.write_json(out / "table.json", records)
    (out / "table.md").write_text(markdown(records))
    names = list(dict.fromkeys(name for record in records for name in record))
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(records)


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
