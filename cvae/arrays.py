"""A user's own data: named arrays out of an `.npz` file that may come from anywhere, and a cut of its rows.

The file is treated as data that can never execute: no pickle is loaded, nothing is unpacked to a folder, and what
a header claims is compared with what the archive can hold before memory is taken for it. Does not live here: what
the arrays mean (which is the target, which are conditions), scaling, and the known data sets, which are `data`'s.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import os
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import numpy as np
from numpy.lib import format as npy

from cvae import checks

# Bytes that any file may unpack to, and beyond them how many times its own size: pictures compress about 10 to 1,
# a file made to fill the memory 1000 to 1.
_ALWAYS_ALLOWED = 2**30
_ALLOWED_RATIO = 100

_HEADER_BYTES = 2**16  # NumPy itself reads no header of more than 10,000
# Version 3 is for the field names of structured arrays, which are refused anyway.
_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

_FILE_RULE = "be an .npz file, as numpy.savez writes it"
_OTHERWISE = {
    b"\x93NUMPY": "a .npy file, an array without a name",
    b"\x80": "a pickle, which can run code when loaded",
    b"": "an empty file",
}


class Rows(NamedTuple):
    """Which rows belong to which part: three disjoint index arrays that together hold every row once."""

    train: np.ndarray  # int64 [N]
    validation: np.ndarray
    test: np.ndarray


def read(path: str | os.PathLike[str], names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read every array of an .npz file, or those in `names` and in that order, without ever executing its content.

    Arrays are bool, integer or float of any rank >= 1, and come back contiguous and in native byte order. An array
    that is not asked for is not read, so it may be of any kind.

    Raises `ValueError` for what is no .npz file, is damaged, or claims sizes it does not have; for member names that
    are not plain `<name>.npy`; for arrays of objects, text, dates, complex numbers or fields; for scalars; and for
    `names` that the file lacks.
    """
    if names is not None:
        is_names = isinstance(names, Collection) and not isinstance(names, str)
        is_names = is_names and all(isinstance(name, str) for name in names)
        checks.require(is_names, "names", "be a list of strings", repr(names))
    with _opened(path) as (file, stream, archive):
        members = _members(file, archive)
        wanted = list(members) if names is None else list(names)
        for name in wanted:
            _require_present(file, name, members)
        for name in wanted:
            _require_as_claimed(f"{name!r} in {file}", archive, members[name])
        _require_bounded(file, stream, [members[name] for name in wanted])
        return {name: _load(f"{name!r} in {file}", archive, members[name]) for name in wanted}


def names_in(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names of the arrays of an .npz file, in its order; reads none of them.

    Raises `ValueError` as `read` does, but for what is wrong with an array itself.
    """
    with _opened(path) as (file, _, archive):
        return tuple(_members(file, archive))


def split(size: int, seed: int, validation: float = 0.1, test: float = 0.1) -> Rows:
    """Deal the rows [0, size) at random into three parts; `validation` and `test` are fractions of them.

    The same arguments give the same rows. Raises `ValueError` for fractions that leave nothing to train on and for
    a size at which a part would be empty.
    """
    checks.whole_number("size", size)
    checks.seed("seed", seed)
    checks.positive_number("validation", validation)
    checks.positive_number("test", test)
    validation, test = float(validation), float(test)  # a float of 16 bits counts up to 65,504 rows
    checks.require(validation + test < 1, "validation + test", "be below 1", f"{validation:g} + {test:g}")
    held, tested = round(size * validation), round(size * test)
    counts = {"train": size - held - tested, "validation": held, "test": tested}
    empty = [part for part, count in counts.items() if count < 1]
    checks.require(not empty, "size", "give every part a row", f"{size}, which leaves {' and '.join(empty)} without")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(size)
    return Rows(*np.split(order, (counts["train"], counts["train"] + held)))


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Path, IO[bytes], zipfile.ZipFile]]:
    """Open an .npz file as an archive, refusing what is none: its path, its stream and the archive."""
    file = Path(os.path.expanduser(checks.path("path", path)))
    # Asked before opening: opening a pipe would wait for ever.
    came = "a folder" if file.is_dir() else "something that is no regular file" if file.exists() else "no such file"
    checks.require(file.is_file(), str(file), _FILE_RULE, came)
    try:
        stream = open(file, "rb")  # noqa: SIM115  closed below; only its opening is explained here
    except OSError as error:
        raise ValueError(f"{file} must be readable, got {error.strerror}") from None
    with stream:
        _require_zip(file, stream)
        try:
            archive = zipfile.ZipFile(stream)
        except Exception as error:
            _refuse_damaged(str(file), error)
        with archive:
            yield file, stream, archive


def _require_zip(file: Path, stream: IO[bytes]) -> None:
    """Refuse by the first bytes: `zipfile` looks at the last, and would accept an archive glued to a pickle."""
    start = stream.read(8)
    is_zip = start.startswith((b"PK\x03\x04", b"PK\x05\x06"))
    came = next((what for magic, what in _OTHERWISE.items() if magic and start.startswith(magic)), None)
    came = came or (_OTHERWISE[b""] if not start else f"a file that starts with {start!r}")
    checks.require(is_zip, str(file), _FILE_RULE, came)


def _members(file: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by name of array; refuses names that NumPy would not have written, and none at all."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        is_plain = info.filename.endswith(".npy") and name and not set("/\\:") & set(name)
        # Nothing is ever written under these names here, but they may be elsewhere.
        checks.require(bool(is_plain), str(file), "hold members named <name>.npy, without folders", repr(info.filename))
        checks.require(name not in members, str(file), "hold every name once", f"{name!r} twice")
        members[name] = info
    checks.require(bool(members), str(file), "hold at least one array", "an empty archive")
    return members


def _require_present(file: Path, name: str, members: dict[str, zipfile.ZipInfo]) -> None:
    near = difflib.get_close_matches(name, members, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    checks.require(name in members, str(file), f"hold an array {name!r}", f"a file with {list(members)}{hint}")


def _require_as_claimed(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Refuse an array by its header, before memory is taken for it."""
    # The other methods of zip files unpack without a bound, and NumPy writes neither.
    is_known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & 1
    checks.require(is_known, name, "be stored or deflated, and not encrypted", "another kind of zip member")
    try:
        with archive.open(info) as member:
            head = io.BytesIO(member.read(_HEADER_BYTES))
        version = npy.read_magic(head)
        shape, _, dtype = _READ_HEADER[version](head)
    except Exception as error:
        _refuse_damaged(name, error)
    kind = "be bool, integers or floats"
    checks.require(not dtype.hasobject, name, kind, f"{dtype} values: Python objects, which only a pickle can hold")
    checks.require(dtype.kind in "biuf", name, kind, f"{dtype} values")
    checks.require(len(shape) >= 1, name, "have at least one axis", "a scalar")
    is_shape = all(type(length) is int and length >= 0 for length in shape)
    checks.require(is_shape, name, "have axes of whole lengths", f"shape {shape}")
    claimed, held = math.prod(shape) * dtype.itemsize, info.file_size - head.tell()
    checks.require(claimed == held, name, f"hold the bytes of {dtype} {shape}, {claimed} of them", held)


def _require_bounded(file: Path, stream: IO[bytes], wanted: list[zipfile.ZipInfo]) -> None:
    size, unpacked = os.fstat(stream.fileno()).st_size, sum(info.file_size for info in wanted)
    most = max(_ALWAYS_ALLOWED, _ALLOWED_RATIO * size)
    rule = f"unpack to at most {most} bytes (numpy.savez keeps larger arrays, uncompressed)"
    checks.require(unpacked <= most, str(file), rule, f"a file of {size} bytes that claims {unpacked}")


def _load(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    try:
        with archive.open(info) as member:
            array = npy.read_array(member, allow_pickle=False)
        # Any other byte in a bool breaks what NumPy counts and indexes with it.
        if array.dtype == bool and (array.view(np.uint8) > 1).any():
            raise ValueError("a bool that is neither 0 nor 1")
        return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    except Exception as error:
        _refuse_damaged(name, error)


def _refuse_damaged(name: str, error: Exception) -> NoReturn:
    """Everything is caught, because a damaged or forged archive raises nearly anything."""
    reason = (str(error).splitlines() or [""])[0][:200].rstrip(".: ")
    came = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    raise ValueError(f"{name} must be whole, as numpy.savez writes it, got a damaged or foreign one ({came})") from None
