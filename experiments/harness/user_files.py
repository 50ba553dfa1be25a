"""A user's files of arrays, and the names of the options in them: which array is x, and which are conditions.

`cvae.data` reads the files. A folder of images comes with a table, `labels.csv`, whose columns become arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cvae import checks, masks
from cvae.data import npz_names, read_images, read_npy, read_npz
from cvae.schema import infer
from experiments.harness.user_data import MOST_LISTED, Input

KINDS = ("label", "continuous", "image")
RESERVED = ("x", "image", "observed", "shift")  # names that mean something else among conditions

Arrays = dict[str, np.ndarray]


class Wanted(NamedTuple):
    """A condition that the options name."""

    kind: str  # one of KINDS, or "" where only a name is given
    name: str
    categories: tuple[str, ...] = ()  # of a label that is words in the file


def read(options: Input, notes: list[str]) -> tuple[Arrays, str, list[Wanted]]:
    """The arrays that the options name, the name of x, and the conditions."""
    if options.data.is_dir():
        return _read_folder(options, notes)
    if options.data.suffix == ".npy":
        return _read_npy(options)
    wanted = parse(options)
    return *_read_npz(options, wanted), wanted


def parse(options: Input, plain: bool = False) -> list[Wanted]:
    """The conditions; with `plain`, they may be names alone."""
    wanted: list[Wanted] = []
    require = checks.require
    for text in options.condition:
        kind, equals, name = text.partition("=")
        if plain and not equals:
            wanted.append(Wanted("", text))
            continue
        require(bool(equals and name), "--condition", "be KIND=NAME, such as label=digit", repr(text))
        rule = f"be of a kind among {', '.join(KINDS)}"
        require(kind in KINDS, "--condition", rule, repr(text))
        once = name not in [other.name for other in wanted]
        require(once, "--condition", "name every array once", f"{name!r} twice")
        require(name != options.x, "--condition", "name another array than --x", repr(text))
        reserved = kind != "image" and name in RESERVED
        rule = f"name an array other than {', '.join(RESERVED)}, which mean something else (rename it in the file)"
        require(not reserved, "--condition", rule, repr(text))
        wanted.append(Wanted(kind, name))
    images = [name for kind, name, _ in wanted if kind == "image"]
    require(len(images) < 2, "--condition", "name one image at most", f"image={' and image='.join(images)}")
    return wanted


def _read_npz(options: Input, wanted: list[Wanted]) -> tuple[Arrays, str]:
    """The arrays that are wanted, and the name of x."""
    path, require, known = options.data, checks.require, tuple(masks.MASKS)
    present = npz_names(path)
    names = []
    for kind, name, _ in wanted:
        if kind == "image" and name in known:
            rule = "name a mask or an array"
            require(name not in present, "--condition", rule, f"{name!r}, which is both; rename the array")
            continue
        masks_too = f" or a mask, one of {', '.join(known)}" if kind == "image" else ""
        rule = f"name an array of {path}, one of {', '.join(present)}{masks_too}"
        require(name in present, "--condition", rule, f"{kind}={name}")
        names.append(name)
    if options.x is not None:
        rule = f"name an array of {path}, one of {', '.join(present)}"
        require(options.x in present, "--x", rule, options.x)
        return read_npz(path, list(dict.fromkeys((options.x, *names)))), options.x
    arrays = read_npz(path)
    return arrays, name_of_x(options, arrays, wanted)


def name_of_x(options: Input, arrays: Mapping[str, Any], wanted: list[Wanted]) -> str:
    """The name of x: the one given, or of the only array that will do."""
    if options.x is not None:
        checks.require(options.x in arrays, "--x", f"name an array, one of {', '.join(arrays)}", options.x)
        return options.x
    names = [each.name for each in wanted]
    suitable = [key for key, each in arrays.items() if key not in names and each.ndim in (2, 3, 4)]
    rule = "be given unless one array alone will do ([N, D], [N, H, W] or [N, H, W, C])"
    checks.require(len(suitable) == 1, "--x", rule, f"{suitable or 'none'} among {list(arrays)}")
    return suitable[0]


def is_fixed_mask(wanted: Wanted) -> bool:
    """Whether a condition is a part of x that is the same for all examples."""
    return wanted.kind == "image" and wanted.name in masks.FIXED


def _read_npy(options: Input) -> tuple[Arrays, str, list[Wanted]]:
    """The only array of an `.npy` file, which may be conditioned on a part of itself."""
    checks.require(options.x is None, "--x", "be left out for a single array", options.x)
    wanted = parse(options)
    alone = all(kind == "image" and name in masks.MASKS for kind, name, _ in wanted)
    rule = "be image=MASK for an .npy file, which holds one array (numpy.savez saves several)"
    checks.require(alone, "--condition", rule, ", ".join(options.condition))
    name = options.data.stem
    return {name: read_npy(options.data)}, name, wanted


def _read_folder(options: Input, notes: list[str]) -> tuple[Arrays, str, list[Wanted]]:
    """The images of a folder, and columns of its `labels.csv` as arrays."""
    checks.require(options.x is None, "--x", "be left out for a folder of images", options.x)
    pixels, table, names, more = read_images(options.data)
    notes += more
    name = options.data.resolve().name
    known = [column for column in table.columns if column not in (name, names)]
    arrays, wanted = {name: pixels}, parse(options, plain=True)
    for number, (kind, column, _) in enumerate(wanted):
        if kind == "image" and column in masks.MASKS:
            continue
        rule = f"name a column of labels.csv, one of {', '.join(known) or 'none, as there is no such file or column'}"
        checks.require(column in known, "--condition", rule, repr(column))
        schema = infer(table.select(column), kinds={column: "categorical"} if kind == "label" else {})
        (found,) = schema.columns
        values = found.encode(table[column])
        missing = np.isnan(values)
        checks.require(not missing.any(), f"column {column!r} of labels.csv", "be known in every row", missing.argmax())
        if found.is_label:
            listed = ", ".join(f"{k} is {word}" for k, word in enumerate(found.categories[:MOST_LISTED]))
            others = " and so on" * (len(found.categories) > MOST_LISTED)
            notes.append(f"labels {column!r} are numbered: {listed}{others}")
            values = values.astype(np.int64)
        arrays[column] = values
        wanted[number] = Wanted(kind or ("label" if found.is_label else "continuous"), column, found.categories)
    return arrays, name, wanted
