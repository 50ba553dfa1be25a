"""Arrays that stay on disk: of each, the rows that are asked for are read, so they may be larger than the memory.

    arrays = cvae.data.stream("folder")
    cvae.fit(model, params, key, arrays["pixels"], {"digit": arrays["digit"]}, training)

A `Streamed` array stands wherever examples are taken: in `fit`, `epochs`, `evaluate`, `log_likelihood` and everything
else that goes over examples in batches. A fit takes the same examples in the same order as from memory, shuffled over
all files, and ends at the same bits. Grain reads ahead in the background and copies to the devices while they compute.
"""

from __future__ import annotations

import itertools
import mmap
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cvae import checks
from cvae.data.npz import read_npy
from cvae.streamed import Streamed

SKIPPED = " (skip_damaged leaves out such parts)"


def stream(path: str | os.PathLike[str], *, split: str = "train", skip_damaged: bool = False) -> dict[str, Streamed]:
    """The arrays of an `.npy` file or of a folder, on disk.

    A folder holds each array as `NAME.npy`, as an unpacked `.npz` file does, or as `NAME/*.npy`, parts of it in the
    order of their names; or it is one that tensorflow-datasets has prepared in ArrayRecord files.

    Args:
        path: the file or folder.
        split: of a folder of tensorflow-datasets.
        skip_damaged: leave out damaged parts, of all arrays, with a warning.

    Raises:
        ValueError: names the file that is missing, damaged or unlike the others of its array.
    """
    root = checks.path("path", path)
    if root.suffix == ".npy" and not root.is_dir():
        return {root.stem: _of_files(root.stem, [root])}
    checks.require(root.is_dir(), str(root), "be an .npy file or a folder", "nothing of the kind")
    if (root / "dataset_info.json").exists():
        return _of_records(root, split)
    files = {each.stem: [each] for each in sorted(root.glob("*.npy"))}
    files |= {each.name: sorted(each.glob("*.npy")) for each in sorted(root.iterdir()) if each.is_dir()}
    files = {name: each for name, each in files.items() if each}
    checks.require(len(files) > 0, str(root), "hold arrays as NAME.npy or NAME/*.npy", "none")
    parts = {name: [file.name for file in each] for name, each in files.items() if len(each) > 1}
    for name, found in parts.items():
        first = next(iter(parts))
        rule = f"have parts of the names that those of {first!r} have, whose rows belong to its own"
        others = sorted(set(found) ^ set(parts[first]))
        checks.require(not others, str(root / name), rule, f"{', '.join(others[:4])} in one of them")
    if skip_damaged:
        files = _undamaged(files)
    return {name: _of_files(name, each) for name, each in files.items()}


def _undamaged(files: Mapping[str, Sequence[Path]]) -> dict[str, list[Path]]:
    """The files that can be read; a part that cannot is left out of every array."""
    damaged = set()
    for each in files.values():
        for file in each:
            try:
                read_npy(file)
            except ValueError as error:
                checks.require(len(each) > 1, str(file), "be undamaged, as there are no other parts", error)
                warnings.warn(f"left out: {error}", stacklevel=4)
                damaged.add(file.name)
    return {name: [file for file in each if len(each) == 1 or file.name not in damaged] for name, each in files.items()}


def _of_files(name: str, files: Sequence[Path]) -> Streamed:
    """One array from its parts in order."""
    try:
        heads = [read_npy(file) for file in files]
    except ValueError as error:
        raise ValueError(f"{error}{SKIPPED if len(files) > 1 else ''}") from None
    first = heads[0]
    for file, head in zip(files, heads, strict=True):
        same = head.dtype == first.dtype and head.shape[1:] == first.shape[1:]
        rule = f"hold {first.dtype} values [N{''.join(f', {size}' for size in first.shape[1:])}], as {files[0].name}"
        checks.require(same, str(file), rule, f"{head.dtype} of shape {head.shape}")
    ends = np.cumsum([len(head) for head in heads])
    size, event, dtype = int(ends[-1]), first.shape[1:], first.dtype
    checks.require(size > 0, repr(name), "hold a row", "none")
    states = [_state(file) for file in files]
    del heads, head, first

    def read(rows: np.ndarray) -> np.ndarray:
        # In the order of the file: what is read from a disk is then read in one sweep.
        order = np.argsort(rows)
        ascending = rows[order]
        found = np.empty((len(rows), *event), dtype)
        bounds = [0, *np.searchsorted(ascending, ends)]
        for file, state, end, (low, high) in zip(files, states, ends, itertools.pairwise(bounds), strict=True):
            if low < high:
                array = _mapped(file, state)
                found[order[low:high]] = array[ascending[low:high] - (end - len(array))]
        return found

    def place(row: int) -> str:
        number = int(np.searchsorted(ends, row, side="right"))
        before = int(ends[number - 1]) if number else 0
        return f"row {row - before} of {files[number]}"

    return Streamed((size, *event), dtype, read, place)


def _state(file: Path) -> tuple[int, int]:
    """The size and the time of a file, by which a change is noticed."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _mapped(file: Path, state: tuple[int, int]) -> np.ndarray:
    """The array of a file, mapped anew for each read: unmapped after it, its pages count as no memory of ours."""
    reason = "another one"
    try:
        array: np.ndarray = np.load(file, mmap_mode="r")
        same = _state(file) == state
    except (OSError, ValueError) as error:
        reason, same = (str(error).splitlines() or [""])[0], False
    if not same:
        raise ValueError(f"{file} must stay as it was while it is read, got {reason}")
    if hasattr(mmap, "MADV_RANDOM"):
        array.base.madvise(mmap.MADV_RANDOM)  # type: ignore[union-attr]  # or 128 kB are read from the disk for every row
    return array


def _of_records(folder: Path, split: str) -> dict[str, Streamed]:
    """The features of a set of tensorflow-datasets, decoded as they are read."""
    import tensorflow_datasets as tfds

    from cvae.data import download

    with download.quiet():
        builder = tfds.builder_from_directory(folder)
        known, features = list(builder.info.splits), builder.info.features
        checks.one_of("split", split, known)

        def feature(name: str) -> Streamed:
            others = {each: tfds.decode.SkipDecoding() for each in features if each != name}
            source = builder.as_data_source(split=split, decoders=others)

            def read(rows: np.ndarray) -> np.ndarray:
                return np.stack([np.asarray(example[name]) for example in source.__getitems__(rows.tolist())])

            like = read(np.zeros(1, np.int64))
            return Streamed(
                (len(source), *like.shape[1:]), like.dtype, read, lambda row: f"record {row} of {split} in {folder}"
            )

        return {name: feature(name) for name, each in features.items() if each.np_dtype != np.object_}
