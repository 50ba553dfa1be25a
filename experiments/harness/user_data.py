"""A user's own arrays as a model takes them: which array is x, which are conditions, and how they are split.

Reads and checks, refuses by the array's name and the row of the file, and writes nothing. `cvae.data` reads the file.
Arrays stay in the units of the file: a Normal likelihood and the conditions standardise by themselves, with statistics
of the training part, so a fitted model takes the file's own rows.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from pydantic import Field

import cvae
from cvae import checks, masks
from cvae.checks import ROUNDING
from cvae.data import Rows, npz_names, read_npz, split_rows
from cvae.keys import named
from experiments.harness.cli import RunSettings
from experiments.harness.run import Examples

KINDS = ("label", "continuous", "image")
RESERVED = ("image", "observed", "shift")  # names that mean something else among conditions
MOST_CHANNELS = 4  # of a series [N, length, channels]
LEAST_SPAN = 0.5  # of values in [0, 1] that are taken as probabilities
MOST_VALUES = 20  # that a column takes and is called discrete
MOST_LISTED = 8  # columns that a note names


@cvae.setting
class Input(RunSettings):
    """Which arrays, and how they are read."""

    data: Path = field(kw_only=True)
    """the .npz file"""
    x: str | None = None
    """name of the array to model; may be left out if only one will do"""
    condition: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """KIND=NAME, such as label=digit; may be repeated"""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """share of the examples that decides when to stop"""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """share of the examples that the results are computed from"""
    likelihood: Literal["auto", "bernoulli", "continuous_bernoulli", "normal"] = "auto"
    """of x; auto chooses, and says what and why"""
    std: float | None = None
    """fixed standard deviation of a normal likelihood, in standard deviations of x; None has it learned"""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["train", "validation", "test"],
    meta_fields=["name", "condition", "likelihood", "notes"],
)
@dataclass(frozen=True)
class UserData:
    """A user's examples, checked and split, and the condition and likelihood that suit them; a tree of its arrays."""

    name: str  # of the file, without what a run folder cannot have in its name
    train: Examples
    validation: Examples
    test: Examples
    condition: cvae.Condition
    likelihood: cvae.Likelihood
    notes: tuple[str, ...]  # what the user should know

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.train[0].shape[1:])

    @property
    def what(self) -> str:
        """What an example is: a row, a series or an image."""
        return {1: "row", 2: "series", 3: "image"}[len(self.event_shape)]


def load(options: Input) -> UserData:
    """Read the arrays that the options name.

    Raises:
        ValueError: the file is none, lacks an array, or holds one that is not what it should be; names the array, the
            rule, the row, and where one line of NumPy mends it, that line.
    """
    notes: list[str] = []
    wanted = _parse(options)
    arrays, name = _read(options, wanted)
    x = _target(name, arrays[name], notes)
    rows = split_rows(len(x), options.seed, options.validation, options.test)
    rule = "leave two examples for each of train, validation and test (see --validation and --test)"
    checks.require(min(map(len, rows)) >= 2, repr(name), rule, f"{[len(part) for part in rows]} of {len(x)}")
    likelihood = _likelihood(options, name, x, rows.train, notes)
    condition, c = _conditions(wanted, arrays, name, x, rows, likelihood, options.seed, notes)
    train, validation, test = ((x[part], {key: values[part] for key, values in c.items()}) for part in rows)
    stem = re.sub(r"[^\w.+-]", "_", options.data.stem)
    return UserData(stem, train, validation, test, condition, likelihood, tuple(notes))


# Which arrays


def _parse(options: Input) -> list[tuple[str, str]]:
    """The conditions as (kind, name)."""
    wanted: list[tuple[str, str]] = []
    require = checks.require
    for text in options.condition:
        kind, equals, name = text.partition("=")
        require(bool(equals and name), "--condition", "be KIND=NAME, such as label=digit", repr(text))
        rule = f"be of a kind among {', '.join(KINDS)}"
        require(kind in KINDS, "--condition", rule, f"{text!r}{_near(kind, KINDS, f'={name}')}")
        require(name not in [other for _, other in wanted], "--condition", "name every array once", f"{name!r} twice")
        require(name != options.x, "--condition", "name another array than --x", repr(text))
        reserved = kind != "image" and name in RESERVED
        rule = f"name an array other than {', '.join(RESERVED)}, which mean something else (rename it in the file)"
        require(not reserved, "--condition", rule, repr(text))
        wanted.append((kind, name))
    images = [name for kind, name in wanted if kind == "image"]
    require(len(images) < 2, "--condition", "name one image at most", f"image={' and image='.join(images)}")
    return wanted


def _near(word: str, words: tuple[str, ...], more: str = "") -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}{more}?" if near else ""


def _read(options: Input, wanted: list[tuple[str, str]]) -> tuple[dict[str, np.ndarray], str]:
    """The arrays that are wanted, and the name of x."""
    path, require, known = options.data, checks.require, tuple(masks.MASKS)
    present = npz_names(path)
    names = []
    for kind, name in wanted:
        if kind == "image" and name in known:
            rule = "name a mask or an array"
            require(name not in present, "--condition", rule, f"{name!r}, which is both; rename the array")
            continue
        rule = f"name an array of {path}" + (f" or a mask, one of {', '.join(known)}" if kind == "image" else "")
        near = _near(name, present + (known if kind == "image" else ()))
        require(name in present, "--condition", rule, f"{kind}={name}{near}")
        names.append(name)
    if options.x is not None:
        rule = f"name an array of {path}, one of {', '.join(present)}"
        require(options.x in present, "--x", rule, f"{options.x}{_near(options.x, present)}")
        return read_npz(path, list(dict.fromkeys((options.x, *names)))), options.x
    arrays = read_npz(path)
    suitable = [key for key, each in arrays.items() if key not in names and each.ndim in (2, 3, 4)]
    rule = "be given unless one array alone will do ([N, D], [N, H, W] or [N, H, W, C])"
    require(len(suitable) == 1, "--x", rule, f"{suitable or 'none'} among {list(arrays)}")
    return arrays, suitable[0]


# What is modelled


def _target(name: str, x: np.ndarray, notes: list[str]) -> np.ndarray:
    """The array x with a channel axis if it is images, and of a dtype that the model takes."""
    require = checks.require
    hint = " (add an axis: x[:, None])" if x.ndim == 1 else ""
    require(x.ndim in (2, 3, 4), repr(name), "have shape [N, D], [N, H, W] or [N, H, W, C]", f"{x.shape}{hint}")
    require(x.size > 0, repr(name), "hold something", f"shape {x.shape}")
    _require_finite(name, x)
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
            read = f"{len(x):,} images of height {x.shape[1]}, width {x.shape[2]} and {_plural(x.shape[3], 'channel')}"
    notes.append(f"x is {name!r}: {read}")
    if x.dtype == np.uint8 and x.max() == 1:
        notes.append(f"{name!r} holds 0 and 1 only, and is read as black and white")
        x = x.astype(bool)
    return x


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _require_finite(name: str, array: np.ndarray) -> None:
    """Refuse floats that are not finite in float32, by the row of the file."""
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(array.astype(np.float32))
    if wrong.any():
        place = np.unravel_index(int(wrong.argmax()), wrong.shape)
        every = "" if array.ndim == 1 else f".all(axis={tuple(range(1, array.ndim))})"
        got = f"{array[place]:g} at row {place[0]} (numpy.isfinite(x){every} are the rows to keep)"
        checks.require(False, repr(name), "be finite numbers, below 3.4e38", got)


def _likelihood(options: Input, name: str, x: np.ndarray, train: np.ndarray, notes: list[str]) -> cvae.Likelihood:
    """The likelihood that is named, or that suits x; refuses x outside its support."""
    family: str = options.likelihood
    std = options.std
    low, high = float(x.min()), float(x.max())
    values = f"values from {low:.9g} to {high:.9g}"
    in_unit = x.dtype in (np.uint8, bool) or (low >= -ROUNDING and high <= 1 + ROUNDING)
    if family == "auto":
        family, reason = _suitable(x, in_unit, values, std)
        notes.append(f"--likelihood {family}, for {reason}")
    if family != "normal":
        checks.require(std is None, "--std", f"be left out with --likelihood {family}", std)
        rule = f"be uint8 or in [0, 1] for --likelihood {family}"
        checks.require(in_unit, repr(name), rule, values)
        return cvae.Bernoulli() if family == "bernoulli" else cvae.ContinuousBernoulli()
    try:
        fitted = cvae.Normal.fitted(x[train], std=std)
    except ValueError as error:
        raise ValueError(f"{re.sub('^x ', f'{name!r} ', str(error))}, in the training part") from None
    scale = np.array(fitted.scale)
    if x.ndim == 2:
        if constant := _listed(scale == 0):
            notes.append(f"constant in the training part, drawn as constants and worth 0 nats: {constant} of {name!r}")
        if discrete := _listed(_is_discrete(x[train]) & (scale > 0)):
            notes.append(
                f"a density of discrete values can be made as large as one likes, so nats of {discrete} of {name!r}, "
                "whole numbers, do not compare between models"
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
    if float(x.max() - x.min()) < LEAST_SPAN:
        return "normal", f"{values}, which do not fill [0, 1] as probabilities do"
    return "bernoulli", f"{values}, read as probabilities"


def _is_discrete(rows: np.ndarray) -> np.ndarray:
    """Which columns hold few different whole numbers, bool [D]."""
    return np.asarray((np.ptp(rows, axis=0) < MOST_VALUES) & (rows == np.rint(rows)).all(axis=0))


def _listed(columns: np.ndarray) -> str:
    """The numbers of the columns that are True, shortened; empty if none is."""
    found = np.flatnonzero(columns).tolist()
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return f"column{'s' * (len(found) != 1)} {', '.join(map(str, found[:MOST_LISTED]))}{more}" if found else ""


# What it is conditioned on


def _conditions(
    wanted: list[tuple[str, str]],
    arrays: dict[str, np.ndarray],
    x_name: str,
    x: np.ndarray,
    rows: Rows,
    likelihood: cvae.Likelihood,
    seed: int,
    notes: list[str],
) -> tuple[cvae.Condition, dict[str, np.ndarray]]:
    """The condition of the model, and its arrays."""
    parts: list[cvae.Condition] = []
    c: dict[str, np.ndarray] = {}
    for kind, name in wanted:
        if kind == "image":
            part, more = _image(name, arrays.get(name), x, likelihood, seed)
            parts.append(part)
            c |= more
            continue
        count = f"hold one entry per example of {x_name!r}, {len(x)} of them"
        checks.require(len(arrays[name]) == len(x), repr(name), count, len(arrays[name]))
        if kind == "label":
            c[name], classes = _labels(name, arrays[name], rows.train, notes)
            parts.append(cvae.Label(classes, name))
        else:
            c[name] = _numbers(name, arrays[name])
            parts.append(_continuous(name, c[name][rows.train], notes))
    if len(parts) < 2:
        return next(iter(parts), cvae.Unconditional()), c
    return cvae.Mixed(tuple(parts)), c


def _labels(name: str, label: np.ndarray, train: np.ndarray, notes: list[str]) -> tuple[np.ndarray, int]:
    """Labels as int32 [N], and the number of classes in the training part."""
    require = checks.require
    got = f"{label.dtype} of shape {label.shape}"
    if label.ndim == 2:
        one_hot = label.shape[1] > 1 and bool(np.isin(label, (0, 1)).all() and (label.sum(axis=1) == 1).all())
        got += " (one-hot? save label.argmax(axis=1))" if one_hot else ""
        got += " (save label[:, 0])" if label.shape[1] == 1 else ""
    require(label.ndim == 1, repr(name), "be integers of shape [N]", got)
    _require_finite(name, label)
    if label.dtype.kind == "f":
        whole = bool((label == np.rint(label)).all())
        got += "" if whole else " with fractions (numbers? use continuous=...; numpy.digitize makes classes of them)"
        require(whole, repr(name), "be integers of shape [N]", got)
        notes.append(f"{name!r} holds whole floats, and is read as integers")
    negative, largest = int(label.argmin()), int(label.argmax())
    number = "numpy.unique(label, return_inverse=True)[1] numbers them"
    require(
        label[negative] >= 0, repr(name), f"be classes from 0 on ({number})", f"{label[negative]} at row {negative}"
    )
    came = f"{int(label[largest])} at row {largest}"
    # There is a weight per class: numbers that identify, or code, would fill the memory.
    require(int(label[largest]) < len(label), repr(name), f"be classes below {len(label)} ({number})", came)
    classes = int(label[train].max()) + 1
    require(label[largest] < classes, repr(name), f"be in [0, {classes}), the classes of the training part", came)
    require(classes > 1, repr(name), "name two classes at least", "0 in every row")
    unused = np.setdiff1d(np.arange(classes), label[train].astype(np.int64)).tolist()
    if unused:
        notes.append(
            f"no training row is of class {', '.join(map(str, unused[:MOST_LISTED]))}"
            f"{' and more' * (len(unused) > MOST_LISTED)} of {name!r}: what is drawn of it means nothing ({number})"
        )
    return label.astype(np.int32), classes


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    """Real numbers as [N, D]."""
    right = values.ndim in (1, 2) and values.size > 0
    got = f"{values.dtype} of shape {values.shape}"
    checks.require(right, repr(name), "be real numbers of shape [N] or [N, D]", got)
    _require_finite(name, values)
    values = values[:, None] if values.ndim == 1 else values
    return values if values.dtype.kind == "f" else values.astype(np.float32 if values.dtype == bool else np.float64)


def _continuous(name: str, values: np.ndarray, notes: list[str]) -> cvae.Continuous:
    """`Continuous.fitted` of the training part, with refusals that name the array as the file does."""
    try:
        fitted = cvae.Continuous.fitted(values, name)
    except ValueError as error:
        raise ValueError(f"{str(error).replace(f'c[{name!r}]', repr(name))}, in the training part") from None
    if constant := _listed(np.array(fitted.std) == 0):
        notes.append(f"constant in the training part, and no condition therefore: {constant} of {name!r}")
    return fitted


def _image(
    name: str, mask: np.ndarray | None, x: np.ndarray, likelihood: cvae.Likelihood, seed: int
) -> tuple[cvae.Image, dict[str, np.ndarray]]:
    """The condition on a part of x, and its arrays; masks that vary are drawn once, for what is scored."""
    event = x.shape[1:]
    fields: dict[str, Any] = {}
    if isinstance(likelihood, cvae.Normal):
        fields = {"location": likelihood.location, "scale": likelihood.scale}
    condition = cvae.Image(event, name if mask is None else "given", **fields)  # type: ignore[arg-type]
    c = {"image": x}
    if mask is not None:
        varies = np.broadcast_to(np.array(fields.get("scale", 1.0)) > 0, event)
        c["observed"] = _mask(name, mask, x.shape, varies)
    elif "observed" in condition.spec:
        key = named(named(jax.random.key(seed), "test"), "init")
        c["observed"] = np.asarray(masks.draw(name, key, len(x), event))
    return condition, c


def _mask(name: str, mask: np.ndarray, shape: tuple[int, ...], varies: np.ndarray) -> np.ndarray:
    """A mask per example, from one of each or one for all; those of images may leave out the channels."""
    require, event = checks.require, shape[1:]
    shapes = [event, shape] + ([event[:-1], shape[:-1]] if len(event) == 3 else [])
    rule = f"be boolean, True where x is observed, of a shape among {', '.join(map(str, shapes))}"
    require(mask.dtype == bool and mask.shape in shapes, repr(name), rule, f"{mask.dtype} of shape {mask.shape}")
    every = np.broadcast_to(mask if mask.shape in shapes[:2] else mask[..., None], shape)
    whole = (every | ~varies).reshape(len(every), -1).all(axis=1)
    require(not whole.any(), repr(name), "hide something of every example", f"nothing hidden at row {whole.argmax()}")
    return every
