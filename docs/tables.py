"""Tables of what was measured: rows of (label, place in a summary, format) over the files under `results/`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import mnist_attribute as attribute
from experiments import mnist_fidelity as fidelity
from experiments import mnist_label as article
from experiments import mnist_likelihood as likelihood
from experiments import quadrants_ablation as ablation
from experiments.harness import quadrants
from experiments.harness.tables import Row, by_model, by_row, cell, render

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"

Record = dict[str, Any]

# Reading results, also those of version 0.1

RENAMED = {"agreement": "conditioning_accuracy", "of_first_pictures": "of_first_images", "pictures": "images"}


def read(place: str) -> Record:
    """A file under `results/`, with today's names."""
    record: Record = _renamed(json.loads((RESULTS / place).read_text(encoding="utf-8")))
    return record


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(each) for each in value]
    if not isinstance(value, dict):
        return value
    record = {RENAMED.get(name, name): _renamed(each) for name, each in value.items()}
    if isinstance(record.get("loss"), float) and "standard_error" in record:
        record["loss"] = {"value": record["loss"], "standard_error": record["standard_error"]}
    return record


def models_of(folder: str) -> dict[str, Record]:
    """The test results of a run's models, with seconds of training.

    Version 0.1 counted active units in a way that a learned prior can distort: such counts are left out.
    """
    summary, config = read(f"{folder}/summary.json"), read(f"{folder}/config.json")
    results: dict[str, Record] = {}
    for name, row in summary["test"].items():
        seconds = summary["seconds"][name]
        results[name] = row | {"seconds": seconds, "minutes": seconds / 60}
        if "settings" not in summary and config["models"][name]["prior"] == "learned":
            results[name].pop("active_units", None)
    return results


def source(*places: str) -> str:
    """A line that links to results, and says on which machines and at which commits they were made."""
    commits: dict[str, list[str]] = {}
    for place in places:
        path = RESULTS / place
        for file in [path] if path.is_file() else sorted(path.glob("**/summary.json")):
            record = json.loads(file.read_text(encoding="utf-8"))
            machine = record["machine"]
            device = "".join(f", {name}" for name in machine["devices"] if name != "cpu")
            cores = f"{machine['cores']} core{'s' * (machine['cores'] > 1)}"
            where = f"{cores} of an {machine['cpu']}{device}, JAX {record['versions']['jax']}"
            commits.setdefault(where, []).append(f"`{record['commit'][:7]}`")
    made = [f"{where}, commit {', '.join(sorted(set(each)))}" for where, each in sorted(commits.items())]
    links = ", ".join(f"[`results/{place}`](../results/{place})" for place in places)
    return f"\n\nSource: {links}; {'; '.join(made)}."


def present(rows: Sequence[Row], records: Mapping[str, Record]) -> list[Row]:
    """The rows that any of the records has a value for, with labels as Markdown has them in a table."""
    found = [row for row in rows if any(cell(row, record) != "-" for record in records.values())]
    return [row._replace(label=row.label.replace("|", "\\|")) for row in found]


# Experiments

HEADLINES = [
    ("loss of the article's CVAE, 2 latents, grey targets, nats", "mnist_label", Row("", "loss")),
    (
        r"-log p(x \| label), binary targets, upper bound, nats",
        "mnist_likelihood",
        Row("", "log_likelihood", negate=True),
    ),
    ("classification accuracy by Bayes' rule", "mnist_likelihood", Row("", "classification.accuracy", "percent")),
    (
        "generated digits that a classifier reads as their label",
        "mnist_likelihood",
        Row("", "conditioning_accuracy.generated", "percent"),
    ),
]
ATTRIBUTES = {"attribute": "thickness and slant", "attribute_label": "thickness, slant and label"}
FIRST = [
    Row("-log p(x | y), first 1,000 images, 500 samples", "of_first_images.few.log_likelihood", negate=True),
    Row("-log p(x | y), first 1,000 images, 5,000 samples", "of_first_images.many.log_likelihood", negate=True),
    Row("effective samples of these", "of_first_images.many.effective_samples", "one"),
]
LIKELIHOOD = [*likelihood.TABLE[:3], *FIRST, *likelihood.TABLE[3:]]
SWEEP = [
    Row("grey cross-entropy", "log_likelihood", negate=True),
    Row("effective samples", "effective_samples", "one"),
    Row("rate", "rate"),
    Row("distortion", "distortion"),
    Row("active units", "active_units", "one"),
    Row("training", "seconds.mean", "seconds"),
]


def headlines() -> str:
    """The numbers of the README."""
    lines = []
    for label, experiment, row in HEADLINES:
        lines.append([label, f"`experiments.{experiment}`", cell(row, models_of(experiment)["cvae"])])
    scored = quadrants.record(read("mnist_quadrants/quadrants_1/residual/summary.json"))
    nats = {
        name: scored[f"importance_sampling_100{end}"] for name, end in (("value", ""), ("standard_error", "_error"))
    }
    label = "-log p(hidden pixels), one quadrant observed, upper bound, nats"
    lines.append([label, "`experiments.mnist_quadrants`", cell(Row("", "nats"), {"nats": nats})])
    for size, contenders in steps().items():
        label = f"time of a step in PyTorch relative to this, {SIZES[size]}, two CPU cores"
        lines.append([label, "`benchmarks.epoch`", f"{contenders['pytorch']['over_cvae']:.1f} times"])
    return render(["MNIST test split", "`python -m`", "value"], lines, text_columns=2)


def mnist_label() -> str:
    """The article's experiment."""
    folders = {"mnist_label": "mnist", "mnist_label_digits": "digits"}
    records = {
        f"{dataset}, {name.upper()}": row
        for folder, dataset in folders.items()
        for name, row in models_of(folder).items()
    }
    return by_row(article.TABLE, records, "nats per image") + source(*folders)


def mnist_likelihood() -> str:
    """Everything that is measured of the label-conditional model."""
    folders = {"dynamic binarisation": "mnist_likelihood", "static binarisation": "mnist_likelihood_static"}
    records = {name: models_of(folder)["cvae"] for name, folder in folders.items()}
    return by_model(present(LIKELIHOOD, records), records, "binarised test images, nats") + source(*folders.values())


def mnist_fidelity() -> str:
    """Conditioning accuracy and diversity over the prior's temperature."""
    folder = "mnist_likelihood_fidelity"
    summary = read(f"{folder}/summary.json")
    records = {f"temperature {row['temperature']:g}": row for row in summary["generated"]}
    records["real, test split"] = summary["real"]
    return by_row(present(fidelity.TABLE, records), records, "10,000 generated images") + source(folder)


def mnist_attribute() -> str:
    """Requested attributes against those that are measured on generated digits."""
    records = {ATTRIBUTES[name]: row for name, row in models_of("mnist_attribute").items()}
    for row in records.values():
        if "log_likelihood" in row:  # of version 0.1
            before = row["log_likelihood"]
            row["grey_cross_entropy"] = before | {"value": -before["value"]}
    nats, strokes = present(attribute.NATS, records), present(attribute.STROKES, records)
    tables = [by_row(nats, records, "nats per image"), by_row(strokes, records, "requested against measured")]
    return "\n\n".join(tables) + source("mnist_attribute")


def sweep_latent() -> str:
    """Latent size by conditioning."""
    names = {"none": "unconditional"}
    records = {
        f"{names.get(row['condition'], row['condition'])}, {row['latent_size']}": row
        for row in read("sweep_latent/summary.json")["results"]
    }
    return by_row(present(SWEEP, records), records, "condition, latents") + source("sweep_latent")


def mnist_inpaint() -> str:
    """Nats of the hidden part of an image."""
    row = models_of("mnist_inpaint")["cvae"]
    records = {"per image": row, "per hidden pixel": row["per_hidden_pixel"]}
    measures = {
        r"-log p(x \| c), upper bound, 100 samples": ("log_likelihood", True),
        "effective sample size": ("effective_samples", False),
        "-ELBO = rate + distortion": ("elbo", True),
        "rate": ("rate", False),
        "distortion": ("distortion", False),
    }
    body = []
    for label, (place, negate) in measures.items():
        formats = {"per image": "one" if place == "effective_samples" else "nats", "per hidden pixel": "small"}
        body.append([label, *(cell(Row("", place, formats[name], negate), each) for name, each in records.items())])
    return render(["nats", *records], body) + source("mnist_inpaint")


# Quadrants

RUNS = [
    Row("parameters", "parameters", "count"),
    Row("epoch that is scored", "chosen", "text"),
    Row("minutes of training", "minutes", "count"),
]


def mnist_quadrants() -> str:
    """Every run of the quadrants, with grey observed pixels."""
    return _quadrants("mnist_quadrants")


def mnist_quadrants_binarized() -> str:
    """The same with binarised observed pixels."""
    return _quadrants("mnist_quadrants_drawn")


def mnist_quadrants_grey() -> str:
    """Grey targets scored by the ELBO."""
    return _quadrants("mnist_quadrants_grey")


def mnist_top() -> str:
    """The bottom half from the top."""
    return _quadrants("mnist_quadrants_top")


def _quadrants(folder: str) -> str:
    return quadrants.markdown(quadrants.collect(RESULTS / folder)) + source(folder)


def mnist_quadrants_runs() -> str:
    """How the models of the quadrants were trained."""
    folder = "mnist_quadrants"
    records = {f"{each['row']}, {each['task']}": each for each in quadrants.collect(RESULTS / folder)}
    for each in records.values():
        place = f"{folder}/{each['task']}/{each['row']}"
        lines = (RESULTS / place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [json.loads(line)["validation"]["loss"] for line in lines]
        stops_early = read(f"{place}/config.json")["training"]["patience"] is not None
        chosen = losses.index(min(losses)) + 1 if stops_early else len(losses)
        each |= {"minutes": each["training_seconds"] / 60, "chosen": f"{chosen} of {len(losses)}"}
    return by_row(RUNS, records, "row, observed")


def quadrants_ablation() -> str:
    """The default of the quadrants with one change at a time."""
    records = ablation.collect(RESULTS / "quadrants_ablation")
    return ablation.markdown(records, times=False) + source("quadrants_ablation")


# Speed and stress

CONTENDERS = {
    "cvae": "this project",
    "pytorch": "PyTorch, eager",
    "pytorch_compiled": "PyTorch, compiled",
    "keras": "Keras 3 on JAX",
    "floor": "floor",
}
SIZES = {"article": "the article's model", "residual": "residual model", "convolutional": "convolutional model"}
MEMBERS = {
    "sweep": "one sweep",
    "masked": "the same members one by one, one program",
    "own": "models of each member's own size",
}
STRESS = ("stress_kills", "stress_full_disk", "stress_fuzz", "stress_properties", "stress_mutations")
OLD_STRESS = {"stress_kills": "benchmark_survival"}  # files of version 0.1


def steps() -> dict[str, Record]:
    """The contenders' steps by model, of its own batch size on a CPU."""
    results = read("benchmark_epoch.json")["results"]
    return {size: next(iter(batches.values())) for size, batches in results.items()}


def epoch() -> str:
    """Milliseconds per step beside peers."""
    rows = [
        Row("milliseconds", "median"),
        Row("relative to this project", "over_cvae"),
        Row("relative to the floor", "over_floor"),
    ]
    records = {
        f"{SIZES[size]}, {CONTENDERS[name]}": row for size, each in steps().items() for name, row in each.items()
    }
    return by_row(rows, records, "a training step") + source("benchmark_epoch.json")


def sweep_speed() -> str:
    """What a sweep costs."""
    results = read("benchmark_sweep.json")["results"]
    rows = [
        Row("seconds", "median"),
        Row("sweep relative to this", "sweep_over_this"),
        Row("programs", "programs", "count"),
    ]
    names = {"label": "label", "none": "unconditional"}
    records = {f"{names[kind]}, {MEMBERS[name]}": row for kind, each in results.items() for name, row in each.items()}
    return by_row(rows, records, "12 models") + source("benchmark_sweep.json")


def likelihood_speed() -> str:
    """What importance sampling costs."""
    rows = [
        Row("seconds", "median", "one"),
        Row("relative to its matrix products alone", "over_floor"),
        Row("peak memory, GB", "peak_memory_gb"),
    ]
    records = {"10,000 images, 500 samples each": read("benchmark_likelihood.json")["results"]}
    return by_row(rows, records, "importance sampling") + source("benchmark_likelihood.json")


def saving_speed() -> str:
    """What a checkpoint after every epoch costs."""
    results = read("benchmark_saving.json")["results"]
    records = {}
    for label, clock in {"wall-clock time": results["wall"], "processor time": results["processors"]}.items():
        paired = {"value": clock["mean"] - 1, "standard_error": clock["standard_error"]}
        records[label] = {"share": clock["share"], "median": clock["ratio"] - 1, "mean": paired}
    rows = [
        Row("the save itself", "share", "percent"),
        Row("neighbouring epochs with and without, median", "median", "percent"),
        Row("neighbouring epochs with and without, mean", "mean", "percent"),
    ]
    return by_model(rows, records, "share of an epoch") + source("benchmark_saving.json")


def stress() -> str:
    """What runs, files and tests were put through, and how much of it they passed."""
    files = {name: _stress_file(name) for name in STRESS}
    kills, disk, fuzz, properties, mutations = (read(file)["results"] for file in files.values())
    damaged = sum(kind["read"] + kind["refused"] for kind in fuzz["kinds"].values())
    every = damaged + sum(kind["wrong"] for kind in fuzz["kinds"].values())
    held = [one["failed"] == 0 for one in properties["properties"].values()]
    lines = [
        ("runs killed at random instants and resumed: bit-identical results", kills["same"], kills["runs"]),
        ("a full disk during a run: one-line error, then resumed to identical bits", int(disk["same"]), 1),
        ("damaged files: read, or refused in one line within 1 s and 1 GB", damaged, every),
        ("properties of public functions, 1,000 random cases each", sum(held), len(held)),
        ("sign errors inserted into KL, ELBO and weights: caught", mutations["caught"], mutations["mutants"]),
    ]
    body = [[name, f"{passed:,}", f"{count:,}"] for name, passed, count in lines]
    return render(["test", "passed", "of"], body) + source(*files.values())


def _stress_file(name: str) -> str:
    old = OLD_STRESS.get(name, name.replace("stress_", "benchmark_"))
    return f"{name}.json" if (RESULTS / f"{name}.json").exists() else f"{old}.json"


METHODS = {"cvae": "this project", "tvae": "TVAE", "real": "real rows"}
IMPUTERS = {"cvae": "this project", "iterative": "IterativeImputer", "neighbours": "KNNImputer"}


def synthetic() -> str:
    """Drawn tables beside TVAE's and real rows."""
    results = read("benchmark_synthetic.json")["results"]
    rows = [
        Row("quality", "quality", "correlation"),
        Row("column shapes", "shapes", "correlation"),
        Row("pair trends", "pairs", "correlation"),
        Row("R2", "r2", "correlation"),
        Row("accuracy", "accuracy", "correlation"),
        Row("seconds", "seconds", "count"),
    ]
    records = {}
    for table, methods in results.items():
        for name, label in METHODS.items():
            runs = methods[name]
            records[f"{table}, {label}"] = {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}
    return by_row(rows, records, "10,000 rows at most") + source("benchmark_synthetic.json")


def imputation() -> str:
    """Errors of imputation beside scikit-learn's."""
    results = read("benchmark_imputation.json")["results"]
    rows = [Row(label, name, "correlation") for name, label in IMPUTERS.items()]
    records = {table: {name: methods[name]["error"] for name in IMPUTERS} for table, methods in results.items()}
    return by_row(rows, records, "error") + source("benchmark_imputation.json")


def known_tables() -> str:
    """Fits of tables whose density is known."""
    results = read("stress_tables.json")["results"]
    rows = [
        Row("exact log p(x given c)", "exact"),
        Row("fitted less exact", "gap"),
        Row("missing cells in their 90 % interval", "coverage", "percent"),
    ]
    return by_row(rows, results, "nats per row") + source("stress_tables.json")
