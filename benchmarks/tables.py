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
        f"[`{name}`]({name}): {machine['cores']} cores of an {machine['cpu']}{device}, "
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


def mnist_likelihood() -> str:
    """Everything that is measured of the label-conditional model."""
    path = RESULTS / "mnist_likelihood" / "summary.json"
    summary = _read(path)
    row, config = summary["test"]["cvae"], _read(path.parent / "config.json")
    architecture = config["models"]["cvae"]
    classification, agreement, diversity = row["classification"], row["agreement"], row["diversity"]
    negative = {"value": -row["log_likelihood"]["value"], "standard_error": row["log_likelihood"]["standard_error"]}
    loss = {"value": -row["elbo"]["value"], "standard_error": row["elbo"]["standard_error"]}
    lines = [
        f"| {summary['dataset']}, test split | |",
        "|---|---:|",
        f"| -log p(x \\| y), {row['num_samples']} importance samples | {_estimate(negative)} nats |",
        f"| -ELBO = rate + distortion | {_estimate(loss)} nats |",
        f"| rate, KL | {_estimate(row['rate'])} nats |",
        f"| distortion | {_estimate(row['distortion'])} nats |",
        f"| active units of {architecture['latent_size']} | {row['active_units']['active']} |",
        f"| classified rightly by argmax_y log p(x \\| y), {classification['num_samples']} samples | "
        f"{_estimate(classification['accuracy'], scale=100)} % |",
        f"| expected calibration error | {_estimate(classification['expected_calibration_error'], scale=100)} % |",
        f"| generated digits that a judge reads as asked | {_estimate(agreement['generated'], scale=100)} % |",
        f"| real digits that the same judge reads rightly | {_estimate(agreement['real'], scale=100)} % |",
        f"| diversity within a class, generated | {_estimate(diversity['generated'])} |",
        f"| diversity within a class, real | {_estimate(diversity['real'])} |",
    ]
    note = (
        f"`python -m experiments.mnist_likelihood`, {summary['seconds']['cvae'] / 60:.1f} minutes of training: "
        f"{source(path)}. Targets drawn afresh each epoch for training, once for the test split. ± is the standard "
        "error. Diversity is the mean distance of two pictures of a class; generated ones are means of p(x \\| z, y), "
        "without the noise of single pixels. The judge is a support vector machine trained on real pictures."
    )
    return "\n".join([*lines, "", note])


TABLES = {"mnist_label": mnist_label, "mnist_likelihood": mnist_likelihood, "epoch": epoch}


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
