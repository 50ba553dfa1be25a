"""Known image data sets as NumPy arrays: read or downloaded, checked, split and cached.

MNIST and two sets of the same format come from tensorflow-datasets, read without TensorFlow; scikit-learn's small
digits serve machines without MNIST or a network. Pixels stay uint8: the model scales them. Packages that are slow to
import are imported where they are used, and arrays from the cache need none of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae import checks
from cvae.data import download
from cvae.data.npz import read_npz

NAMES = ("mnist", "fashion_mnist", "kmnist", "digits")

_NUM_CLASSES = 10
_COUNTS = {"train": 60_000, "test": 10_000}  # images in the files of a set
_VALIDATION = 5_000  # of the train file


class Split(NamedTuple):
    """Images and their classes, row by row."""

    x: np.ndarray  # uint8 [N, H, W, 1], 255ths
    label: np.ndarray  # int32 [N], in [0, num_classes)


class Dataset(NamedTuple):
    """A data set in three parts."""

    name: str  # one of NAMES, never "auto"
    train: Split
    validation: Split
    test: Split
    num_classes: int

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one image, (H, W, 1)."""
        return self.train.x.shape[1:]


class DataUnavailable(ValueError):  # noqa: N818  a state of this machine, not a mistake in the call
    """A known data set can be neither read nor prepared here; the message says why, where, and the way out."""


class FallbackWarning(UserWarning):
    """Digits are used in place of MNIST."""


def load(name: str = "auto", data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set by name, split into train, validation and test.

    `mnist`, `fashion_mnist` and `kmnist` have 55,000 / 5,000 / 10,000 images of 28x28. Images are in their original
    order, and validation is the first 5,000 of the original train file, as in TensorFlow's `read_data_sets`. `digits`
    has 1,297 / 200 / 300 images of 8x8. `auto` is `mnist` where available, else `digits` with a `FallbackWarning`.

    Decoded arrays are cached in `cache_folder()`.

    Args:
        name: `auto` or one of `NAMES`.
        data_dir: folder of tensorflow-datasets, by default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`. A set that
            it lacks is downloaded and prepared there.

    Raises:
        ValueError: unknown `name`, or a `data_dir` that is no readable folder.
        DataUnavailable: the set can be neither read nor prepared.
    """
    checks.one_of("name", name, ("auto", *NAMES))
    root = _root(data_dir)
    if name == "digits":
        return _load_digits()
    if name != "auto":
        return _load_prepared(name, root)
    try:
        return _load_prepared("mnist", root)
    except DataUnavailable as error:
        warnings.warn(
            f"using scikit-learn's 1,797 digits of 8x8 pixels instead of MNIST, because {error} "
            "To require MNIST, name it: --dataset mnist, or load('mnist').",
            FallbackWarning,
            stacklevel=2,
        )
        return _load_digits()


def _root(data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the folder that holds `<name>/<version>` folders; one that the caller names must exist."""
    if data_dir is None:
        return Path(os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))
    root = checks.path("data_dir", data_dir)
    exists = os.fspath(data_dir) != "" and root.is_dir() and os.access(root, os.R_OK | os.X_OK)
    checks.require(exists, "data_dir", "be an existing, readable folder", checks.shown(data_dir))
    return root


def _load_digits() -> Dataset:
    # The file itself, because it takes scikit-learn a second to be imported.
    file = metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    *pixels, label = np.loadtxt(str(file), delimiter=",").T  # pixels from 0 to 16
    x = np.rint(np.stack(pixels, axis=1) * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    # scikit-learn's order is by writer: without a shuffle, the test part would hold other writers alone.
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(x))
    train, validation, test = (Split(x[rows], label[rows].astype(np.int32)) for rows in np.split(order, (1297, 1497)))
    return Dataset("digits", train, validation, test, _NUM_CLASSES)


def _load_prepared(name: str, root: Path) -> Dataset:
    """Load a set of tensorflow-datasets from the cache, else from its folder, which is prepared if missing."""
    folder = root / name / download.VERSION
    if not folder.is_dir():
        way_out = f"set TFDS_DATA_DIR or --data-dir to a folder with {name}/{download.VERSION}, or run once online"
        with _explained(f"{name} is not at {folder} and cannot be prepared there", way_out):
            download.prepare(name, root)
    way_out = "repair it, remove it to have it prepared again, or set TFDS_DATA_DIR or --data-dir to another"
    with _explained(f"{name} at {folder} cannot be read", way_out):
        arrays = _read(name, folder)
    x, label = arrays["train_x"], arrays["train_label"]
    train, validation = Split(x[_VALIDATION:], label[_VALIDATION:]), Split(x[:_VALIDATION], label[:_VALIDATION])
    return Dataset(name, train, validation, Split(arrays["test_x"], arrays["test_label"]), _NUM_CLASSES)


@contextlib.contextmanager
def _explained(what: str, way_out: str) -> Iterator[None]:
    """Turn any error into one sentence: what reads and prepares a set raises errors of many unrelated classes."""
    try:
        yield
    except ImportError as error:
        raise DataUnavailable(f"{what}: {error}; install the missing package.") from None
    except Exception as error:
        reason = (str(error).splitlines() or ["no reason"])[0][:300].rstrip(".: ")
        raise DataUnavailable(f"{what}: {type(error).__name__}: {reason}; {way_out}.") from None


def _read(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a prepared set from the cache, which is checked like any other file, else from its folder."""
    cache = _cache_file(name, folder)
    try:
        arrays = read_npz(cache)
        _check(arrays)
    except (ValueError, KeyError):  # absent, damaged, or of another version
        arrays = _decode(folder)
        _check(arrays)
        _write_cache(cache, arrays)
    return arrays


def _decode(folder: Path) -> dict[str, np.ndarray]:
    """Decode both files of a prepared set, in the original order."""
    import tensorflow_datasets as tfds
    from PIL import Image

    arrays = {}
    with download.quiet():
        builder = tfds.builder_from_directory(folder)
        for part in _COUNTS:
            # As PNG bytes: the decoder of tensorflow-datasets takes twice as long, and opens other formats too.
            source = builder.as_data_source(split=part, decoders={"image": tfds.decode.SkipDecoding()})
            examples = source.__getitems__(range(len(source)))  # one by one takes far longer
            images = [np.asarray(Image.open(io.BytesIO(example["image"]), formats=("PNG",))) for example in examples]
            labels = [example["label"] for example in examples]
            # tensorflow-datasets sorts examples by the MD5 of the split's name and their index in the original file.
            stored = np.argsort([hashlib.md5(f"{part}{index}".encode()).hexdigest() for index in range(len(source))])
            original = np.argsort(stored)
            arrays[f"{part}_x"] = np.stack(images)[original, ..., None]
            arrays[f"{part}_label"] = np.array(labels, np.int32)[original]
    return arrays


def _check(arrays: dict[str, np.ndarray]) -> None:
    """Refuse arrays that are not the whole of a set."""
    for part, count in _COUNTS.items():
        x, label = arrays[f"{part}_x"], arrays[f"{part}_label"]
        is_whole = x.dtype == np.uint8 and x.shape == (count, 28, 28, 1)
        checks.require(is_whole, part, f"hold {count} images of 28x28", f"{x.dtype} {x.shape}")
        is_whole = label.dtype == np.int32 and label.shape == (count,) and (label == label % _NUM_CLASSES).all()
        checks.require(is_whole, part, f"hold {count} labels in [0, {_NUM_CLASSES})", f"{label.dtype} {label.shape}")


def cache_folder() -> Path:
    """The folder of all caches: `$CVAE_CACHE_DIR`, else `$XDG_CACHE_HOME/cvae`, else `~/.cache/cvae`."""
    cache = os.environ.get("CVAE_CACHE_DIR") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "cvae")
    return Path(os.path.expanduser(cache))


def _cache_file(name: str, folder: Path) -> Path:
    """Return where the arrays of a folder are cached; the name depends on its path and its files' sizes and times."""
    with os.scandir(folder) as entries:
        state = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    digest = hashlib.sha256(os.fsencode(repr((os.path.realpath(folder), state)))).hexdigest()
    return cache_folder() / f"{name}-{download.VERSION}-{digest[:16]}.npz"


def _write_cache(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Cache the arrays if possible: written aside and renamed, so that no reader meets an incomplete file."""
    # A folder may be read-only or full; closing an incomplete zip file is a ValueError.
    with contextlib.suppress(OSError, ValueError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{file.name}.", dir=file.parent) as scratch:
            np.savez(Path(scratch) / file.name, **arrays)  # type: ignore[arg-type]
            os.replace(Path(scratch) / file.name, file)
