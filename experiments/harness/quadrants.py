"""The results of many runs of `mnist_quadrants` in one table, from their summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from cvae import runs
from experiments.harness import tables

ColumnName = Literal["quadrants_1", "quadrants_2", "quadrants_3", "top_half"]
RowName = Literal["deterministic", "gsnn", "cvae", "residual", "record"]
COLUMNS: dict[ColumnName, str] = {
    "quadrants_1": "1 quadrant observed",
    "quadrants_2": "2 quadrants observed",
    "quadrants_3": "3 quadrants observed",
    "top_half": "top half observed",
}
METHODS = {"posterior": "importance_sampling", "prior": "monte_carlo", "mixture": "mixture_sampling"}  # by proposal
WORDS = {"importance_sampling": "IS", "monte_carlo": "MC", "mixture_sampling": "mixture"}
WHOLE = {"exact": "exact", "negative_elbo": "-ELBO with a grey cross-entropy"}  # estimates of one kind
OLD_NAMES = {"nll": "nats", "nll_of_first": "nats_of_first", "pictures": "images"}  # in results before version 0.2


def collect(out: Path) -> list[dict[str, Any]]:
    """A record for every finished run in OUT/TASK/ROW, in the order of the columns and rows."""
    columns, rows = list(COLUMNS), list(get_args(RowName))
    records = [record(runs.read_summary(path.parent)) for path in out.glob("*/*/summary.json")]
    return sorted(records, key=lambda each: (columns.index(each["task"]), rows.index(each["row"])))


def record(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as a flat record: NAME, NAME_error, NAME_images and NAME_effective of every estimate."""
    flat = {name: summary[name] for name in ("task", "row", "split", "epochs", "parameters")}
    flat["training_seconds"], scores = training_seconds(summary), scores_of(summary)
    first = min(score["images"] for score in scores.values())  # those that more samples were drawn for
    for name, score in scores.items():
        estimates = {name: (score["nats"], score["images"])}
        if score["images"] > first:
            estimates[f"{name}_of_first"] = score["nats_of_first"], first
        for key, (nats, count) in estimates.items():
            flat |= {key: nats["value"], f"{key}_error": nats["standard_error"], f"{key}_images": count}
        if score["num_samples"] > 1 and score.get("effective_samples"):
            flat[f"{name}_effective"] = score["effective_samples"]["value"]
    return flat


def scores_of(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a run measured by sampling, by estimate."""
    return {
        name: {OLD_NAMES.get(entry, entry): value for entry, value in score.items()}
        for name, score in summary[summary["split"]].items()
        if "num_samples" in score
    }


def training_seconds(summary: Mapping[str, Any]) -> float:
    """Seconds of training of all models of a run."""
    return round(float(sum(seconds for name, seconds in summary["seconds"].items() if name != "total")), 1)


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as a table: a line for every row and estimate, a column per task."""
    columns = [name for name in COLUMNS if any(each["task"] == name for each in records)]
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for each in records:
        names = [key for key in each if f"{key}_error" in each]
        everything = max(each[f"{name}_images"] for name in names)
        for name in names:
            words, count = describe(name.removesuffix("_of_first")), each[f"{name}_images"]
            words += f", first {count:,} images" if count < everything else ""
            words += ", validation" if each["split"] == "validation" else ""
            cell = tables.FORMATS["nats"]({"value": each[name], "standard_error": each[f"{name}_error"]}, 1)
            cell += f" [{each[f'{name}_effective']:.1f}]" if f"{name}_effective" in each else ""
            lines.setdefault((each["row"], words), {})[each["task"]] = cell
    head = ["row", "nats of the hidden pixels [effective sample size]", *columns]
    body = [[*line, *(cells.get(name, "-") for name in columns)] for line, cells in lines.items()]
    return tables.render(head, body, text_columns=2)


def describe(estimate: str) -> str:
    """The name of an estimate as the table shows it, such as "IS, S = 100"."""
    method, _, samples = estimate.rpartition("_")
    return WHOLE[estimate] if estimate in WHOLE else f"{WORDS[method]}, S = {int(samples):,}"


def write(records: list[dict[str, Any]], out: Path) -> None:
    """Write table.json, table.csv and table.md."""
    runs.write_json(out / "table.json", records)
    (out / "table.md").write_text(markdown(records) + "\n", encoding="utf-8")
    tables.write_csv(out / "table.csv", records)
