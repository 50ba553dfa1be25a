"""A user's own folder of images, and the table of their labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from PIL import Image, ImageOps

from cvae import checks
from cvae.tables import read_table

SUFFIXES = (".png", ".jpg", ".jpeg")
LABELS = "labels.csv"
MODES = {"1": "L", "L": "L", "RGB": "RGB", "P": "RGB"}  # of files, and how each is read


class Images(NamedTuple):
    """The images of a folder."""

    pixels: np.ndarray  # uint8 [N, H, W, C]
    table: pl.DataFrame  # a row for each: that of labels.csv, or else the names of the files alone
    names: str  # the column of the table that names the files
    notes: list[str]  # what was left out


def read_images(folder: str | os.PathLike[str]) -> Images:
    """Read the images of a folder, PNG or JPEG, all of one size and either grey or RGB.

    Where the folder has a `labels.csv`, one column of it has the names of the files; its rows say which images are
    read, in which order.

    Raises:
        ValueError: there are no images, one cannot be read, or differs from the first; names the file.
    """
    path = checks.path("folder", folder)
    checks.require(path.is_dir(), str(path), "be a folder of images", "no such folder")
    files = sorted(file.name for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    checks.require(len(files) > 0, str(path), f"hold images ({', '.join(SUFFIXES)})", "none")
    table, names, notes = pl.DataFrame({"file": files}), "file", []
    if (path / LABELS).is_file():
        table = read_table(path / LABELS)
        names = _column_of_names(path, table, files)
        if unnamed := len(files) - len(table):
            notes.append(f"{unnamed:,} of {len(files):,} images are not named in {LABELS}, and left out")
        files = table[names].to_list()
    first = _read(path / files[0], None)
    images = np.empty((len(files), *first.shape), np.uint8)
    for number, name in enumerate(files):
        images[number] = _read(path / name, first.shape)
    return Images(images, table, names, notes)


def _column_of_names(path: Path, table: pl.DataFrame, files: list[str]) -> str:
    """The column of a table with the names of the files: the one that names most of them."""
    words = {name: table[name] for name in table.columns if table[name].dtype == pl.String}
    found = {name: int(column.is_in(files).sum()) for name, column in words.items()}
    rule = f"have a column with the names of the images, such as {files[0]}"
    checks.require(max(found.values(), default=0) > 0, str(path / LABELS), rule, f"the columns {table.columns}")
    name = max(found, key=lambda each: found[each])
    absent = ~words[name].is_in(files).fill_null(False)
    row = absent.arg_max() or 0
    rule = f"name a file of the folder in every row of {name!r}"
    checks.require(not absent.any(), str(path / LABELS), rule, f"{words[name][row]!r} at row {row}")
    twice = words[name].filter(words[name].is_duplicated())
    rule = f"name every image once in {name!r}"
    checks.require(len(twice) == 0, str(path / LABELS), rule, f"{twice.first()!r} twice")
    return name


def _read(path: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """An image, uint8 [H, W, C], of a shape if one is given."""
    try:
        with Image.open(path) as image:
            mode = image.mode
            upright = ImageOps.exif_transpose(image)  # cameras store photographs lying, with a note how they stood
            pixels = np.asarray(upright.convert(MODES[mode])) if mode in MODES else None
    except Exception as error:  # a damaged file raises nearly anything
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"{path} must be a readable image, got {type(error).__name__}: {reason}") from None
    rule = "be grey or RGB with 8 bits (save it without transparency, or arrays by numpy.savez)"
    checks.require(pixels is not None, str(path), rule, f"mode {mode}")
    assert pixels is not None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    rule = f"have the height, width and channels of the first image, {shape}"
    checks.require(shape is None or pixels.shape == shape, str(path), rule, pixels.shape)
    return pixels
