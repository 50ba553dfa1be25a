"""The README's tables, from the files under `results/`.

    python -m benchmarks.tables            # prints them
    python -m benchmarks.tables --write    # puts them into README.md, between their markers

A test checks that the README says what this module makes of the files, so a number there has a run behind it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import command
from experiments import mnist_quadrants as quadrants
from experiments import quadrants_ablation as ablation

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"


@dataclass(frozen=True)
class Settings:
    """Options."""

    write: bool = False
    """put the tables into README.md instead of printing them"""


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def source(path: Path) -> str:
    """One sentence of where a file's figures came from."""
    record = _read(path)
    machine = record["machine"]
    device = f", {', '.join(machine['devices'])}" if machine["devices"] != ["cpu"] else ""
    name = path.relative_to(ROOT)
    return (
        f"[`{name}`]({name}): {machine['cores']} core{'s' * (machine['cores'] > 1)} of an {machine['cpu']}{device}, "
        f"JAX {record['versions']['jax']}, commit `{record['commit'][:7]}`"
    )


def mnist_label() -> str:
    """Scores of the article's experiment on every data set that has results."""
    lines = [
        "| test split, nats per picture | loss | log-likelihood | KL | training |",
        "|---|---:|---:|---:|---:|",
    ]
    sources = []
    for folder in sorted(RESULTS.glob("mnist_label*"), key=lambda folder: (folder.name != "mnist_label", folder.name)):
        summary = _read(folder / "summary.json")
        for name, row in summary["test"].items():
            loss = f"{row['loss']:.2f} ± {row['standard_error']:.2f}"
            terms = f"{row['log_likelihood']:.2f} | {row['kl']:.2f} | {summary['seconds'][name]:.0f} s"
            lines.append(f"| {summary['dataset']}, {name.upper()} | {loss} | {terms} |")
        options = "" if summary["dataset"] == "mnist" else f" --dataset {summary['dataset']}"
        sources.append(
            f"- `python -m experiments.mnist_label{options}`, {summary['seconds']['total']:.0f} s in all: "
            f"{source(folder / 'summary.json')}."
        )
    note = "± is the standard error over the test pictures; one sample of z a picture; grey targets."
    return "\n".join([*lines, "", note, "", *sources])


def epoch() -> str:
    """Seconds an epoch beside peers."""
    path = RESULTS / "benchmark_epoch.json"
    record = _read(path)
    lines = [
        "| an epoch of 55,000 pictures | batch | seconds | times this project's | times the floor |",
        "|---|---:|---:|---:|---:|",
    ]
    names = {
        "cvae": "this project",
        "pytorch": "PyTorch, eager, DataLoader",
        "pytorch_fused": "PyTorch, the same with a fused Adam",
        "keras": "Keras 3 on JAX",
        "floor": "the arithmetic alone",
    }
    for batch, summary in record["results"].items():
        for name, row in summary.items():
            ratios = f"{row['over_cvae']:.2f} | {row['over_floor']:.2f}"
            lines.append(f"| {names[name]} | {batch} | {row['median']:.2f} | {ratios} |")
    note = (
        f"`python -m benchmarks.epoch --rounds {record['config']['rounds']}`, medians of rounds taken in turn: "
        f"{source(path)}. "
        "The floor is the epoch's matrix products at the rate of one large product."
    )
    return "\n".join([*lines, "", note])


def _estimate(estimate: dict[str, float], digits: int = 2, scale: float = 1.0) -> str:
    return f"{scale * estimate['value']:.{digits}f} ± {scale * estimate['standard_error']:.{digits}f}"


LIKELIHOOD = {"mnist_likelihood": "dynamic", "mnist_likelihood_static": "static"}  # folder of results: targets


def mnist_likelihood() -> str:
    """Everything that is measured of the label-conditional model."""
    folders = [RESULTS / folder for folder in LIKELIHOOD if (RESULTS / folder / "summary.json").exists()]
    columns = [_likelihood(folder) for folder in folders]
    kinds = [LIKELIHOOD[folder.name] for folder in folders]
    lines = [
        f"| mnist, test split | {' | '.join(f'{kind} targets' for kind in kinds)} |",
        f"|---|{'---:|' * len(columns)}",
        *(f"| {words} | {' | '.join(column.get(words, '-') for column in columns)} |" for words in columns[0]),
    ]
    commands = {"dynamic": "", "static": " --targets static --out runs/mnist_likelihood_static"}
    sources = [
        f"- `python -m experiments.mnist_likelihood{commands[kind]}`, "
        f"{_read(folder / 'summary.json')['seconds']['cvae'] / 60:.0f} minutes of training: "
        f"{source(folder / 'summary.json')}."
        for folder, kind in zip(folders, kinds, strict=True)
    ]
    others = _read(folders[0] / "summary.json")["test"]["cvae"]["classification"]["num_samples"]
    note = (
        "Targets of training are drawn by their grey levels afresh each epoch (dynamic) or once (static: not the file "
        "that is often meant by it, which was drawn by others), those of the test split once. p(x) is the mean over "
        "the labels of p(x \\| y), of which the right one has the samples that are named, and the others have "
        f"{others}. ± is the standard error over the test pictures. Diversity is the mean distance of two pictures of "
        "a class; generated ones are means of p(x \\| z, y), without the noise of single pixels. The judge is a "
        "support vector machine trained on real pictures."
    )
    return "\n".join([*lines, "", note, "", *sources])


def _likelihood(folder: Path) -> dict[str, str]:
    """The column of a label-conditional model: what is measured, and what it came to."""
    summary, config = _read(folder / "summary.json"), _read(folder / "config.json")
    row, architecture = summary["test"]["cvae"], config["models"]["cvae"]
    classification, agreement, diversity = row["classification"], row["agreement"], row["diversity"]
    few, many = row["of_first_pictures"]["few"], row["of_first_pictures"]["many"]

    def nats(estimate: dict[str, float]) -> str:
        return f"{_estimate(estimate | {'value': -estimate['value']})} nats"

    first = f"first {many['examples']:,} pictures"
    scored = {
        f"{row['num_samples']:,} importance samples": row,
        f"{first}, {row['num_samples']:,} samples": few,
        f"{first}, {many['num_samples']:,} samples": many,
    }
    return {
        f"{density}, {words}": nats(found[name])
        for density, name in (("-log p(x \\| y)", "log_likelihood"), ("-log p(x)", "log_marginal"))
        for words, found in scored.items()
        if name in found
    } | {
        "-ELBO of p(x \\| y) = rate + distortion": nats(row["elbo"]),
        "rate, KL": f"{_estimate(row['rate'])} nats",
        "distortion": f"{_estimate(row['distortion'])} nats",
        f"active units of {architecture['latent_size']}": f"{row['active_units']['active']}",
        f"classified rightly by argmax_y log p(x \\| y), {classification['num_samples']} samples": (
            f"{_estimate(classification['accuracy'], scale=100)} %"
        ),
        "expected calibration error": f"{_estimate(classification['expected_calibration_error'], scale=100)} %",
        "generated digits that a judge reads as asked": f"{_estimate(agreement['generated'], scale=100)} %",
        "real digits that the same judge reads rightly": f"{_estimate(agreement['real'], scale=100)} %",
        "diversity within a class, generated": f"{diversity['generated']['value']:.1f}",
        "diversity within a class, real": f"{diversity['real']['value']:.1f}",
    }


def mnist_fidelity() -> str:
    """Agreement and diversity over the prior's temperature."""
    path = RESULTS / "mnist_likelihood_fidelity" / "summary.json"
    summary = _read(path)
    lines = ["| pictures | read as asked | diversity within a class |", "|---|---:|---:|"]
    rows = [(f"generated, temperature {row['temperature']:g}", row) for row in summary["generated"]]
    for name, row in [*rows, ("real, test split", summary["real"])]:
        lines.append(f"| {name} | {_estimate(row['agreement'], scale=100)} % | {row['diversity']['value']:.1f} |")
    note = f"`python -m experiments.mnist_fidelity`, of the model above: {source(path)}."
    return "\n".join([*lines, "", note])


def mnist_attribute() -> str:
    """What is asked of generated digits against what is measured on them."""
    path = RESULTS / "mnist_attribute" / "summary.json"
    summary = _read(path)
    names = {"attribute": "thickness and slant", "attribute_label": "thickness, slant and label"}
    lines = [
        "| told | -log p(x \\| c) | thickness: r | off by | slant: r | off by | active units |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in summary["test"].items():
        negative = {"value": -row["log_likelihood"]["value"], "standard_error": row["log_likelihood"]["standard_error"]}
        r, error = row["correlation"], row["mean_absolute_error"]
        lines.append(
            f"| {names[name]} | {_estimate(negative)} | {_estimate(r['thickness'], 4)} | "
            f"{error['thickness_px']['value']:.2f} px | {_estimate(r['slant'], 4)} | "
            f"{error['slant_degrees']['value']:.1f}° | {row['active_units']['active']} |"
        )
    first = next(iter(summary["test"].values()))
    note = (
        f"`python -m experiments.mnist_attribute`: {source(path)}. {first['examples']:,} generated digits, asked for "
        "the attributes of the test pictures; r is Pearson's; nats of grey targets, "
        f"{first['num_samples']} importance samples."
    )
    return "\n".join([*lines, "", note])


def mnist_inpaint() -> str:
    """Nats of the hidden part of a picture."""
    path = RESULTS / "mnist_inpaint" / "summary.json"
    summary = _read(path)
    row = summary["test"]["cvae"]
    lines = ["| hidden pixels of test pictures | nats a picture | nats a hidden pixel |", "|---|---:|---:|"]
    for name, words, sign in (
        ("log_likelihood", f"-log p(x \\| c), {row['num_samples']} importance samples", -1),
        ("elbo", "-ELBO = rate + distortion", -1),
        ("rate", "rate", 1),
        ("distortion", "distortion", 1),
    ):
        cells = []
        for digits, estimate in ((2, row[name]), (4, row["per_hidden_pixel"][name])):
            turned = {"value": sign * estimate["value"], "standard_error": estimate["standard_error"]}
            cells.append(_estimate(turned, digits))
        lines.append(f"| {words} | {cells[0]} | {cells[1]} |")
    note = (
        f"`python -m experiments.mnist_inpaint`, {summary['seconds']['cvae'] / 60:.1f} minutes of training: "
        f"{source(path)}. The bottom left quadrant is seen; {row['hidden_pixels']['value']:.0f} pixels are hidden, "
        "black or white, drawn once."
    )
    return "\n".join([*lines, "", note])


# As commonly cited: Sohn, Lee & Yan 2015, table 2.
PAPER = {
    ("deterministic", "exact"): ("99.75", "62.18", "25.99"),
    ("gsnn", "Monte Carlo"): ("99.82", "62.41", "26.29"),
    ("cvae", "Monte Carlo"): ("68.39", "45.34", "20.96"),
    ("cvae", "importance sampling"): ("63.91", "44.73", "20.95"),
}
COLUMNS = ("quadrants_1", "quadrants_2", "quadrants_3")


QUADRANTS = {  # folder of results: what is seen
    "mnist_quadrants": "grey levels",
    "mnist_quadrants_drawn": "drawn black or white too",
}
ROWS = {
    "deterministic": "of the paper's size: deterministic network",
    "gsnn": "of the paper's size: GSNN",
    "cvae": "of the paper's size: CVAE",
    "residual": "residual CVAE",
    "record": "larger residual CVAE",
}
ESTIMATES = {
    "exact": "exact",
    "monte_carlo_100": "Monte Carlo, S = 100",
    "monte_carlo_100_of_first": "Monte Carlo, S = 100",
    "monte_carlo_5000": "Monte Carlo, S = 5,000",
    "importance_sampling_100": "importance sampling, S = 100",
    "importance_sampling_100_of_first": "importance sampling, S = 100",
    "importance_sampling_5000": "importance sampling, S = 5,000",
}


def _quadrants(folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The runs of a folder of results, by row and task."""
    return {(record["row"], record["task"]): record for record in quadrants.collect(RESULTS / folder)}


def _layers(folder: str, row: str) -> int:
    """Layers of latents of a row's network, the same in every column."""
    (layers,) = {
        _read(path)["models"]["cvae"]["latent_layers"] for path in (RESULTS / folder).glob(f"*/{row}/config.json")
    } or {0}
    return int(layers)


def _kept(folder: str, row: str) -> str:
    """Which epochs of a row's columns were kept: of those with early stopping the one that validated best."""
    words = []
    for task in COLUMNS:
        run = RESULTS / folder / task / row
        if (run / "summary.json").exists():
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            stops = _read(run / "config.json")["training"]["patience"] is not None
            best = min(lines, key=lambda line: line["validation"]["loss"]) if stops else lines[-1]
            rule = "validated best" if stops else "the last"
            words.append(f"epoch {best['epoch']} of {len(lines)} ({rule})")
    return f"Of the {ROWS[row]} was kept {', '.join(words)}. " if words else ""


def _words(folder: str, row: str) -> str:
    """What a row is; of several layers of latents, how many."""
    layers = _layers(folder, row)
    return f"{ROWS[row]}, {layers} layers of latents" if layers > 1 else ROWS[row]


def _cells(records: list[dict[str, Any]], name: str) -> list[str]:
    return [f"{r[name]:.2f} ± {r[name + '_error']:.2f}" if name in r else "-" for r in records]


def _machines(*folders: str) -> str:
    """Where the runs of these folders of results were made: a sentence for every machine, with its commits."""
    paths = [path for folder in folders for path in sorted((RESULTS / folder).glob("*/*/summary.json"))]
    commits: dict[str, list[str]] = {}
    for machine, commit in sorted({tuple(source(path).split(": ", 1)[1].rsplit(", commit ", 1)) for path in paths}):
        commits.setdefault(machine, []).append(commit)
    return "; ".join(f"{on}, commit{'s' * (len(which) > 1)} {', '.join(which)}" for on, which in commits.items())


def mnist_quadrants() -> str:
    """The table of the 2015 paper beside this project's."""
    lines = [
        "| nats of the missing pixels, test split | what is seen | 1 quadrant seen | 2 quadrants | 3 quadrants |",
        "|---|---|---:|---:|---:|",
    ]
    named = {"deterministic": "deterministic network", "gsnn": "GSNN", "cvae": "CVAE"}
    for (row, estimate), published in PAPER.items():
        lines.append(f"| paper: {named[row]}, {estimate} | not said | {' | '.join(published)} |")
    minutes = []
    for folder, seen in QUADRANTS.items():
        records = _quadrants(folder)
        for row in ROWS:
            found = [records.get((row, task), {}) for task in COLUMNS]
            words = _words(folder, row)
            for name, estimate in ESTIMATES.items():
                counts = {f"{record[f'{name}_pictures']:,}" for record in found if name in record}
                if counts:
                    bold = "**" if name == "importance_sampling_100" and row in ("residual", "record") else ""
                    first = (
                        "" if counts == {f"{EVERY_PICTURE:,}"} else f", first {' or '.join(sorted(counts))} pictures"
                    )
                    cells = " | ".join(_cells(found, name))
                    lines.append(f"| {bold}{words}, {estimate}{first}{bold} | {seen} | {cells} |")
            spent = [f"{record['training_seconds'] / 60:.0f}" for record in found if record]
            minutes += [f"{words} ({seen}) {', '.join(spent)}"] if spent else []
    layers = _layers("mnist_quadrants_drawn", "residual")
    kept = _kept("mnist_quadrants", "record")
    note = (
        "`python -m experiments.mnist_quadrants`; where what is seen was drawn, "
        f"with `--seen drawn --rows deterministic residual --latent-layers {layers} "
        "--out runs/mnist_quadrants_drawn`. A file for every row and "
        "column is under [`results/mnist_quadrants`](results/mnist_quadrants) and "
        f"[`results/mnist_quadrants_drawn`](results/mnist_quadrants_drawn): {_machines(*QUADRANTS)}. ± is the standard "
        f"error over the test pictures. Minutes of training, a column each: {'; '.join(minutes)}. {kept}"
        "The paper's rows are as commonly cited. It does not say how its pixels were made black or white, nor whether "
        "those that are seen were: its deterministic network agrees with targets drawn by their grey levels, and what "
        "is seen left grey. So this reading was found by comparing scores of the deterministic network on the test "
        "pictures with the paper's; nothing else was chosen on them. Drawn too, they tell less, and every score is "
        "higher."
    )
    return "\n".join([*lines, "", note])


TOP = {"Gumbel-softmax (Jang, Gu & Poole 2017)": "58.5", "MuProp (Gu et al. 2016)": "54.4"}
EVERY_PICTURE = 10_000  # of the test split
PYRO = ("71.8", "51.0", "24.2")


def mnist_quadrants_grey() -> str:
    """Grey targets scored by the ELBO, beside Pyro's tutorial."""
    records = _quadrants("mnist_quadrants_grey")
    found = [records.get(("residual", task), {}) for task in COLUMNS]
    lines = [
        "| -ELBO of the missing pixels, grey targets, test split | 1 quadrant seen | 2 quadrants | 3 quadrants |",
        "|---|---:|---:|---:|",
        f"| Pyro's tutorial | {' | '.join(PYRO)} |",
        f"| the default CVAE, {found[0]['epochs']} epochs | {' | '.join(_cells(found, 'negative_elbo'))} |",
    ]
    note = (
        f"`python -m experiments.mnist_quadrants --rows residual --protocol grey --epochs {found[0]['epochs']} "
        f"--out runs/mnist_quadrants_grey`: {_machines('mnist_quadrants_grey')}. Ten samples of z a picture; ± is the "
        "standard error over 10,000 test pictures. This number is no log-likelihood: the cross-entropy of a grey level "
        "is not a normalised density, and is never below the level's own entropy, which no model can predict away. The "
        "tutorial's numbers are of the set on which it stops early; on the test pictures nothing was chosen here."
    )
    return "\n".join([*lines, "", note])


def sweep_latent() -> str:
    """Latent size by conditioning type."""
    path = RESULTS / "sweep_latent" / "summary.json"
    summary = _read(path)
    lines = [
        "| told | latents | log p(x \\| c) | rate | distortion | active units | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    rows = summary["results"]
    for row in rows:
        cells = [
            f"{row[quantity]['mean']:.{digits}f} ± {row[quantity]['std']:.{digits}f}"
            for quantity, digits in (("log_likelihood", 2), ("rate", 2), ("distortion", 2), ("active_units", 1))
        ]
        lines.append(
            f"| {row['condition']} | {row['latent_size']} | {' | '.join(cells)} | {row['seconds']['mean']:.0f} |"
        )
    note = (
        f"`python -m experiments.sweep_latent`: {source(path)}. Test split, nats per picture, grey targets; ± is the "
        f"standard deviation over {rows[0]['seeds']} seeds; {summary['num_samples']} importance samples, "
        f"whose standard error over pictures is {max(row['standard_error'] for row in rows):.2f} at most; "
        "seconds of training."
    )
    return "\n".join([*lines, "", note])


def speed() -> str:
    """What a sweep and importance sampling cost."""
    sweep, scoring = RESULTS / "benchmark_sweep.json", RESULTS / "benchmark_likelihood.json"
    record, scored = _read(sweep), _read(scoring)
    config, result = record["config"], scored["results"]
    members = len(config["latent_sizes"]) * len(config["seeds"])
    lines = ["| | seconds | sweep over this | programs |", "|---|---:|---:|---:|"]
    words = {
        "sweep": "one sweep",
        "masked": "the same members one by one, nothing recompiled",
        "own": "models of each member's own size, nothing recompiled",
    }
    for condition, rows in record["results"].items():
        for name, row in rows.items():
            ratio = f"{row['sweep_over_this']:.2f}" if name != "sweep" else "1.00"
            told = "told the label" if condition == "label" else "told nothing"
            lines.append(
                f"| {members} members {told}: {words[name]} | {row['median']:.1f} | {ratio} | {row['programs']} |"
            )
    notes = [
        f"- `python -m benchmarks.sweep --examples {config['examples']} --epochs {config['epochs']}`, a member each, "
        f"medians of {config['rounds']} rounds: {source(sweep)}.",
        f"- `python -m benchmarks.likelihood --rounds {scored['config']['rounds']}`: "
        f"log p(x \\| y) of {scored['config']['examples']:,} pictures, "
        f"{scored['config']['num_samples']} samples each, at the article's size: {result['median']:.1f} s, "
        f"{result['over_floor']:.2f} times the floor of its matrix products, {result['peak_memory_gb']:.2f} GB at "
        f"most: {source(scoring)}.",
    ]
    return "\n".join([*lines, "", *notes])


def survival() -> str:
    """What was done to runs, files and signs, and what came of it."""
    rows: dict[str, str] = {}
    sources = []
    of_files = {
        "survival": _killed,
        "full_disk": _filled,
        "fuzz": _damaged,
        "properties": _held,
        "mutations": _turned,
        "saving": _saved,
    }
    for name, row in of_files.items():
        path = RESULTS / f"benchmark_{name}.json"
        if path.exists():
            rows |= row(_read(path))
            sources.append(f"- `python -m benchmarks.{name}`: {source(path)}.")
    lines = ["| what was done | |", "|---|---:|", *(f"| {what} | {came} |" for what, came in rows.items())]
    return "\n".join([*lines, "", *sources])


def _killed(record: dict[str, Any]) -> dict[str, str]:
    found = record["results"]
    what = f"runs killed at random instants, {found['kills']} times in all: called again, they end at the same bits"
    return {what: f"{found['same']} of {found['runs']}"}


def _filled(record: dict[str, Any]) -> dict[str, str]:
    found = record["results"]
    what = (
        f"a disk of {found['disk_bytes'] / 2**20:.0f} MiB filled up in the middle of a run, which ends with one "
        f"sentence: the checkpoints before are whole (the newest of epoch {found['newest']}), and called again with "
        "room it ends at the same bits"
    )
    return {what: "yes" if found["refused"] and found["newest"] > 0 and found["same"] else "no"}


def _held(record: dict[str, Any]) -> dict[str, str]:
    properties = record["results"]["properties"].values()
    right = f"{len(properties)} of {len(properties)}" if record["results"]["held"] else "not all"
    what = (
        "properties of public functions, given arrays of any shape, dtype and value: the right answer, or a "
        f"`ValueError` that names the argument, in {sum(each['passed'] for each in properties):,} cases"
    )
    return {what: right}


def _damaged(record: dict[str, Any]) -> dict[str, str]:
    found, files = record["results"], record["config"]["files"]
    right = sum(kind["read"] + kind["refused"] for kind in found["kinds"].values())
    what = (
        "damaged and hostile files: read, or refused in one line, within a second and 1 GB (the slowest "
        f"{found['slowest_seconds']:.2f} s, {found['peak_memory_gb']:.2f} GB at most)"
    )
    return {what: f"{right:,} of {files:,}"}


def _turned(record: dict[str, Any]) -> dict[str, str]:
    found = record["results"]
    what = "signs turned in the KL, the ELBO and the importance weights, one at a time: the tests notice"
    return {what: f"{found['caught']} of {found['mutants']}"}


def _saved(record: dict[str, Any]) -> dict[str, str]:
    found = record["results"]
    clocks = found["wall"], found["processors"]
    examples, rounds = record["config"]["examples"], record["config"]["rounds"]
    of_epoch = f"of an epoch of {examples:,} pictures of the article's model, wall / processors"
    means = " / ".join(f"{clock['mean'] - 1:.1%} ± {clock['standard_error']:.1%}" for clock in clocks)
    return {
        f"saving after every epoch, share {of_epoch}: a save alone": " / ".join(f"{c['share']:.1%}" for c in clocks),
        f"the same, by comparing neighbouring epochs, median of {rounds} (mean {means})": " / ".join(
            f"{clock['ratio'] - 1:.1%}" for clock in clocks
        ),
    }


def quadrants_ablation() -> str:
    """The default of the quadrants with one change at a time."""
    folder = RESULTS / "quadrants_ablation"
    rows = ablation.collect(folder)
    config = _read(next(folder.glob("default/*/residual/config.json")))
    machines = _machines(*(f"quadrants_ablation/{row['variant']}" for row in rows))
    note = (
        f"`python -m experiments.quadrants_ablation --epochs {config['training']['epochs']}`: {machines}. "
        f"{quadrants.SEEN[rows[0]['task']]}, nats of the missing pixels, 10,000 validation pictures, S = 100. ± is the "
        "standard error over the pictures; differences on the same pictures are known far better than that. "
        "Regularisation pays later than after so few epochs. The hybrid and the GSNN are trained for what single "
        "draws from the prior predict on average, of which a likelihood, by either estimate, says little."
    )
    return "\n".join([ablation.markdown(rows, times=False), note])


def mnist_top() -> str:
    """The bottom half from the top, beside what is published."""
    records = _quadrants("mnist_quadrants_top")
    lines = ["| nats of the bottom half given the top, test split | |", "|---|---:|"]
    lines += [f"| {words} | {value} |" for words, value in TOP.items()]
    for row in ROWS:
        record = records.get((row, "top_half"), {})
        for name, estimate in ESTIMATES.items():
            if name in record and record[f"{name}_pictures"] == EVERY_PICTURE:
                lines.append(f"| {_words('mnist_quadrants_top', row)}, {estimate} | {_cells([record], name)[0]} |")
    note = (
        "`python -m experiments.mnist_quadrants --task top --rows deterministic residual --out "
        f"runs/mnist_quadrants_top`: {_machines('mnist_quadrants_top')}. The published figures are of small "
        "networks of binary latents and of other binarisations, MuProp's chosen on the test split: landmarks, no race."
    )
    return "\n".join([*lines, "", note])


TABLES = {
    table.__name__: table
    for table in (
        mnist_label,
        mnist_likelihood,
        mnist_fidelity,
        mnist_attribute,
        mnist_quadrants,
        mnist_quadrants_grey,
        mnist_top,
        quadrants_ablation,
        mnist_inpaint,
        sweep_latent,
        speed,
        epoch,
        survival,
    )
}


def fill(readme: str) -> str:
    """The README with every table between its markers made anew."""
    for name, table in TABLES.items():
        marked = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(marked.findall(readme)) != 1:
            raise ValueError(f"README.md must hold the markers of table {name} once")
        text = table().replace("\\", r"\\")
        readme = marked.sub(rf"\g<1>{text}\n\g<2>", readme)
    return readme


def main(settings: Settings) -> None:
    """Print the tables or write them."""
    path = ROOT / "README.md"
    if settings.write:
        path.write_text(fill(path.read_text()))
    else:
        print("\n\n".join(table() for table in TABLES.values()))


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
