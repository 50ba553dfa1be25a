"""Structured prediction: some quadrants of a digit are observed, the others are predicted (Sohn, Lee & Yan 2015, 5.1).

    python -m experiments.mnist_quadrants                          # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_quadrants --quadrants 1 --rows residual
    python -m experiments.mnist_quadrants --task top               # the bottom half from the top
    python -m experiments.mnist_quadrants --rows residual --hybrid-weight 0.5 --out runs/mnist_quadrants_hybrid

The protocol, the same for every row:

- examples: MNIST's training file in its own order, the first 50,000 for training and the last 10,000 for validation
  (of another data set the last sixth), and its 10,000 test images;
- observed: of 1 quadrant the bottom left, of 2 the left half, of 3 all but the bottom right; with `--task top` the top;
- targets: pixels drawn 0 or 1 with their grey level as probability; for training anew each time an image is used, for
  validation and test once, by fixed seeds that do not depend on `--seed`;
- observed pixels have their grey levels. The paper does not say, but the deterministic network then scores as the
  paper's. With `--observed binarized` they are those that were drawn, which is harder by some nats;
- score: the negative log-likelihood of the hidden pixels alone (588, 392 or 196 of 784), in nats: its mean over the
  test images and standard error. By importance sampling from the posterior (IS), whose expectation is an upper bound,
  and by Monte Carlo under the prior (MC), each with S = 100 on every test image and S = 5,000 on the first `--images`;
- selection, of settings and of the epoch, on the validation images only.

With `--binarization none` targets are grey, scored by the negative ELBO with 10 samples as in Pyro's tutorial. That is
a grey cross-entropy and a KL, and no log-likelihood: it is never below the entropy of the grey levels.

Rows, each a run in OUT/TASK/ROW, which a second call with the same settings does not repeat:

    deterministic, gsnn, cvae    of the paper's size: two layers of 1,000 ReLU units, 200 latents, a learned prior
    residual                     residual networks, four layers of latents, training images moved by up to a pixel, by
                                 how much is part of the condition
    record                       the same with two blocks, for twice as long, with early stopping: half an hour a column
                                 on two cores

Other options, such as `--hybrid-weight`, change every row that is trained. The recurrent connection of the paper is
`--guess`: a deterministic network is trained first and read by the prior, and stays as it is with `--frozen guess`.
OUT/table.md, table.csv and table.json hold the results of all rows in OUT. Expected on MNIST, `residual`, IS with
S = 100: 56.6, 39.1 and 18.0 nats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from pydantic import Field

import cvae
from cvae import checks
from cvae.keys import BINARIZATION_SEEDS
from cvae.settings import Count, CountOrZero, replace
from experiments import harness
from experiments.harness import cli, quadrants
from experiments.harness.completions import completions
from experiments.harness.label_figures import curves
from experiments.harness.quadrants import COLUMNS, METHODS, ColumnName, RowName

NAME = "mnist_quadrants"
GREY_SAMPLES = 10  # of the ELBO, as in Pyro's tutorial

Rows = Annotated[tuple[RowName, ...], Field(min_length=1)]
Proposals = Annotated[tuple[harness.Proposal, ...], Field(min_length=1)]
DEFAULT_ROWS: Rows = ("deterministic", "gsnn", "cvae", "residual")


@cvae.setting
class Settings(harness.Settings):
    """Options of the experiment; those of a run have one row and one column."""

    rows: Rows = DEFAULT_ROWS
    """deterministic, gsnn and cvae are of the paper's size; residual is the default network, record the largest"""
    quadrants: Annotated[tuple[Literal[1, 2, 3], ...], Field(min_length=1)] = (1, 2, 3)
    """how many quadrants are observed, one column each"""
    task: Literal["quadrants", "top"] = "quadrants"
    """top: the bottom half is predicted from the top half, instead of --quadrants"""
    observed: Literal["grey", "binarized"] = "grey"
    """observed pixels: their grey levels, or as they were drawn, 0 or 1"""
    architecture: cvae.Architecture = cvae.Architecture()
    training: cvae.Training = cvae.Training()
    split: Literal["test", "validation"] = "test"
    """what is scored; choices are made on validation"""
    proposals: Proposals = ("posterior", "prior")
    """how z is drawn for the score: posterior is importance sampling, prior is Monte Carlo, mixture is half each"""
    samples: Count = 100
    """samples S of z, on every image"""
    many_samples: CountOrZero = 5000
    """samples S on the first images; 0 leaves that out"""
    images: Annotated[int, Field(ge=2)] = 1000
    """number of the first images"""

    @property
    def column(self) -> ColumnName:
        """What is observed, of a run: a key of COLUMNS."""
        return "top_half" if self.task == "top" else list(COLUMNS)[self.quadrants[0] - 1]


def changed(settings: Settings, **changes: Any) -> Settings:
    """The settings with other values of some fields, of their architecture and training too."""
    for part in ("architecture", "training"):
        before = getattr(settings, part)
        own = {name: changes.pop(name) for name in [*changes] if name in type(before).__dataclass_fields__}
        changes[part] = replace(before, **own)
    return replace(settings, **changes)


def with_rows(paper: Settings, residual: Settings, record: Settings) -> dict[RowName, Settings]:
    """The rows by name; `models` takes the latents from the deterministic one."""
    gsnn = changed(paper, hybrid_weight=0.0)
    return {"deterministic": paper, "gsnn": gsnn, "cvae": paper, "residual": residual, "record": record}


CONDITION = cvae.Image((28, 28, 1), "quadrants_1")  # in the place of the run's own
PAPER = Settings(  # as in 2015: plain Adam, and the epoch that validates best
    architecture=cvae.Architecture(condition=CONDITION, hidden=(1000, 1000), latent_size=200, prior="learned"),
    training=cvae.Training(epochs=50, batch_size=100, patience=4, binarization="dynamic"),
)
RESIDUAL = Settings(
    architecture=cvae.Architecture(
        condition=CONDITION, hidden=(500,), latent_size=64, latent_layers=4, body="residual", prior="learned"
    ),
    training=cvae.Training(
        epochs=60, batch_size=200, learning_rate=1.5e-3, schedule="warmup_cosine", weight_decay=0.1, ema_decay=0.999,
        shift=1, shift_prob=0.7, binarization="dynamic",
    ),
)  # fmt: skip
RECORD = changed(RESIDUAL, hidden=(500, 500), epochs=120, patience=20)  # which overfits where much is observed
SMALL = changed(RESIDUAL, hidden=(128,), latent_size=16, epochs=100, batch_size=50)
TINY = changed(RESIDUAL, hidden=(16,), latent_size=4, latent_layers=2, epochs=2)
CONFIGS = {
    "mnist": with_rows(PAPER, RESIDUAL, RECORD),
    "digits": with_rows(
        changed(PAPER, hidden=(128, 128), latent_size=16),
        SMALL,
        changed(SMALL, hidden=(128, 128), epochs=150, patience=20),
    ),
    "smoke": with_rows(
        changed(PAPER, hidden=(16, 16), latent_size=4, epochs=2, smoke=True),
        changed(TINY, smoke=True),
        changed(TINY, hidden=(16, 16), smoke=True),
    ),
}


class Targets(NamedTuple):
    """A split: the targets x, binarised once where they are scored, and the grey levels."""

    x: np.ndarray
    label: np.ndarray
    grey: np.ndarray


def load(settings: Settings) -> Any:
    """The data set in the protocol's split: the last sixth of the training file, in its own order, for validation."""
    dataset: Any = cli.load(settings)

    def part(name: str, x: np.ndarray, label: np.ndarray) -> Targets:
        once = name != "train" and settings.training.binarization != "none"
        return Targets(cvae.data.binarize(BINARIZATION_SEEDS[name], x) if once else x, label, x)

    # The usual validation examples are those at the front of the file.
    x = np.concatenate([dataset.validation.x, dataset.train.x])
    label = np.concatenate([dataset.validation.label, dataset.train.label])
    cut = len(x) - len(x) // 6
    return dataset._replace(
        train=part("train", x[:cut], label[:cut]),
        validation=part("validation", x[cut:], label[cut:]),
        test=part("test", *dataset.test),
    )


def models(settings: Settings, dataset: Any) -> dict[str, cvae.Architecture]:
    """The model of a row, "cvae", and the deterministic one that its prior reads, if it does."""
    shape = dataset.train.x.shape[1:]
    separate = settings.observed == "grey" and settings.training.binarization != "none"
    image = cvae.Image(shape, settings.column, separate=separate)
    condition = cvae.Mixed((image, cvae.Continuous(2, name="shift"))) if settings.training.shift > 0 else image
    architecture = replace(settings.architecture, event_shape=shape, condition=condition)
    deterministic = replace(architecture, latent_size=0, latent_layers=1, prior="standard", guess=False)
    if settings.rows == ("deterministic",):
        return {"cvae": deterministic}
    return {"guess": deterministic, "cvae": architecture} if architecture.guess else {"cvae": architecture}


def examples(architecture: cvae.Architecture, split: Any) -> harness.Examples:
    """Targets with the observed image, in its grey levels or as it was drawn."""
    x, c = cli.by_spec(architecture, split)
    return x, c | ({"image": split.grey} if cvae.config.parts_of(architecture.condition)[0].separate else {})


def check(settings: Settings, dataset: Any) -> None:
    """Refuse options that contradict each other, and to score another split into the folder of a finished run."""
    more = settings.many_samples == 0 or settings.many_samples > settings.samples
    checks.require(more, "--many-samples", f"be more than --samples, {settings.samples}, or 0", settings.many_samples)
    valid = settings.observed == "grey" or settings.training.binarization != "none"
    checks.require(valid, "--observed", "be grey with --binarization none", settings.observed)
    out = settings.out
    if out is not None and (out / "summary.json").exists() and not settings.fresh:
        before = cvae.runs.read_summary(out).get("split")
        rule = f"be {before}, as in {out}, or have another --out"
        checks.require(before == settings.split, "--split", rule, settings.split)


def fit(job: harness.Job, name: str) -> harness.Trained:
    """Fit a model; the deterministic one, trained before, is part of the other."""
    if name == "guess":
        return job.fit(name, settings=replace(job.settings.training, frozen=()))
    return job.fit(name, parts={"guess": job.trained["guess"].params["decoder"]} if "guess" in job.trained else {})


class Estimator(NamedTuple):
    """A way to score a row."""

    name: str
    proposal: str
    samples: int
    only: int | None = None  # number of the first images; None is all


def estimators(settings: Settings) -> list[Estimator]:
    """Those that suit the targets and the row's model."""
    gsnn = settings.training.hybrid_weight == 0  # its encoder is not trained
    if settings.training.binarization == "none":
        return [Estimator("negative_elbo", "prior" if gsnn else "posterior", GREY_SAMPLES)]
    if settings.rows == ("deterministic",):  # there is no z: one sample is exact
        return [Estimator("exact", "posterior", 1)]
    counts = [(settings.samples, None), (settings.many_samples, settings.images)]
    return [
        Estimator(f"{METHODS[proposal]}_{samples}", proposal, samples, only)
        for proposal in (("prior",) if gsnn else settings.proposals)
        for samples, only in counts
        if samples > 0
    ]


def evaluate(job: harness.Job) -> dict[str, Any]:
    """Negative log-likelihoods of the hidden pixels in nats, by estimator; of importance sampling also the ELBO."""
    trained, settings, mean = job.trained["cvae"], job.settings, cvae.evaluation.mean
    key, (x, c) = job.key("test"), job.split("cvae", settings.split)
    results: dict[str, Any] = {}
    for name, proposal, samples, only in estimators(settings):
        some = x[:only], {part: values[:only] for part, values in c.items()}
        score: dict[str, Any] = {"num_samples": samples}
        if name == "negative_elbo":
            terms = cvae.evaluate(trained.model, trained.params, key, *some, num_samples=samples, proposal=proposal)
            nats = -terms.value
        else:
            scored = cvae.log_likelihood(
                trained.model, trained.params, key, *some, num_samples=samples, proposal=proposal, progress=samples > 1
            )
            nats, score["effective_samples"] = -scored.value, mean(scored.effective_samples)
        score |= {"nats": mean(nats), "images": len(nats)}
        if only is None:  # also of those that more samples are drawn for, to compare the two
            score["nats_of_first"] = mean(nats[: settings.images])
        results[name] = score
    if any(name.startswith(METHODS["posterior"]) for name in results):
        results |= harness.elbo_summary(trained, key, x, c)
    return results


def facts(job: harness.Job) -> dict[str, Any]:
    """Which row and column this is, and its size."""
    settings, trained = job.settings, job.trained["cvae"]
    return {
        "task": settings.column,
        "row": settings.rows[0],
        "split": settings.split,
        "observed": settings.observed,
        "hidden_pixels": int((~observed_pixels(job)).sum()),
        "epochs": len(trained.history),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
    }


def figures(job: harness.Job) -> Iterator[tuple[str, Figure]]:
    """Completions by a row with latents, beside the deterministic row's prediction if it is there; training curves.

    The observed part is drawn in its grey levels, also where the model's condition is binarised.
    """
    settings, folder = job.settings, job.run.out.parent / "deterministic"
    title = f"{COLUMNS[settings.column]}, {settings.rows[0]}"
    if settings.rows != ("deterministic",):
        grey = getattr(job.dataset, settings.split).grey / np.float32(255)
        hidden = np.broadcast_to(~observed_pixels(job), grey.shape)
        predictor = cvae.load(folder, "cvae") if (folder / "summary.json").exists() else None
        words = job.title(f"{title}, means of p(x | z, c)", "cvae")
        yield "completions", completions(job, settings.split, grey, hidden, words, predictor)
    yield "curves", curves(job.trained, job.title(f"{title}, training and validation", "cvae"))


def observed_pixels(job: harness.Job) -> np.ndarray:
    """The mask of a run, bool [H, W, 1]."""
    image = cvae.config.parts_of(job.run.config.models["cvae"].condition)[0]
    return np.asarray(image.fixed)


EXPERIMENT = harness.Experiment(
    NAME,
    {name: rows["residual"] for name, rows in CONFIGS.items()},
    models,
    evaluate,
    figures,
    table=lambda summary: quadrants.markdown([quadrants.record(summary)]),
    examples=examples,
    check=check,
    load=load,
    fit=fit,
    facts=facts,
)


def runs_of(rows: Mapping[RowName, Settings], out: Path) -> list[Settings]:
    """The settings of every run, one row and column each, from those of the rows."""
    first, runs = next(iter(rows.values())), []
    columns = dict.fromkeys(first.quadrants) if first.task == "quadrants" else (1,)
    for number, (row, settings) in product(columns, rows.items()):
        training = replace(settings.training, frozen=()) if row == "deterministic" else settings.training
        run = replace(settings, rows=(row,), quadrants=(number,), training=training)
        runs.append(replace(run, out=out / run.column / row))
    return runs


def execute(rows: Mapping[RowName, Settings]) -> Path:
    """Train and measure every row of every column that is not there yet, and write the table; returns the folder."""
    settings = next(iter(rows.values()))
    out = cli.folder(NAME, settings, cli.load(settings).name)
    cli.execute_all(EXPERIMENT, {f"{COLUMNS[run.column]}, {run.rows[0]}": run for run in runs_of(rows, out)})
    records = quadrants.collect(out)
    quadrants.write(records, out)
    print(f"\n{quadrants.markdown(records)}\n\ntables and runs in {out}")
    return out


@cvae.setting
class Which(cli.Which):
    """The options that decide the presets."""

    rows: Rows = DEFAULT_ROWS


def main() -> None:
    """The command line: every row has defaults of its own, and the options of the command change them all."""
    which = cli.partially(Which)
    rows = cli.chosen(CONFIGS, which.meant, which.smoke)
    execute({row: cli.options(Settings, __doc__, cli.with_folder(NAME, rows[row], which)) for row in which.rows})


if __name__ == "__main__":
    cli.protected(main)
