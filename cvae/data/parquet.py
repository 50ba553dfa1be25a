"""Tables larger than the memory: a Parquet file, or a folder of them, encoded once into arrays on disk.

    table = cvae.data.scan_table("rows.parquet")
    schema = cvae.schema.infer(table, conditions=("age",))  # reads column by column
    x, c = cvae.data.stream_table(table, schema, "encoded")

x and c are what `schema.encode` gives of the whole table, but on disk. A step takes rows from all over a table, which a
Parquet file cannot give without unpacking all of itself; the arrays can.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from tqdm.auto import tqdm

from cvae import checks
from cvae.data.streams import stream
from cvae.streamed import Streamed
from cvae.tables import cleaned

if TYPE_CHECKING:
    from cvae.schema import Schema

PIECE_CELLS = 2**22  # that are read and encoded at a time


def parquet_files(path: str | os.PathLike[str]) -> list[Path]:
    """A Parquet file, or those of a folder in the order of their names; none where there are none."""
    root = checks.path("path", path)
    return sorted(root.glob("*.parquet")) if root.is_dir() else [root] * (root.suffix == ".parquet")


def scan_table(path: str | os.PathLike[str], *, skip_damaged: bool = False) -> pl.LazyFrame:
    """A Parquet file, or the files of a folder one after another, of which nothing is read yet.

    Args:
        path: the file or folder.
        skip_damaged: leave out files of a folder that cannot be opened, with a warning.

    Raises:
        ValueError: names the file that is missing, damaged, or has other columns than the first.
    """
    files = parquet_files(path)
    checks.require(len(files) > 0, str(path), "be a .parquet file or a folder of them", "none")
    found: dict[Path, Any] = {}
    for file in files:
        try:
            found[file] = pl.read_parquet_schema(file)
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if not skip_damaged or len(files) == 1:
                raise ValueError(f"{file} must be a readable Parquet file, got {reason}") from None
            warnings.warn(f"left out: {file}, {reason}", stacklevel=2)
    checks.require(len(found) > 0, str(path), "hold a file that can be read", "damaged ones only")
    first = next(iter(found))
    for file, columns in found.items():
        checks.require(columns == found[first], str(file), f"have the columns of {first.name}", dict(columns))
    return cleaned(pl.scan_parquet(list(found), glob=False))


def stream_table(
    table: pl.LazyFrame, schema: Schema, folder: str | os.PathLike[str], *, progress: bool = False
) -> tuple[Streamed, dict[str, Streamed]]:
    """The arrays x, [N, D], and c that a schema makes of a table, on disk.

    Args:
        table: of `scan_table`.
        schema: of all of the table.
        folder: where the arrays are written, eight bytes a number. One that exists is of an earlier call, and is read.
        progress: show a bar.

    Raises:
        ValueError: as `schema.encode`, with the first row of the piece of the table in which it counts rows.
    """
    target = Path(folder)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
        try:
            _encode(table, schema, scratch, progress)
            if not target.exists():  # another process may have been faster
                os.replace(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    arrays = stream(target)
    return arrays["x"], {column.name: arrays[f"c_{k}"] for k, column in enumerate(schema.conditions)}


def _encode(table: pl.LazyFrame, schema: Schema, folder: Path, progress: bool) -> None:
    """Write the arrays, a piece of the table at a time."""
    wanted = [column.name for column in (*schema.modelled, *schema.conditions)]
    size = int(table.select(pl.len()).collect().item())
    rows = max(1, PIECE_CELLS // len(wanted))
    files: dict[str, Any] = {}
    try:
        with tqdm(total=size, desc="encoding", unit=" rows", unit_scale=True, disable=not progress) as bar:
            for first in range(0, size, rows):
                piece = table.select(wanted).slice(first, rows).collect()
                try:
                    x, c = schema.encode(piece)
                except ValueError as error:
                    raise ValueError(f"{error}, counted from row {first:,} of the table") from None
                arrays = {"x": x} | {f"c_{k}": c[column.name] for k, column in enumerate(schema.conditions)}
                for name, values in arrays.items():
                    assert values is not None
                    if name not in files:
                        files[name] = _begun(folder / f"{name}.npy", (size, *values.shape[1:]), values.dtype)
                    np.ascontiguousarray(values).tofile(files[name])
                bar.update(len(piece))
    finally:
        for file in files.values():
            file.close()


def _begun(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """An `.npy` file of this shape that has its header, open to write the values."""
    file = path.open("wb")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file
