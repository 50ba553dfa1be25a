"""Data sets as host arrays: found or prepared, decoded, checked, split and cached.

Lives here: MNIST and its two drop-in relatives, read through tensorflow-datasets without TensorFlow, and
scikit-learn's small digits for machines that have neither MNIST nor a network. Does not live here: scaling,
binarisation, batches and devices (pixels stay uint8 until the training step), and the command line. What
has to be downloaded first is `download`'s business.

tensorflow-datasets, scikit-learn and Pillow are imported by the functions that need them: they are slow to
import, and a start that finds its arrays in the cache needs none of them.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cvae import download
from cvae.silence import quiet

NAMES = ("mnist", "fashion_mnist", "kmnist", "digits")

_NUM_CLASSES = 10
_PICTURE = (28, 28)


class Split(NamedTuple):
    """Pictures and their classes, row by row."""

    x: np.ndarray  # uint8 [N, H, W, 1], 255ths of full ink
    label: np.ndarray  # int32 [N], in [0, num_classes)


class Dataset(NamedTuple):
    """A data set cut into the three parts that an experiment uses."""

    name: str  # one of NAMES; never "auto", so that a result can say what it was computed from
    train: Split
    validation: Split
    test: Split
    num_classes: int


class DataUnavailable(ValueError):  # noqa: N818  a state of this machine, not a mistake in the call
    """A known data set cannot be read or prepared here; the message says why, where and how to mend it."""


class FallbackWarning(UserWarning):
    """The data set in use is not the one that was hoped for."""


class _Sizes(NamedTuple):
    """How many pictures each part must hold; the stored train file is train and validation together."""

    train: int = 55_000
    validation: int = 5_000
    test: int = 10_000


_SIZES = _Sizes()


class _Stored(NamedTuple):
    """The two files of a set, whole and in stored order."""

    train: Split
    test: Split


def load(name: str = "auto", data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Read a data set by name as host arrays, split into train, validation and test.

    `mnist`, `fashion_mnist`, `kmnist`: 55,000 / 5,000 / 10,000 pictures of 28x28. They are looked for in
    `data_dir`, else `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`; a set that is not there is downloaded and
    prepared there. `digits`: scikit-learn's 1,297 / 200 / 300 pictures of 8x8, always available. `auto`:
    `mnist` where it can be had, otherwise `digits` with a `FallbackWarning`.

    Validation is the first 5,000 pictures of the original train file and train the remaining 55,000, the split
    of TensorFlow's `read_data_sets`, which the article used. tensorflow-datasets stores examples in a fixed
    shuffle of its own; it is undone here, so pictures are in their original order.

    Decoded arrays are kept in `$CVAE_CACHE_DIR`, else `$XDG_CACHE_HOME/cvae`, else `~/.cache/cvae`.

    Raises `ValueError` for an unknown `name` or a given `data_dir` that is no readable folder, and its
    subclass `DataUnavailable` where a known set can be neither read nor prepared.
    """
    if not isinstance(name, str) or name not in ("auto", *NAMES):
        near = difflib.get_close_matches(str(name).lower(), ("auto", *NAMES), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name must be one of auto, {', '.join(NAMES)}, got {name!r}{hint}")
    root = _data_root(data_dir)
    if name == "digits":
        return _load_digits()
    if name != "auto":
        return _load_prepared(name, root)
    try:
        return _load_prepared("mnist", root)
    except DataUnavailable as error:
        warnings.warn(
            f"using scikit-learn's 1,797 digits of 8x8 pixels instead of MNIST, because {error} "
            "To insist on MNIST ask for it by name: --dataset mnist, or load('mnist').",
            FallbackWarning,
            stacklevel=2,
        )
        return _load_digits()


def _data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder that holds `<name>/<version>` folders; only one that the caller named must exist."""
    if data_dir is None:
        return Path(os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))
    path = os.path.expanduser(data_dir) if isinstance(data_dir, (str, os.PathLike)) else ""
    if not os.path.isdir(path) or not os.access(path, os.R_OK | os.X_OK):
        raise ValueError(f"data_dir must be an existing, readable folder, got {data_dir!r}")
    return Path(path)


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    # scikit-learn's order is by writer, so cutting it as it stands would test on strangers' hands only.
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(x))
    train, validation, test = (
        Split(x[rows], digits.target[rows].astype(np.int32)) for rows in np.split(order, (1297, 1497))
    )
    return Dataset("digits", train, validation, test, _NUM_CLASSES)


def _load_prepared(name: str, root: Path, sizes: _Sizes = _SIZES) -> Dataset:
    """A tensorflow-datasets set from the cache, else from its folder, which is prepared if missing."""
    folder = root / name / download.VERSION
    if not os.path.isdir(folder):
        mend = f"set TFDS_DATA_DIR or --data-dir to a folder that holds {name}/{download.VERSION}, or run once online"
        with _explained(f"{name} is not at {folder} and cannot be prepared there", mend):
            download.prepare_set(name, root)
    mend = "repair it, remove it to have it prepared afresh, or set TFDS_DATA_DIR or --data-dir to another"
    with _explained(f"{name} at {folder} cannot be read", mend):
        cache, fingerprint = _cache_key(name, folder)
        stored = _read_cache(cache, fingerprint, sizes)
        if stored is None:
            stored = _read_folder(name, folder, sizes)
            _write_cache(cache, fingerprint, stored)
    (x, label), held = stored.train, sizes.validation
    train, validation = Split(x[held:], label[held:]), Split(x[:held], label[:held])
    return Dataset(name, train, validation, stored.test, _NUM_CLASSES)


@contextlib.contextmanager
def _explained(what: str, mend: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into one `DataUnavailable` sentence.

    Everything is caught, because tensorflow-datasets, protobuf, Pillow and the record reader share no base
    class of errors; the original traceback is dropped, because it says less than the sentence.
    """
    try:
        yield
    except ImportError as error:
        raise DataUnavailable(f"{what}: {error}; install the missing package.") from None
    except Exception as error:
        reason = (str(error).splitlines() or ["no reason given"])[0][:300].rstrip(".: ")
        raise DataUnavailable(f"{what}: {type(error).__name__}: {reason}; {mend}.") from None


# Reading a prepared folder


def _read_folder(name: str, folder: Path, sizes: _Sizes) -> _Stored:
    """Decode both files of a prepared set. Raises what the readers raise, and ValueError on odd content."""
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    with quiet("tensorflow_datasets"):
        builder = tfds.builder_from_directory(folder)
        # As PNG bytes: the decoder of tensorflow-datasets takes twice as long as Pillow alone.
        decoders = {"image": tfds.decode.SkipDecoding()}
        sources = [builder.as_data_source(split=split, decoders=decoders) for split in ("train", "test")]
        with tqdm(total=sum(map(len, sources)), desc=f"decoding {name}", disable=None, leave=False) as bar:
            stored = _checked(_Stored(*(_decode(source, bar) for source in sources)), sizes)
    return _Stored(*(_in_original_order(part, split) for part, split in stored._asdict().items()))


def _in_original_order(part: str, stored: Split) -> Split:
    """Undo the shuffle of tensorflow-datasets: it sorts examples by the MD5 of the split's name and their place."""
    places = range(len(stored.label))
    order = sorted(places, key=lambda place: hashlib.md5(f"{part}{place}".encode()).digest())
    back = np.argsort(order)
    return Split(stored.x[back], stored.label[back])


def _decode(source: Any, bar: Any) -> Split:
    from PIL import Image

    pixels, labels = bytearray(), []
    for start in range(0, len(source), 1000):  # one by one, records take far longer to fetch
        for example in source.__getitems__(list(range(start, min(start + 1000, len(source))))):
            picture = Image.open(io.BytesIO(example["image"]), formats=("PNG",))
            if (picture.mode, picture.size) != ("L", _PICTURE):
                raise ValueError(f"pictures must be grey and 28x28, got {picture.mode} {picture.size}")
            pixels += picture.tobytes()
            labels.append(example["label"])
        bar.update(len(labels) - start)
    return Split(np.frombuffer(pixels, np.uint8).reshape(-1, *_PICTURE, 1), np.array(labels, np.int32))


def _checked(stored: _Stored, sizes: _Sizes) -> _Stored:
    counts = {"train": sizes.train + sizes.validation, "test": sizes.test}
    for (part, count), (x, label) in zip(counts.items(), stored, strict=True):
        if x.shape != (count, *_PICTURE, 1) or x.dtype != np.uint8:
            raise ValueError(f"{part} must hold {count} pictures of 28x28, got {x.dtype} {x.shape}")
        if label.shape != (count,) or label.dtype != np.int32 or label.min() < 0 or label.max() >= _NUM_CLASSES:
            raise ValueError(f"{part} must hold {count} labels in [0, {_NUM_CLASSES}), got {label.dtype} {label.shape}")
    return stored


# The cache of decoded arrays: one file per prepared folder, never needed, never trusted


def _cache_key(name: str, folder: Path) -> tuple[Path, str]:
    """Where the arrays of this folder are kept, and the state of the folder that they must come from."""
    home = os.environ.get("CVAE_CACHE_DIR") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cvae")
    place = os.path.realpath(folder)
    with os.scandir(folder) as entries:
        state = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    file = f"{name}-{download.VERSION}-{_digest(place)[:16]}.npz"
    return Path(os.path.expanduser(home)) / file, _digest(repr((place, state)))


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _read_cache(file: Path, fingerprint: str, sizes: _Sizes) -> _Stored | None:
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as kept:
            if str(kept["fingerprint"]) != fingerprint:
                return None
            train, test = (Split(kept[f"{part}_x"], kept[f"{part}_label"]) for part in _Stored._fields)
        return _checked(_Stored(train, test), sizes)
    except Exception:  # absent, truncated, foreign: a damaged zip file raises nearly anything
        return None


def _write_cache(file: Path, fingerprint: str, stored: _Stored) -> None:
    """Keep the arrays if possible; written aside and moved, so that no reader meets half a file."""
    temporary = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=file.name, suffix=".tmp", dir=file.parent)
        with os.fdopen(handle, "wb") as stream:
            arrays = {
                f"{part}_{key}": value
                for part in stored._fields
                for key, value in getattr(stored, part)._asdict().items()
            }
            np.savez(stream, fingerprint=np.array(fingerprint), **arrays)
        os.replace(temporary, file)
    except (OSError, ValueError):
        pass  # a folder that is read-only, or full: closing a half-written zip file is a ValueError
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
