"""Tables larger than the memory: a Parquet file, or a folder of them, encoded once into arrays on disk.

    table = cvae.data.scan_table("rows.parquet")
    schema = cvae.schema.infer(table, conditions=("age",))  # reads column by column
    x, c = cvae.data.stream_table(table, schema, "encoded")

x and c are what `schema.encode` gives of the whole table, but on disk. A step takes rows from all over a table, which a
Parquet file cannot give without unpacking all of itself; the arrays can.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from tqdm.auto import tqdm

from cvae import checks
from cvae.data.streams import SKIPPED, stream
from cvae.progress import bar_options
from cvae.settings import to_json
from cvae.streamed import Streamed
from cvae.tables import cleaned, first_line

if TYPE_CHECKING:
    from cvae.schema import Schema

PIECE_CELLS = 2**22  # that are read and encoded at a time
RECORD = "table.json"  # of the schema and the number of rows


def parquet_files(path: str | os.PathLike[str]) -> list[Path]:
    """A Parquet file, or those of a folder in the order of their names; none where there are none."""
    root = checks.path("path", path)
    return sorted(root.glob("*.parquet")) if root.is_dir() else [root] * (root.suffix == ".parquet")


def scan_table(path: str | os.PathLike[str], *, skip_damaged: bool = False) -> pl.LazyFrame:
    """A Parquet file, or the files of a folder one after another, of which nothing is read yet.

    Args:
        path: the file or folder.
        skip_damaged: leave out files of a folder that cannot be read, with a warning; each is read once for that.

    Raises:
        ValueError: names the file that is missing, damaged, or has other columns than the first.
    """
    files = parquet_files(path)
    checks.require(len(files) > 0, str(path), "be a .parquet file or a folder of them", "none")
    found: dict[Path, Any] = {}
    for file in files:
        try:
            found[file] = pl.read_parquet(file).schema if skip_damaged else pl.read_parquet_schema(file)
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = first_line(error)
            if not skip_damaged or len(files) == 1:
                way_out = SKIPPED if len(files) > 1 else ""
                raise ValueError(f"{file} must be a readable Parquet file, got {reason}{way_out}") from None
            warnings.warn(f"left out: {file}, {reason}", stacklevel=2)
    checks.require(len(found) > 0, str(path), "hold a file that can be read", "damaged ones only")
    first = next(iter(found))
    for file, columns in found.items():
        both = {**found[first], **columns}
        other = [f"{name} {columns.get(name)}" for name in both if columns.get(name) != found[first].get(name)]
        same = list(columns.items()) == list(found[first].items())
        rule = f"have the columns of {first.name}, in its order and of its types"
        checks.require(same, str(file), rule, ", ".join(other[:4]) or "another order")
    return cleaned(pl.scan_parquet(list(found), glob=False))


def stream_table(
    table: pl.LazyFrame, schema: Schema, folder: str | os.PathLike[str], *, progress: bool = False
) -> tuple[Streamed, dict[str, Streamed]]:
    """The arrays x, [N, D], and c that a schema makes of a table, on disk.

    Args:
        table: of `scan_table`.
        schema: of all of the table.
        folder: where the arrays are written, eight bytes a number. One that an earlier call has written, of a table of
            the same schema and size, is read.
        progress: show a bar.

    Raises:
        ValueError: as `schema.encode`; or the folder is of another table; or a file is damaged, or the disk full.
    """
    target, size = Path(folder), int(table.select(pl.len()).collect().item())
    record = {"schema": to_json(schema), "rows": size}
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
        try:
            _encode(table, schema, scratch, size, progress)
            (scratch / RECORD).write_text(json.dumps(record), encoding="utf-8")
            if not target.exists():  # another process may have been faster
                os.replace(scratch, target)
        except pl.exceptions.PolarsError as error:
            reason = first_line(error)
            raise ValueError(f"the table must be readable Parquet files, got {reason}{SKIPPED}") from None
        except OSError as error:
            cells = size * (len(schema.modelled) + len(schema.conditions))
            rule = f"be a folder that can be written, with {8 * cells / 1e9:.2g} GB free"
            raise ValueError(f"{target.parent} must {rule}, got {error}") from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    names = {"x", *(f"c_{k}" for k in range(len(schema.conditions)))}
    arrays, file = stream(target), target / RECORD
    complete = file.is_file() and names <= arrays.keys()
    same = complete and json.loads(file.read_text(encoding="utf-8")) == record
    same &= all(len(each) == size for each in arrays.values())
    rule = "be the whole arrays of this table and schema (remove the folder, or name another one)"
    checks.require(same, str(target), rule, "those of another one" if complete else f"{', '.join(arrays)} alone")
    return arrays["x"], {column.name: arrays[f"c_{k}"] for k, column in enumerate(schema.conditions)}


def _encode(table: pl.LazyFrame, schema: Schema, folder: Path, size: int, progress: bool) -> None:
    """Write the arrays, a piece of the table at a time."""
    wanted = [column.name for column in (*schema.modelled, *schema.conditions)]
    rows = max(1, PIECE_CELLS // len(wanted))
    files: dict[str, Any] = {}
    try:
        with tqdm(total=size, desc="encoding", unit=" rows", unit_scale=True, **bar_options(progress)) as bar:
            for first in range(0, size, rows):
                piece = table.select(wanted).slice(first, rows).collect()
                try:
                    x, c = schema.encode(piece)
                except ValueError as error:
                    raise ValueError(_of_table(str(error), first)) from None
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


def _of_table(message: str, first: int) -> str:
    """A message about the rows of a piece as one about those of the table."""
    return re.sub(r"at row (\d+)", lambda row: f"at row {first + int(row[1])}", message)


def _begun(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """An `.npy` file of this shape that has its header, open to write the values."""
    file = path.open("wb")
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file
