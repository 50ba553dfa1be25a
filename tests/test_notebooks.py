"""The notebook runs from top to bottom, and is committed with its outputs, which are small and name no machine.

python -m tests.test_notebooks        # execute it and write it back, after a change
"""

import base64
import json
import os
import unittest.mock
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "notebooks" / "tour.ipynb"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh run in `folder`."""
    notebook = nbformat.read(TOUR, as_version=4)
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
    executed = code_cells(execute(tmp_path))
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


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as empty:
        nbformat.write(execute(Path(empty)), TOUR)
