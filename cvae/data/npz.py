"""A user's own arrays from `.npz` and `.npy` files of any origin, and a random split of their rows.

Nothing in the file can execute: pickles are refused, nothing is unpacked to disk, and the size that a header claims is
compared with what the archive holds before memory is allocated. What the arrays mean is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
from collections.abc import Collection, Iterator
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from cvae import checks

# Any file may unpack to this many bytes, and a larger one to this many times its size: images compress about 10 to 1,
# a file that is made to fill the memory 1000 to 1.
_ALWAYS_ALLOWED = 2**30
_ALLOWED_RATIO = 100

_HEADER_BYTES = 2**16  # NumPy reads no header of more than 10,000
# Version 3 is for the field names of structured arrays, which are refused anyway.
_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Rows(NamedTuple):
    """Row indices of the three parts of a data set: disjoint, and together every row once."""

    train: np.ndarray  # int64 [N]
    validation: np.ndarray
    test: np.ndarray


def read_npz(path: str | os.PathLike[str], names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an `.npz` file without executing anything in it.

    Arrays are bool, integer or float, of rank 1 or more, and are returned contiguous and in native byte order.

    Args:
        path: the file.
        names: which arrays to read, in which order; all by default. The others may be of any kind.

    Raises:
        ValueError: names the file or the array that is missing, damaged, not numeric, or larger than it can be.
    """
    if names is not None:
        is_names = isinstance(names, Collection) and not isinstance(names, str)
        is_names = is_names and all(isinstance(name, str) for name in names)
        checks.require(is_names, "names", "be a list of strings", checks.shown(names))
    with _open(path) as archive:
        members = _members(archive)
        wanted = list(members if names is None else names)
        for name in wanted:
            present = checks.shown(list(members))
            checks.require(name in members, str(archive.filename), f"hold an array {name!r}", f"one with {present}")
            _check_header(f"{name!r} in {archive.filename}", archive, members[name])
        _check_size(archive, [members[name] for name in wanted])
        return {name: _read(f"{name!r} in {archive.filename}", archive, members[name]) for name in wanted}


def npz_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """List the names of the arrays of an `.npz` file without reading them."""
    with _open(path) as archive:
        return tuple(_members(archive))


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Map the array of an `.npy` file into memory, read-only: what is not used is not read.

    Raises:
        ValueError: names the file that is missing, damaged or not numeric, or of another byte order.
    """
    file = checks.path("path", path)
    name, rule = str(file), "be an .npy file, as numpy.save writes it"
    checks.require(os.path.isfile(file), name, rule, "no regular file" if os.path.exists(file) else "no such file")
    with _intact(name, "numpy.save"), open(file, "rb") as stream:
        shape, dtype, header = _read_head(stream)
    _check_array(name, shape, dtype, os.path.getsize(file) - header)
    checks.require(dtype.isnative, name, "be in native byte order, x.astype(x.dtype.newbyteorder('='))", dtype.str)
    with _intact(name, "numpy.save"):
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
        _check_bool(array)
    return array


def split_rows(size: int, seed: int, validation: float = 0.1, test: float = 0.1) -> Rows:
    """Split the rows [0, size) at random; `validation` and `test` are fractions of them, the rest is for training."""
    checks.integer("size", size)
    checks.integer("seed", seed, least=0)
    held_out = [round(size * checks.number(*each, 0, 1)) for each in (("validation", validation), ("test", test))]
    counts = {"train": size - sum(held_out), "validation": held_out[0], "test": held_out[1]}
    rule = "leave rows for train, validation and test (change their fractions, --validation and --test)"
    checks.require(min(counts.values()) >= 1, "the split", rule, f"{counts} of {size} rows")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(size)
    return Rows(*np.split(order, (counts["train"], counts["train"] + held_out[0])))


def _open(path: str | os.PathLike[str]) -> zipfile.ZipFile:
    """Open an `.npz` file as an archive; refuse anything else."""
    file = checks.path("path", path)
    rule = "be an .npz file, as numpy.savez writes it"
    # Before it is opened: opening a pipe would block.
    checks.require(os.path.isfile(file), str(file), rule, "no regular file" if os.path.exists(file) else "no such file")
    with _intact(str(file)), open(file, "rb") as stream:
        start = stream.read(8)
    # zipfile looks at the end of a file alone, and would accept an archive that is appended to a pickle.
    checks.require(start.startswith((b"PK\3\4", b"PK\5\6")), str(file), rule, f"a file that starts with {start!r}")
    with _intact(str(file)):
        return zipfile.ZipFile(file)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name of array; refuse names that NumPy would not have written."""
    members: dict[str, zipfile.ZipInfo] = {}
    file = str(archive.filename)
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        is_plain = info.filename.endswith(".npy") and name != "" and not set("/\\:") & set(name)
        checks.require(is_plain, file, "hold members named NAME.npy, without folders", checks.shown(info.filename))
        checks.require(name not in members, file, "hold every name once", f"{name!r} twice")
        members[name] = info
    checks.require(bool(members), file, "hold at least one array", "an empty archive")
    return members


def _check_header(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Refuse an array by its header, before memory is allocated for it."""
    # The other compression methods unpack without a bound, and NumPy uses neither.
    is_known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & 1
    checks.require(is_known, name, "be stored or deflated, and not encrypted", "another kind of zip member")
    with _intact(name), archive.open(info) as member:
        shape, dtype, header = _read_head(member)
    _check_array(name, shape, dtype, info.file_size - header)


def _read_head(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype, and where the values begin."""
    head = io.BytesIO(stream.read(_HEADER_BYTES))
    shape, _, dtype = _READ_HEADER[npy.read_magic(head)](head)
    return shape, dtype, head.tell()


def _check_array(name: str, shape: tuple[int, ...], dtype: np.dtype, held: int) -> None:
    hint = " (numpy.unique(..., return_inverse=True)[1] numbers strings)" if dtype.kind in "US" else ""
    checks.require(dtype.kind in "biuf", name, "be bool, integers or floats", f"{dtype} values{hint}")
    is_shape = len(shape) >= 1 and min(shape) >= 0
    checks.require(is_shape, name, "have at least one axis, and no negative length", f"shape {checks.shown(shape)}")
    claimed = math.prod(shape) * dtype.itemsize
    checks.require(claimed == held, name, f"hold the bytes of {dtype} {checks.shown(shape)}", f"{held} of them")


def _check_size(archive: zipfile.ZipFile, wanted: list[zipfile.ZipInfo]) -> None:
    size, unpacked = os.path.getsize(str(archive.filename)), sum(info.file_size for info in wanted)
    most = max(_ALWAYS_ALLOWED, _ALLOWED_RATIO * size)
    rule = f"unpack to at most {most} bytes (numpy.savez writes larger arrays, uncompressed)"
    checks.require(unpacked <= most, str(archive.filename), rule, f"a file of {size} bytes that claims {unpacked}")


def _read(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with _intact(name):
        with archive.open(info) as member:
            array = npy.read_array(member, allow_pickle=False)
        _check_bool(array)
        return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _check_bool(array: np.ndarray) -> None:
    # Any other byte in a bool breaks what NumPy counts and indexes with it.
    if array.dtype == bool and (array.view(np.uint8) > 1).any():
        raise ValueError("a bool that is neither 0 nor 1")


@contextlib.contextmanager
def _intact(name: str, writer: str = "numpy.savez") -> Iterator[None]:
    """Turn any error into one sentence: a damaged or forged archive raises nearly anything."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200].rstrip(".: ")
        got = f"a file that cannot be read ({type(error).__name__}: {reason})"
        raise ValueError(f"{name} must be readable and intact, as {writer} writes it, got {got}") from None
