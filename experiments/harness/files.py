"""Files of rows that commands on a fitted model read and write: tables as `.csv` and `.parquet`, arrays as `.npz`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

import cvae
from cvae import checks, plotting
from cvae.config import Architecture
from cvae.data import npz_names, read_npz
from cvae.tables import SUFFIXES

COLUMNS = 10  # images side by side
LARGE = 1e5  # numbers that are printed with all their digits


def check_kind(architecture: Architecture, path: Path) -> None:
    """Refuse a file of another kind than the model was fitted to."""
    table = architecture.schema is not None
    what = "a table, .csv or .parquet," if table else "an .npz file of arrays,"
    kinds = SUFFIXES if table else (".npz",)
    checks.require(path.suffix in kinds, str(path), f"be {what} as the model was fitted to", f"a {path.suffix} file")


class Examples(NamedTuple):
    """The examples in a file: a table, or the arrays x and c."""

    x: Any
    c: Any = None
    name: str = "x"  # of the array of examples in the file
    shape: tuple[int, ...] | None = None  # of an example there

    def as_file(self, rows: Any) -> Any:
        """Rows with the name, dtype and shape of the array x in the file, and single numbers as [N]."""
        if not isinstance(rows, dict):
            return rows
        x = rows["x"]
        if self.shape is not None:
            x = in_dtype(x, self.x.dtype).reshape(-1, *self.shape)
        c = {name: each[:, 0] if each.shape[1:] == (1,) else each for name, each in rows.items() if name != "x"}
        return {self.name: x, **c}


def read(architecture: Architecture, path: Path, x: str | None, without: str | None = None) -> Examples:
    """The examples in a file as the functions of `cvae.use` take them.

    Args:
        architecture: of the model.
        path: the file.
        x: name of the array of examples; None if only one has their shape.
        without: name of a condition that need not be there.

    Raises:
        ValueError: it cannot be read, or lacks an array.
    """
    if architecture.schema is not None:
        return Examples(architecture.schema.read(path))
    arrays, event = read_npz(path), architecture.event_shape
    fitting = [name for name, each in arrays.items() if _as_event(each, event).shape[1:] == event]
    names = [name for name in fitting if name not in architecture.condition.spec] if x is None else [x]
    rule = f"name an array of {path} of shape [N, {', '.join(map(str, event))}], one of {fitting}"
    checks.require(len(names) == 1 and names[0] in fitting, "--x", rule, x or "none")
    examples = _as_event(arrays[names[0]], event)
    c = {}
    for name, spec in architecture.condition.spec.items():
        if name == without:
            continue
        held = name in arrays or spec.kind == "pixels"
        checks.require(held, str(path), f"hold the condition {name!r}", f"arrays {list(npz_names(path))}")
        values = _as_event(arrays[name], spec.shape) if name in arrays else examples
        is_label = spec.kind == "integer" and values.dtype.kind in "iufb" and bool((values == np.rint(values)).all())
        c[name] = values.astype(np.int32) if is_label else values
    return Examples(examples, c, names[0], arrays[names[0]].shape[1:])


def _as_event(array: np.ndarray, event: tuple[int, ...]) -> np.ndarray:
    """The array with a last axis of 1 where it lacks that: a channel of images, or a column of numbers."""
    return array[..., None] if array.shape[1:] == event[:-1] and event[-1:] == (1,) else array


def check_out(path: Path, suffixes: tuple[str, ...], source: Path | None = None) -> None:
    """Refuse a path that cannot be written, or is the file that is read; writes nothing."""
    checks.require(path.suffix in suffixes, "--out", f"end in {' or '.join(suffixes)}", repr(str(path)))
    checks.require(not path.is_dir(), "--out", "be a file", f"a folder at {path}")
    same = source is not None and path.resolve() == source.resolve()
    checks.require(not same, "--out", "be another file than the one that is read", path)
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    usable = parent.is_dir() and os.access(parent, os.W_OK)
    checks.require(usable, "--out", "be in a folder that can be written to", path)


def write(path: Path, rows: Any) -> None:
    """Write a data frame or a dict of arrays in one step: the file is there whole, or as it was before.

    Raises:
        OSError: it cannot be written; names the file.
    """
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            write_images(unfinished, next(iter(rows.values())))
        elif path.suffix == ".npz":
            np.savez(unfinished, **rows)
        elif path.suffix == ".parquet":
            rows.write_parquet(unfinished)
        else:
            rows.write_csv(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_images(path: Path, images: np.ndarray) -> None:
    """A PNG of images [N, H, W, 1], ten to a row; the last row is filled up with white."""
    columns = min(COLUMNS, len(images))
    empty = np.zeros((-len(images) % columns, *images.shape[1:]))
    tiles = np.concatenate([images, empty]).reshape(-1, columns, *images.shape[1:])
    plotting.write(path, tiles)


def in_dtype(x: np.ndarray, dtype: Any) -> np.ndarray:
    """Rows in the dtype of a file: 255ths as uint8, and whole numbers rounded."""
    if dtype == np.uint8:
        x = 255 * x
    return x.astype(dtype) if np.dtype(dtype).kind == "f" else np.rint(x).astype(dtype)


def preview(rows: Any, count: int = 5) -> str:
    """The first rows of a table, or the shapes of arrays, as they are printed."""
    from experiments.harness.tables import render

    if not isinstance(rows, pl.DataFrame):
        lines = [[name, str(values.dtype), str(values.shape)] for name, values in rows.items()]
        return render(["array", "dtype", "shape"], lines, text_columns=2)
    shown = rows.head(count)
    body = [[_cell(value) for value in row] for row in shown.iter_rows()]
    text = render(shown.columns, body, text_columns=0)
    return text if len(rows) <= count else f"{text}\n... {len(rows) - count:,} more"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) and abs(value) < LARGE else str(value)


def summary_settings(run: Path) -> dict[str, Any]:
    """The settings of the command that made a run, or nothing for a model that `cvae.save` wrote."""
    if not (run / "summary.json").is_file():
        return {}
    return dict(cvae.runs.read_summary(run).get("settings") or {})
