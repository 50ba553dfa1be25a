"""What commands on a fitted model write: rows in the form of the file that was read, and results with a row for each.

A path says the form: `.csv` and `.parquet` are tables, `.npz` is arrays, `.png` one picture of many images, and a path
without any of these a folder of images with their `labels.csv`.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image

from cvae import checks, plotting
from cvae.data.images import LABELS
from cvae.rows import replaced
from cvae.tables import SUFFIXES
from experiments.harness.files import Examples

COLUMNS = 10  # images side by side
LARGE = 1e5  # numbers that are printed with all their digits
FOLDER = ""  # the suffix of a folder of images
OF_LATENTS = {"mean": "z{}_mean", "std": "z{}_std"}  # the names of columns of arrays [N, K], if not NAME_K


class Folder(NamedTuple):
    """Images, and the table that names them."""

    pixels: np.ndarray  # uint8 [N, H, W, C]
    table: pl.DataFrame
    names: str  # the column of the table that names the files


def rows(data: Examples, path: Path, found: Any) -> Any:
    """Rows x and c as they are written to a path: with the name, dtype and shape of x in the file that was read."""
    if not isinstance(found, dict) or path.suffix == ".png":
        return found
    x = found["x"]
    c = {name: each[:, 0] if each.shape[1:] == (1,) else each for name, each in found.items() if name != "x"}
    if path.suffix == FOLDER:
        return _folder(data, x, c)
    if data.shape is not None:
        x = in_dtype(x, data.dtype, 255 if data.x.dtype == np.uint8 else 1).reshape(-1, *data.shape)
    return {data.name: x, **c}


def _folder(data: Examples, x: np.ndarray, c: dict[str, np.ndarray]) -> Folder:
    """Images under the names of those that were read, or else under their numbers, and their conditions."""
    scale = 1 if data.x is not None and data.x.dtype == bool else 255
    table, names = data.table, data.names
    if table is None:
        names, digits = "file", len(str(len(x) - 1))
        table = pl.DataFrame({names: [f"{k:0{digits}d}.png" for k in range(len(x))]})
    columns = {name: values.tolist() for name, values in c.items() if values.ndim == 1}
    table = replaced(table, pl.DataFrame(columns)) if columns else table
    given = [Path(name) for name in table[names]]
    png = [name.with_suffix(".png").name for name in given]
    if len(set(png)) < len(png):  # a.jpg and a.png
        png = [f"{name}.png" for name in given]
    return Folder(in_dtype(x, np.uint8, scale), table.with_columns(pl.Series(names, png)), names)


def results(data: Examples, path: Path, found: Any, words: tuple[str, ...] = ()) -> Any:
    """Results with a row for each as they are written to a path, with the name of its file and its part of the fit.

    `words` are those of the second axis of an array, if it is of the classes of a label.
    """
    first = {} if data.table is None else {data.names: data.table[data.names].to_list()}
    first |= {} if data.part is None else {"part": data.part.tolist()}
    if isinstance(found, dict) and path.suffix not in SUFFIXES:
        return {name: np.array(values) for name, values in first.items()} | found
    table = as_table(found, words) if isinstance(found, dict) else found
    return table.select(*(pl.Series(name, values) for name, values in first.items()), pl.all())


def as_table(arrays: dict[str, np.ndarray], words: tuple[str, ...] = ()) -> pl.DataFrame:
    """Arrays [N] and [N, K] as columns; those of more axes have none."""
    columns = {name: values for name, values in arrays.items() if values.ndim == 1}
    wide = {name: values for name, values in arrays.items() if values.ndim == 2}
    for k in range(max((values.shape[1] for values in wide.values()), default=0)):
        for name, values in wide.items():
            columns[OF_LATENTS.get(name, f"{name}_{{}}").format(words[k] if words else k)] = values[:, k]
    return pl.DataFrame(
        {name: values.tolist() if values.dtype.kind == "U" else values for name, values in columns.items()}
    )


def in_dtype(x: np.ndarray, dtype: Any, scale: int = 1) -> np.ndarray:
    """Rows in the dtype of a file, times a scale; integers are rounded, and those of 8 bits stay in their range."""
    if np.dtype(dtype).kind == "f":
        return x.astype(dtype)
    x = np.rint(scale * x)
    return (np.clip(x, 0, 255) if dtype == np.uint8 else x).astype(dtype)


# Files


def check(path: Path, suffixes: tuple[str, ...], source: Path | None = None, *, replace: bool = False) -> None:
    """Refuse a path that cannot be written, or is the file that is read; writes nothing.

    `replace` is whether a folder of images may be replaced.
    """
    ends = [suffix for suffix in suffixes if suffix != FOLDER]
    rule = f"end in {' or '.join(ends)}" + ", or name a folder, without any suffix" * (FOLDER in suffixes)
    checks.require(path.suffix in suffixes, "--out", rule, repr(str(path)))
    same = source is not None and path.resolve() == source.resolve()
    checks.require(not same, "--out", "be another path than the one that is read", path)
    if path.suffix == FOLDER:
        free = replace or not path.exists() or (path.is_dir() and not any(path.iterdir()))
        checks.require(free, "--out", "be a new or empty folder (delete it first, or name another)", path)
    else:
        checks.require(not path.is_dir(), "--out", "be a file", f"a folder at {path}")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    usable = parent.is_dir() and os.access(parent, os.W_OK)
    checks.require(usable, "--out", "be in a folder that can be written to", path)


def write(path: Path, rows: Any) -> None:
    """Write rows in one step: the file or folder is there whole, or as it was before.

    Raises:
        OSError: it cannot be written; names the file.
    """
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    before = path.with_name(f".{path.stem}.{os.getpid()}.before")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(rows, Folder):
            _write_folder(unfinished, rows)
            if path.exists():
                path.replace(before)
        elif path.suffix == ".png":
            write_images(unfinished, next(iter(rows.values())))
        elif path.suffix == ".npz":
            _write_npz(unfinished, rows)
        elif path.suffix == ".parquet":
            rows.write_parquet(unfinished)
        else:
            rows.write_csv(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if before.exists() and not path.exists():  # interrupted between the two
            before.replace(path)
        for folder in (unfinished, before):
            shutil.rmtree(folder, ignore_errors=True)
        unfinished.unlink(missing_ok=True)


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As `numpy.savez`, but an array may have any name, such as "file"."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def _write_folder(path: Path, rows: Folder) -> None:
    path.mkdir()
    for name, pixels in zip(rows.table[rows.names], rows.pixels, strict=True):
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path / name)
    rows.table.write_csv(path / LABELS)


def write_images(path: Path, images: np.ndarray) -> None:
    """A PNG of images [N, H, W, 1], ten to a row, 1 is white; the last row is filled up with white."""
    columns = min(COLUMNS, len(images))
    empty = np.ones((-len(images) % columns, *images.shape[1:]))
    tiles = np.concatenate([images, empty]).reshape(-1, columns, *images.shape[1:])
    plotting.write(path, 1 - tiles)  # which has ink dark


# What is printed


def count(rows: Any) -> str:
    """How many rows or images there are, in words."""
    if isinstance(rows, Folder):
        return f"{len(rows.pixels):,} images"
    return f"{len(rows) if isinstance(rows, pl.DataFrame) else len(next(iter(rows.values()))):,} rows"


def preview(rows: Any, count: int = 5) -> str:
    """The first rows of a table, or the shapes of arrays, as they are printed."""
    from experiments.harness.tables import render

    if isinstance(rows, Folder):
        return preview(rows.table, count)
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
