"""The README says what is true: its tables, its example, its map, its pictures, its refusals."""

import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import cvae
from benchmarks import tables
from experiments import study
from tests.test_house import FLOORS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_tables_say_what_the_results_say():
    assert tables.fill(README) == README


def test_a_changed_number_would_be_noticed():
    loss = f"{json.loads((ROOT / 'results/mnist_label/summary.json').read_text())['test']['cvae']['loss']:.2f}"
    assert README.count(loss) == 1
    forged = README.replace(loss, f"{float(loss) - 1:.2f}")
    assert tables.fill(forged) == README != forged


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("*.json")), ids=lambda path: path.parent.name)
def test_results_say_where_they_came_from(path):
    record = json.loads(path.read_text())
    if path.name == "config.json":
        assert cvae.runs.from_json(cvae.config.Config, record)
        return
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"]), "a result must come from a commit, not from a dirty tree"
    assert {"date", "versions", "machine"} <= set(record)
    assert "config" in record or (path.parent / "config.json").is_file()


def test_notebook_example_runs_as_written():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert code.count("\n") <= 12
    names = {}
    exec(code, names)
    assert names["terms"].value.shape == (500,)
    assert names["pictures"].shape == (12, 1, 8, 8, 1)
    # Worth looking at: far better than the mean picture, and every seven another.
    assert names["history"][-1].train.loss < 24
    assert len(np.unique(np.asarray(names["pictures"])[:, 0, 4, 4, 0])) == 12


def test_map_names_every_room():
    written = {room: int(floor) for floor, room in re.findall(r"^\| (\d) \| `cvae/(\w+)\.py`", README, re.MULTILINE)}
    assert written == FLOORS


def test_pictures_and_links_are_there():
    linked = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len([link for link in linked if link.endswith(".png")]) >= 3
    for link in linked:
        assert (ROOT / link).exists(), link


def test_refusals_read_as_promised():
    model = cvae.make(cvae.Architecture((28, 28, 1), cvae.Label(10), 2, (4,)))
    params, x = model.init(jax.random.key(0)), np.zeros((4, 28, 28, 1), np.float32)
    refused = []
    for pixels, c in [
        (x, {"label": np.array([1, 2, 3, 12])}),
        (x[:3], {"label": np.eye(10, dtype=np.float32)[:3]}),
        (np.linspace(0, 255, x.size, dtype=np.float32).reshape(x.shape), {"label": np.arange(4)}),
        (x[:3].reshape(3, 784), {"label": np.arange(3)}),
        (x, {"label": np.arange(4), "age": np.arange(4)}),
    ]:
        with pytest.raises(ValueError, match="must") as error:
            model.encode(params, pixels, c)
        refused.append(str(error.value))
    with pytest.raises(ValueError, match="latents") as error:
        study.check_latents(0)
    refused.append(f"error: {error.value}")
    with pytest.raises(ValueError, match="observed") as error:
        cvae.Image((2, 2, 1), "given").check_stored({"observed": np.ones((4, 2, 2, 1), bool)}, batch=4)
    refused.append(str(error.value))
    with pytest.raises(ValueError, match="vary") as error:
        cvae.Continuous.fitted(np.full((4, 1), 40.0), "age")
    refused.append(str(error.value))
    for message in refused:
        assert f"| `{message}` |" in README


def test_what_ends_a_run_reads_as_promised(tmp_path):
    terms = np.ones((300, 3))
    terms[207:] = np.nan
    with pytest.raises(FloatingPointError) as error:
        cvae.training.means(terms, 1)
    assert f"| `error: {error.value}` |" in README
    held = re.search(
        r"\| `error: (run folder must be free, got )runs/mnist_label(, held by process )\d+ since \S+` \|", README
    )
    with cvae.runs.Lock(tmp_path), pytest.raises(ValueError, match=f"{held[1]}{tmp_path}{held[2]}{os.getpid()} since"):
        cvae.runs.Lock(tmp_path)


def test_a_name_the_file_lacks_is_refused_as_promised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", pixels=np.zeros((4, 2, 2), np.uint8), digit=np.arange(4), age=np.arange(4.0))
    with pytest.raises(ValueError, match="did you mean") as error:
        cvae.arrays.read("mine.npz", ["pixels", "digits"])
    assert f"| `error: {error.value}` |" in README
