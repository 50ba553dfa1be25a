"""A user's own arrays that stay on disk (`--stream`), as a model takes them.

Kinds and ranges are those of a sample, which is read as `user_arrays` reads all of a file; the rest is checked as it is
read. Validation and test parts are in memory, so they are small.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from cvae import checks
from cvae.data import Rows, stream
from cvae.streamed import Streamed, row_bytes
from experiments.harness import user_arrays, user_files
from experiments.harness.user_data import Input, UserData

MOST_HELD_OUT = 10_000  # examples of the validation and of the test part
HELD_OUT_BYTES = 2**25  # of either


def load(options: Input) -> UserData:
    """Find the arrays that the options name, read what is scored and a sample, and leave the rest on disk.

    Raises:
        ValueError: as `user_arrays.load` and `data.stream`.
    """
    checks.require(
        options.data.suffix in ("", ".npy"), "--data", "be an .npy file or a folder with --stream", options.data
    )
    arrays = stream(options.data, skip_damaged=options.skip_damaged)
    wanted = user_files.parse(options)
    name = user_files.name_of_x(options, arrays, wanted)
    size = len(arrays[name])
    for each in wanted:
        known = user_files.is_fixed_mask(each) or (each.kind != "image" and each.name in arrays)
        rule = f"name an array of {options.data}, one of {', '.join(arrays)}, or a mask that is the same for all"
        checks.require(known, "--condition", rule, f"{each.kind}={each.name}")
        if each.name in arrays:
            rule = f"hold one entry per example of {name!r}, {size:,} of them"
            checks.require(len(arrays[each.name]) == size, repr(each.name), rule, len(arrays[each.name]))
    labels = [arrays[each.name] for each in wanted if each.kind == "label"]
    rows, held_out = _rows(options, arrays[name], labels)
    chosen = np.concatenate((held_out.train, held_out.validation, held_out.test))
    names = [name, *(each.name for each in wanted if each.name in arrays)]
    in_memory = {each: arrays[each][chosen] for each in names}
    ends = np.cumsum([len(part) for part in held_out])
    parts = Rows(*np.split(np.arange(ends[-1]), ends[:-1]))
    notes = [
        f"{size:,} examples stay on disk: {len(rows):,} of them are for training, {len(held_out.validation):,} "
        f"validate and {len(held_out.test):,} are for the test; kinds and ranges are those of {ends[-1]:,}"
    ]
    data = user_arrays.of_arrays(options, in_memory, name, wanted, parts, notes)
    x, c = data.train
    on_disk = {key: arrays[name if key == "image" else key] for key in c}
    train = _like(arrays[name], rows, x), {key: _like(on_disk[key], rows, c[key]) for key in c}
    return dataclasses.replace(data, train=train)


def _rows(options: Input, x: Streamed, labels: list[Streamed]) -> tuple[np.ndarray, Rows]:
    """The rows that are trained on, and those in memory: a sample of them, with every class, and the other parts."""
    most = max(2, min(MOST_HELD_OUT, HELD_OUT_BYTES // max(1, row_bytes(x, {}))))
    counts = [min(most, round(len(x) * share)) for share in (options.validation, options.test)]
    rule = "leave two examples for each of train, validation and test (see --validation and --test)"
    checks.require(min(*counts, len(x) - sum(counts)) >= 2, "--data", rule, f"{counts} of {len(x)}")
    drawn = np.random.Generator(np.random.PCG64(options.seed)).choice(len(x), sum(counts), replace=False)
    is_train = np.ones(len(x), bool)
    is_train[drawn] = False
    train = np.flatnonzero(is_train)
    sample = train[np.linspace(0, len(train) - 1, min(most, len(train))).astype(np.int64)]
    of_classes = [train[np.unique(label[train], return_index=True)[1]] for label in labels]
    return train, Rows(np.unique(np.concatenate((sample, *of_classes))), *np.split(drawn, counts[:1]))


def _like(array: Streamed, rows: np.ndarray, like: np.ndarray) -> Any:
    """These rows of an array on disk, in the shape and dtype that its sample was given."""
    taken = array.take(rows)
    if (taken.shape[1:], taken.dtype) == (like.shape[1:], like.dtype):
        return taken
    return taken.map(lambda values: values.reshape(len(values), *like.shape[1:]).astype(like.dtype))
