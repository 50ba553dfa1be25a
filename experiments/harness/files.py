"""Files that commands on a fitted model read: tables, arrays, and folders of images, each as the model takes it.

`user_files` reads the same files for a fit, as its options say; here the model says what it needs. What commands write
is in `outputs`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl

import cvae
from cvae import checks
from cvae.classification import labels_of
from cvae.columns import Column, as_words
from cvae.conditions import Conditions, Image, Optional
from cvae.config import Architecture, parts_of
from cvae.data import npz_names, parquet_files, read_images, read_npy, read_npz, scan_table, stream
from cvae.tables import SUFFIXES
from experiments.harness.user_conditions import drawn_masks, every_mask

ARRAYS = (".npz", ".npy")


class Recorded(NamedTuple):
    """What the command that fitted a model recorded of its data; nothing for a model that `cvae.save` wrote."""

    data: Path | None = None  # the file
    x: str | None = None  # the name of the array of examples
    mask: str | None = None  # the name of the array of masks

    @classmethod
    def of(cls, run: Path) -> Recorded:
        """What is in the summary of a run."""
        if not (run / "summary.json").is_file():
            return cls()
        settings = cvae.runs.read_summary(run).get("settings") or {}
        named = dict(str(text).partition("=")[::2] for text in settings.get("condition") or ())
        data = settings.get("data")
        return cls(None if data is None else Path(str(data)), settings.get("x"), named.get("image"))


class Examples(NamedTuple):
    """The examples in a file as the functions of `cvae.use` take them: a table, or the arrays x and c."""

    x: Any
    c: Conditions = MappingProxyType({})
    name: str = "x"  # of the array of examples in the file
    shape: tuple[int, ...] | None = None  # of an example there
    dtype: Any = None  # of the array there
    table: pl.DataFrame | None = None  # of a folder of images, as in `cvae.data.Images`
    names: str = "file"  # the column of that with the names of the files
    part: np.ndarray | None = None  # the part of the fit's data that each row was in, if the file is the fit's

    def values(self, name: str) -> pl.Series | None:
        """A column, or a condition, as words with null for a missing one; None if the file does not hold it."""
        if isinstance(self.x, pl.DataFrame):
            return self.x[name].cast(pl.String) if name in self.x.columns else None
        if name not in self.c:
            return None
        values = np.asarray(self.c[name])
        series = pl.Series(name, (values.astype(int) if values.dtype == bool else values).tolist())
        return as_words(series.fill_nan(None) if series.dtype.is_float() else series).replace("", None)

    def reported(self, count: int) -> tuple[np.ndarray, str]:
        """Which of `count` rows a summary is of, bool, and what it says of them: the test part where that is known."""
        if self.part is None:
            return np.ones(count, bool), ""
        return self.part == "test", " of the test part"


def check_kind(architecture: Architecture, path: Path) -> None:
    """Refuse a file of another kind than the model was fitted to."""
    table, is_folder = architecture.schema is not None, path.is_dir()
    what = "a table, .csv, .parquet or a folder of these,"
    if not table:
        what = "arrays, .npz, .npy or a folder of them, or a folder of images,"
    is_file = path.is_file() and path.suffix in (SUFFIXES if table else ARRAYS)
    fits = table == bool(parquet_files(path)) if is_folder else is_file
    got = "a folder" if is_folder else f"a {path.suffix} file" if path.is_file() else "no such file"
    checks.require(fits, str(path), f"be {what} as the model was fitted to", got)


def read(
    architecture: Architecture,
    path: Path,
    *,
    x: str | None = None,
    without: str | None = None,
    recorded: Recorded,
    seed: int = 0,
) -> Examples:
    """The examples in a file.

    Args:
        architecture: of the model.
        path: the file or folder.
        x: name of the array of examples; None is that of the fit, or else the only one of their shape.
        without: name of a condition that need not be there.
        recorded: of the fit, for the names of arrays.
        seed: of masks that are drawn.

    Raises:
        ValueError: it cannot be read, or lacks an array.
    """
    if architecture.schema is not None:
        return Examples(architecture.schema.read(scan_table(path) if path.is_dir() else path))
    held = _held(architecture, path, x, recorded)
    name = _name_of_x(architecture, path, held, x, recorded)
    raw = held.arrays[name]
    examples = _as_model(_as_event(raw, architecture.event_shape))
    mask = recorded.mask or "observed"
    c = _conditions(architecture, path, held, examples, () if without is None else (without,), mask, seed)
    if without is not None and without in held.arrays:
        c[without] = held.arrays[without]
    return Examples(examples, c, name, raw.shape[1:], raw.dtype, held.table, held.names)


def read_conditions(
    architecture: Architecture,
    path: Path,
    given: Collection[str],
    *,
    recorded: Recorded,
    seed: int = 0,
) -> Examples:
    """The conditions in a file but for those that are given otherwise, without x.

    Raises:
        ValueError: it cannot be read, or lacks one.
    """
    wanted = [name for name in architecture.condition.spec if name not in given]
    checks.require(len(wanted) > 0, "--given", "have a condition that --condition does not give", "none")
    if architecture.schema is not None:
        table = architecture.schema.read(path)
        absent = [name for name in wanted if name not in table.columns]
        checks.require(not absent, "--given", f"be a table with the columns {wanted}", f"none named {absent}")
        return Examples(None, {name: table[name] for name in wanted})
    held, x = _held(architecture, path, None, recorded), None
    if any(architecture.condition.spec[name].kind == "pixels" for name in wanted):
        name = _name_of_x(architecture, path, held, None, recorded)
        x = _as_model(_as_event(held.arrays[name], architecture.event_shape))
    c = _conditions(architecture, path, held, x, given, recorded.mask or "observed", seed)
    return Examples(None, c, table=held.table, names=held.names)


# Arrays and folders of images


class _Held(NamedTuple):
    """What a file of arrays, or a folder, holds of what a model needs."""

    arrays: dict[str, np.ndarray]
    listed: str  # what there is, for messages
    only: str | None = None  # the name of the examples where no other array can be meant
    table: pl.DataFrame | None = None
    names: str = "file"


def _held(architecture: Architecture, path: Path, x: str | None, recorded: Recorded) -> _Held:
    if path.is_dir() and is_of_arrays(path):
        arrays_there = stream(path)
        needed = _needed(architecture, arrays_there, x, recorded)
        return _Held({name: arrays_there[name][:] for name in needed}, f"the arrays {list(arrays_there)}")
    if path.is_dir():
        pixels, table, names, _ = read_images(path)
        name, wanted = path.resolve().name, architecture.condition.spec
        columns = [column for column in table.columns if column not in (name, names)]
        arrays = {column: _values(architecture, table[column]) for column in columns if column in wanted}
        listed = (
            f"the columns {columns} in labels.csv" if columns else "no labels.csv with other columns than the names"
        )
        return _Held(arrays | {name: pixels}, listed, name, table, names)
    if path.suffix == ".npy":
        return _Held({path.stem: read_npy(path)}, "one array alone (numpy.savez saves several)", path.stem)
    present = npz_names(path)
    return _Held(read_npz(path, _needed(architecture, present, x, recorded)), f"the arrays {list(present)}")


def is_of_arrays(folder: Path) -> bool:
    """Whether a folder holds arrays, as `data.stream` reads them."""
    return any(folder.glob("*.npy")) or any(folder.glob("*/*.npy"))


def _needed(architecture: Architecture, present: Collection[str], x: str | None, recorded: Recorded) -> list[str]:
    """The names of the arrays that a model may need: all, where that of the examples is not known."""
    known = [x or recorded.x, recorded.mask, *architecture.condition.spec]
    return [name for name in present if name in known or (x or recorded.x) not in present]


def _values(architecture: Architecture, column: pl.Series) -> np.ndarray:
    """A condition from a table: a label that has words as these, "" for a missing one, anything else as numbers."""
    label = labels_of(architecture.condition).get(column.name)
    if label is not None and label.categories:
        return as_words(column).fill_null("").to_numpy().astype(str)
    return Column(column.name, "real").encode(column)


def _name_of_x(architecture: Architecture, path: Path, held: _Held, x: str | None, recorded: Recorded) -> str:
    """The name of the array of examples."""
    event, arrays = architecture.event_shape, held.arrays
    fitting = [name for name, each in arrays.items() if _as_event(each, event).shape[1:] == event]
    rule = f"hold examples of shape [N, {', '.join(map(str, event))}], as the model was fitted to"
    shapes = ", ".join(f"{name} {each.shape}" for name, each in arrays.items())
    checks.require(len(fitting) > 0, str(path), rule, shapes)
    names = [name for name in fitting if name not in architecture.condition.spec]
    likely = x or held.only or (recorded.x if recorded.x in fitting else None)
    names = names if likely is None else [likely]
    rule = f"name an array of {path} of shape [N, {', '.join(map(str, event))}], one of {fitting}"
    checks.require(len(names) == 1 and names[0] in fitting, "--x", rule, x or "none")
    return names[0]


def _conditions(
    architecture: Architecture,
    path: Path,
    held: _Held,
    x: np.ndarray | None,
    without: Collection[str],
    mask: str,
    seed: int,
) -> dict[str, np.ndarray]:
    """The conditions c by name, all but those in `without`; images and masks are of the examples x."""
    c: dict[str, np.ndarray] = {}
    parts = parts_of(architecture.condition)
    optional = {part.name for part in parts if isinstance(part, Optional)}
    for name, spec in architecture.condition.spec.items():
        if name in without:
            continue
        if spec.kind == "mask" and x is not None:
            (image,) = (part for part in parts if isinstance(part, Image))
            c[name] = _masks(image, path, held, x, mask, seed)
        elif spec.kind == "pixels" and name not in held.arrays and x is not None:
            c[name] = x
        else:
            checks.require(name in held.arrays, str(path), f"hold the condition {name!r}", held.listed)
            values = _as_event(held.arrays[name], spec.shape)
            is_label = spec.kind == "integer"
            c[name] = values if spec.kind == "pixels" else _known(name, values, is_label, name in optional)
    return c


def _masks(image: Image, path: Path, held: _Held, x: np.ndarray, mask: str, seed: int) -> np.ndarray:
    """The masks of examples: those of the file, or else drawn as in the fit."""
    for name in (mask, "observed"):
        if name in held.arrays:
            return every_mask(name, held.arrays[name], x.shape)
    checks.require(image.mask != "given", str(path), f"hold the masks {mask!r}", held.listed)
    return drawn_masks(image.mask, seed, x.shape)


def _known(name: str, values: np.ndarray, is_label: bool, optional: bool) -> np.ndarray:
    """Labels or numbers, of which none may be missing unless they are optional; whole floats may be labels."""
    missing = values == "" if values.dtype.kind == "U" else np.isnan(values.astype(np.float64))
    if missing.any() and not optional:
        row = np.argwhere(missing)[0][0]
        checks.require(False, f"condition {name!r}", "be known in every row", f"a missing one at row {row}")
    whole = is_label and values.dtype.kind in "iufb" and bool((values == np.rint(values)).all())
    return values.astype(np.int32) if whole else values


def _as_event(array: np.ndarray, event: tuple[int, ...]) -> np.ndarray:
    """The array with a last axis of 1 where it lacks that: a channel of images, or a column of numbers."""
    return array[..., None] if array.shape[1:] == event[:-1] and event[-1:] == (1,) else array


def _as_model(x: np.ndarray) -> np.ndarray:
    """Examples as a fit takes them: rows of integers are numbers, and images of 0 and 1 alone are black and white."""
    if x.ndim == 2 and x.dtype.kind in "iu":
        return x.astype(np.float64)
    return x.astype(bool) if x.dtype == np.uint8 and x.size and x.max() == 1 else x
