"""A user's own arrays as a model takes them: what x is, the likelihood that suits it, and how rows are split.

Reads and checks, refuses by the array's name and the row of the file, and writes nothing. `cvae.data` reads the file.
Arrays stay in the units of the file: a Normal likelihood and the conditions standardise by themselves, with statistics
of the training part, so a fitted model takes the file's own rows.
"""

from __future__ import annotations

import re

import numpy as np

import cvae
from cvae import checks
from cvae.checks import ROUNDING
from cvae.data import Rows
from experiments.harness import user_files
from experiments.harness.user_conditions import conditions
from experiments.harness.user_data import Input, UserData, listed, name_of, parts, plural, require_finite, split

MOST_CHANNELS = 4  # of a series [N, length, channels]
LEAST_SPAN = 0.5  # of values in [0, 1] that are taken as probabilities
MOST_VALUES = 20  # that a column takes and is called discrete
FAMILIES: dict[str, type[cvae.Likelihood]] = {
    "bernoulli": cvae.Bernoulli,
    "continuous_bernoulli": cvae.ContinuousBernoulli,
    "categorical_pixels": cvae.CategoricalPixels,
    "discretized_logistic": cvae.DiscretizedLogistic,
}
EIGHT_BITS = ("categorical_pixels", "discretized_logistic")  # those of uint8 pixels


def load(options: Input) -> UserData:
    """Read the arrays that the options name.

    Raises:
        ValueError: the file is none, lacks an array, or holds one that is not what it should be; names the array, the
            rule, the row, and where one line of NumPy mends it, that line.
    """
    check_options(options)
    notes: list[str] = []
    arrays, name, wanted = user_files.read(options, notes)
    return of_arrays(options, arrays, name, wanted, None, notes)


def check_options(options: Input) -> None:
    """Refuse options that are of tables."""
    for name in ("optional", "exposure", "column", "schema"):
        value = getattr(options, name)
        checks.require(not value, f"--{name}", "be left out for arrays: it is of a table (.csv, .parquet)", value)


def of_arrays(
    options: Input,
    arrays: user_files.Arrays,
    name: str,
    wanted: list[user_files.Wanted],
    rows: Rows | None,
    notes: list[str],
) -> UserData:
    """Arrays in memory as a model takes them, split at random, or into these rows."""
    x = _target(name, arrays[name], notes)
    rows = rows or split(options, repr(name), len(x))
    likelihood = _likelihood(options, name, x, rows.train, notes)
    if x.dtype.kind == "f" and np.isnan(x).any():
        hidden = any(kind == "image" for kind, *_ in wanted)
        checks.require(not hidden, repr(name), "have no missing numbers (NaN) with image=MASK", "some")
        likelihood = cvae.Missing(likelihood)
    condition, c = conditions(wanted, arrays, name, x, rows, likelihood, options.seed, notes)
    return UserData(name_of(options), *parts(x, c, rows), condition, likelihood, tuple(notes))


def _target(name: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    """The array x with a channel axis if it is images, and of a dtype that the model takes."""
    require = checks.require
    hint = " (add an axis: x[:, None])" if x.ndim == 1 else ""
    require(x.ndim in (2, 3, 4), repr(name), "have shape [N, D], [N, H, W] or [N, H, W, C]", f"{x.shape}{hint}")
    require(x.size > 0, repr(name), "hold something", f"shape {x.shape}")
    require_finite(name, x, missing=True)
    if x.dtype.kind == "f" and (missing := int(np.isnan(x).sum())):
        checks.require(missing < x.size, repr(name), "hold a number", "missing ones (NaN) only")
        notes.append(
            f"{missing:,} of {x.size:,} numbers of {name!r} are missing (NaN): nats are those of the others (missing "
            "at random); to hide known ones, and predict them, condition on image=MASK"
        )
    if x.ndim == 2:
        is_binary = x.dtype == bool or (x.dtype == np.uint8 and x.max() == 1)
        read = f"{len(x):,} rows of {x.shape[1]:,} columns"
        if not is_binary and x.dtype.kind != "f":
            read += f"; {x.dtype} values are numbers: cast what you pass to the fitted model, x.astype(float)"
            x = x.astype(np.float64)
    else:
        is_float, is_integer = x.dtype.kind == "f", x.dtype.kind in "iu" and x.dtype != np.uint8
        largest = int(x.max()) if is_integer else 0
        fits = is_integer and x.min() >= 0 and largest <= 255
        scaled = 65535 if largest > 4095 else 4095
        remedy = "x.astype('uint8')" if fits else f"x / {scaled}, the largest value that the format can have"
        require(not is_integer, repr(name), "be uint8 or floats, as images are", f"{x.dtype} values (save {remedy})")
        channels_first = x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 2, 3, 4)
        remedy = f"{x.shape}, channels first (save numpy.moveaxis(x, 1, -1))"
        require(not channels_first, repr(name), "have shape [N, H, W, C]", remedy)
        if x.ndim == 3 and is_float and 1 < x.shape[2] <= MOST_CHANNELS < x.shape[1]:
            read = f"{len(x):,} series of {x.shape[1]} steps with {x.shape[2]} channels (images? save x[..., None])"
        else:
            x = x[..., None] if x.ndim == 3 else x
            read = f"{len(x):,} images of height {x.shape[1]}, width {x.shape[2]} and {plural(x.shape[3], 'channel')}"
    notes.append(f"x is {name!r}: {read}")
    if x.dtype == np.uint8 and x.max() == 1:
        notes.append(f"{name!r} holds 0 and 1 only, and is read as black and white")
        x = x.astype(bool)
    return x


def _likelihood(options: Input, name: str, x: np.ndarray, train: np.ndarray, notes: list[str]) -> cvae.Likelihood:
    """The likelihood that is named, or that suits x; refuses x outside its support."""
    family: str = options.likelihood
    std = options.std
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    values = f"values from {low:.9g} to {high:.9g}"
    in_unit = x.dtype in (np.uint8, bool) or (low >= -ROUNDING and high <= 1 + ROUNDING)
    if family == "auto":
        family, reason = _suitable(x, in_unit, values, std)
        notes.append(f"--likelihood {family}, for {reason}")
    if family == "normal":
        return _normal(name, x, train, std, notes)
    checks.require(std is None, "--std", f"be left out with --likelihood {family}", std)
    eight_bits = family in EIGHT_BITS
    fits = x.dtype == np.uint8 if eight_bits else in_unit
    rule = f"be uint8{'' if eight_bits else ' or in [0, 1]'} for --likelihood {family}"
    checks.require(fits, repr(name), rule, f"{x.dtype} values" if eight_bits else values)
    return FAMILIES[family]()


def _normal(name: str, x: np.ndarray, train: np.ndarray, std: float | None, notes: list[str]) -> cvae.Likelihood:
    """The Gaussian with location and scale of the training part."""
    try:
        fitted = cvae.Normal.fitted(x[train], std=std)
    except ValueError as error:
        raise ValueError(f"{re.sub('^x ', f'{name!r} ', str(error))}, in the training part") from None
    scale = np.array(fitted.scale)
    if x.ndim == 2:
        if constant := listed(scale == 0):
            notes.append(f"constant in the training part, drawn as constants and worth 0 nats: {constant} of {name!r}")
        if discrete := listed(_is_discrete(x[train]) & (scale > 0)):
            notes.append(
                f"a density of discrete values can be made as large as one likes, so nats of {discrete} of {name!r}, "
                "whole numbers, do not compare between models (in a .csv or .parquet file they are counts)"
            )
    return fitted


def _suitable(x: np.ndarray, in_unit: bool, values: str, std: float | None) -> tuple[str, str]:
    """The likelihood that suits x, and why."""
    if std is not None:
        return "normal", "a standard deviation is given"
    if x.dtype == bool:
        return "bernoulli", "black and white"
    if x.ndim == 2:
        return "normal", "columns of a table"
    if x.dtype == np.uint8:
        return "bernoulli", "uint8 pixels, read as 255ths"
    if not in_unit:
        return "normal", values
    if float(np.nanmax(x) - np.nanmin(x)) < LEAST_SPAN:
        return "normal", f"{values}, which do not fill [0, 1] as probabilities do"
    return "bernoulli", f"{values}, read as probabilities"


def _is_discrete(rows: np.ndarray) -> np.ndarray:
    """Which columns hold few different whole numbers, bool [D]."""
    whole = ((rows == np.rint(rows)) | np.isnan(rows)).all(axis=0)
    return np.asarray((np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0) < MOST_VALUES) & whole)
