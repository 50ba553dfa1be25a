"""A user's own arrays as a model takes them: which is x, which are conditions, and in which units.

Reads and checks, and refuses by the array's name and the row of the file; writes nothing. The file itself is read by
`cvae.arrays`.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tyro

import cvae

if TYPE_CHECKING:
    import jax

    from cvae.arrays import Rows
    from cvae.conditions import Condition, Conditions, Part
    from cvae.distributions import Distribution
    from cvae.likelihoods import Likelihood
    from cvae.model import CVAE
    from cvae.networks import Params

KINDS = ("label", "continuous", "image")
# What else stands in `c`, or is an argument where conditions are named.
RESERVED = ("image", "observed", "self")


@dataclass(frozen=True)
class Input:
    """Which arrays."""

    data: Path
    """the .npz file"""
    x: str | None = None
    """name of the array to model; may be left out if only one will do"""
    condition: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """KIND=NAME, such as label=digit; may be repeated"""
    validation: float = 0.1
    """share of the examples that decides when to stop"""
    test: float = 0.1
    """share of the examples that the results are computed from"""


class Units(NamedTuple):
    """How x of the file becomes x of the model, and back.

    With statistics, (x - mean) / std, and elements whose std is 0 are left out; without, x stays as it is.
    """

    mean: np.ndarray | None = None  # [D] of rows, [] of pictures
    std: np.ndarray | None = None

    @property
    def kept(self) -> np.ndarray:
        """Which columns of a table are modelled: bool [D], or [] for pictures."""
        return np.ones((), bool) if self.std is None else self.std > 0

    @property
    def log_std(self) -> tuple[float, ...]:
        """Log standard deviations, of the kept columns or of all elements alike; empty without statistics."""
        return () if self.std is None else tuple(np.log(np.atleast_1d(self.std[self.std > 0])).tolist())

    def cut(self, x: Any) -> np.ndarray:
        """Leave out the columns that are not modelled.  Shapes: [..., D] -> [..., kept D]."""
        return np.asarray(x)[..., self.kept] if self.kept.ndim else np.asarray(x)

    def apply(self, x: Any) -> np.ndarray:
        """From the file's units to the model's.  Shapes: [N, *event] -> the same, less the columns left out."""
        if self.mean is None or self.std is None:
            return np.asarray(x) if x.dtype == np.uint8 else np.asarray(x, np.float32)
        # In double precision: a large mean would cost what varies around it.
        x, mean, std = self.cut(np.asarray(x, np.float64)), self.cut(self.mean), self.cut(self.std)
        return np.asarray((x - mean) / std, np.float32)

    def undo(self, x: Any) -> np.ndarray:
        """From the model's units to the file's, with the columns put back that never varied."""
        if self.mean is None or self.std is None:
            return np.asarray(x)
        x = np.asarray(x, np.float64)
        if not self.kept.ndim:
            return np.asarray(x * self.std + self.mean)
        rows = np.tile(self.mean, (len(x), 1))
        rows[:, self.kept] += x * self.std[self.kept]
        return rows


class InUnits(NamedTuple):
    """A likelihood of standardised elements, whose densities are those of the elements before.

    log p(x)  =  log p(standardised x)  -  log std, for every element
    """

    likelihood: Distribution
    log_std: jax.Array  # broadcasts to [B, *event]

    @property
    def mean(self) -> jax.Array:
        """Expected value, standardised, [B, *event]."""
        return self.likelihood.mean

    def log_terms(self, x: jax.Array) -> jax.Array:
        """Log density of every element in the units before.  Shapes: standardised [B, *event] -> [B, *event]."""
        return self.likelihood.log_terms(x) - self.log_std

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Log density in nats.  Shapes: standardised [B, *event] -> [B]."""
        return self.likelihood.log_prob(x) - _total(self.log_std, x)

    def sample(self, key: jax.Array) -> jax.Array:
        """A draw, standardised, [B, *event]."""
        return self.likelihood.sample(key)


def _total(log_std: jax.Array, x: jax.Array) -> jax.Array:
    return log_std.sum() * (math.prod(x.shape[1:]) / log_std.size)


@cache
def in_units(model: CVAE, log_std: tuple[float, ...]) -> CVAE:
    """The model with densities in the units of the file: the same parameters, gradients and draws.

    Args:
        model: one of standardised x.
        log_std: log standard deviations, of all columns, or one for all elements, or none for a model as it is.
    """
    import jax.numpy as jnp

    if not log_std:
        return model

    def decode(params: Params, z: jax.Array, c: Conditions) -> Distribution:
        likelihood = model.decode(params, z, c)
        shift = jnp.asarray(log_std)
        if isinstance(likelihood, cvae.distributions.Partial):  # what is given has no density, so it has no units
            return likelihood._replace(likelihood=InUnits(likelihood.likelihood, shift))
        return InUnits(likelihood, shift)

    return model._replace(decode=decode)


class Taken(NamedTuple):
    """Arrays as a model takes them, checked."""

    x: np.ndarray  # [N, *event], in the model's units
    c: dict[str, np.ndarray]  # as a data set stores them, each of length N
    condition: Condition
    likelihood: Likelihood
    units: Units
    split: Rows
    record: dict[str, Any]  # for `preprocessing.json`: which arrays, which split, which units
    said: list[str]  # what the user should know


def take(asked: Input, seed: int, family: str = "auto", scale: float | None = None) -> Taken:
    """Read the arrays that were asked for and make of them what a model takes.

    Args:
        asked: the options.
        seed: of the split.
        family: the likelihood: "auto", "bernoulli", "continuous_bernoulli" or "normal".
        scale: fixed standard deviation of a normal likelihood.

    Raises:
        ValueError: the file is none, lacks an array, or holds one that is not what it is said to be.
    """
    said: list[str] = []
    wanted = _parse(asked)
    arrays, name = _read(asked, wanted, said)
    given = _target(name, arrays[name], said)
    split = cvae.arrays.split(len(given), seed, asked.validation, asked.test)
    fewest = min(map(len, split))
    cvae.checks.require(fewest >= 2, repr(name), "leave every part two examples", f"{len(given)} in all")
    likelihood = _likelihood(family, scale, name, given)
    normal = isinstance(likelihood, cvae.likelihoods.Normal)
    units = _standardise(name, given, split.train, said) if normal else Units()
    x = units.apply(given)
    condition, c, called = _conditions(wanted, arrays, name, given, split.train, units, said)
    fractions = {"seed": seed, "validation": asked.validation, "test": asked.test}
    record = {"x": name, "conditions": called, "split": fractions, **units._asdict()}
    return Taken(x, c, condition, likelihood, units, split, record, said)


def _parse(asked: Input) -> list[tuple[str, str]]:
    """The conditions as (kind, name); refuses what is not KIND=NAME, a name given twice, and two images."""
    wanted: list[tuple[str, str]] = []
    require = cvae.checks.require
    for text in asked.condition:
        kind, equals, name = text.partition("=")
        require(bool(equals and name), "--condition", "be KIND=NAME, such as label=digit", repr(text))
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"; did you mean {near[0]}={name}?" if near else ""
        require(kind in KINDS, "--condition", f"be of a kind among {', '.join(KINDS)}", f"{text!r}{hint}")
        require(name not in [other for _, other in wanted], "--condition", "name every array once", f"{name!r} twice")
        require(name != asked.x, "--condition", "name another array than --x", repr(text))
        wanted.append((kind, name))
    images = [name for kind, name in wanted if kind == "image"]
    require(len(images) < 2, "--condition", "name one image at most", f"image={' and image='.join(images)}")
    return wanted


def _read(asked: Input, wanted: list[tuple[str, str]], said: list[str]) -> tuple[dict[str, np.ndarray], str]:
    """The arrays that were asked for, and the name of x; refuses a mask that is in doubt, and an x that is."""
    present, masks, require = cvae.arrays.names_in(asked.data), tuple(cvae.masks.MASKS), cvae.checks.require
    names = []
    for kind, name in wanted:
        if kind == "image" and name in masks:
            clear = name not in present
            require(clear, "--condition", "name a mask or an array", f"{name!r}, which is both; rename the array")
            continue
        if kind == "image" and name not in present:
            near = difflib.get_close_matches(name, masks + present, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            rule = f"name an array of {asked.data} or a mask, one of {', '.join(masks)}"
            require(False, "--condition image", rule, f"{name!r}{hint}")
        names.append(name)
    if asked.x is not None:
        return cvae.arrays.read(asked.data, list(dict.fromkeys((asked.x, *names)))), asked.x
    arrays = cvae.arrays.read(asked.data)
    suitable = [
        name for name, array in arrays.items() if name not in names and array.ndim in (2, 3, 4) and array.dtype != bool
    ]
    came = f"{suitable or 'none'} among {list(arrays)}"
    require(len(suitable) == 1, "--x", "be given unless one array alone will do ([N, D], [N, H, W, C])", came)
    said.append(f"x is {suitable[0]!r}, {arrays[suitable[0]].dtype} {arrays[suitable[0]].shape}")
    return arrays, suitable[0]


def _target(name: str, x: np.ndarray, said: list[str]) -> np.ndarray:
    """X with a channel axis if it is pictures, finite, and of a dtype that the model can be given."""
    require = cvae.checks.require
    hint = " (add an axis: [:, None])" if x.ndim == 1 else ""
    require(x.ndim in (2, 3, 4), repr(name), "have shape [N, D], [N, H, W] or [N, H, W, C]", f"{x.shape}{hint}")
    require(x.size > 0, repr(name), "hold something", f"shape {x.shape}")
    if x.ndim > 2:
        kinds = x.dtype in (np.uint8, bool) or x.dtype.kind == "f"
        hint = ' (from 0 to 255? save it with .astype("uint8"))'
        require(kinds, repr(name), "be uint8 or floats, as pictures are", f"{x.dtype}{hint}")
    _require_finite(name, x)
    if x.ndim == 3:
        x = x[..., None]
    if x.dtype == np.uint8 and x.ndim > 2 and x.max() == 1:
        said.append(f"{name!r} holds 0 and 1 only, and is taken as black and white")
        x = x.astype(bool)
    return x


def _require_finite(name: str, array: np.ndarray) -> None:
    """Refuse floats that are not finite in float32, by the row of the file."""
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(array.astype(np.float32))
    place = np.unravel_index(int(bad.argmax()), bad.shape)
    rule = "be finite numbers, below 3.4e38"
    cvae.checks.require(not bad.any(), repr(name), rule, f"{array[place]:g} at row {place[0]}")


def _likelihood(family: str, scale: float | None, name: str, x: np.ndarray) -> Likelihood:
    """The likelihood that was asked for, or that suits x; refuses x outside its support."""
    on_unit = x.dtype in (np.uint8, bool) or bool(x.min() >= 0 and x.max() <= 1)
    if family == "auto":
        grey = on_unit and (x.ndim > 2 or x.dtype == bool)
        family = "bernoulli" if grey and scale is None else "normal"
    if family == "normal":
        return cvae.likelihoods.Normal(scale)
    cvae.checks.require(scale is None, "--scale", f"be left out with --likelihood {family}", scale)
    rule = f"be uint8 or in [0, 1] for --likelihood {family}"
    cvae.checks.require(on_unit, repr(name), rule, f"values from {x.min():g} to {x.max():g}")
    return cvae.likelihoods.Bernoulli() if family == "bernoulli" else cvae.likelihoods.ContinuousBernoulli()


def _standardise(name: str, x: np.ndarray, train: np.ndarray, said: list[str]) -> Units:
    """The statistics of the training part: of every column of a table, of all elements of pictures together."""
    values = np.asarray(x[train], np.float64)
    axis = 0 if x.ndim == 2 else None
    mean, std = np.asarray(values.mean(axis=axis)), np.asarray(values.std(axis=axis))
    varies = std > 1e-6 * np.abs(values).max(axis=axis)
    cvae.checks.require(bool(varies.any()), repr(name), "vary", f"{values.flat[0]:g} throughout the training part")
    constant = np.flatnonzero(~np.atleast_1d(varies)).tolist()
    if constant:
        listed = f"column {constant[0]}" if len(constant) == 1 else f"columns {', '.join(map(str, constant))}"
        said.append(f"left out of the model, because constant in the training part: {listed} of {name!r}")
    # The first row's value itself, and not a mean that rounding may have moved.
    return Units(np.where(varies, mean, values[0] if axis == 0 else mean), np.where(varies, std, 0.0))


def _conditions(
    wanted: list[tuple[str, str]],
    arrays: dict[str, np.ndarray],
    x_name: str,
    x: np.ndarray,
    train: np.ndarray,
    units: Units,
    said: list[str],
) -> tuple[Condition, dict[str, np.ndarray], dict[str, str]]:
    """The condition of the model, the arrays it stores, and which array each of its names stands for."""
    parts: dict[str, Part] = {}
    stored: dict[str, np.ndarray] = {}
    renamed: dict[str, str] = {}
    event = units.cut(x[:1]).shape[1:]
    for kind, name in wanted:
        given = name in arrays
        if kind == "image":
            parts["image"] = cvae.Image(event, "given" if given else name)
            renamed["image"] = name
            if given:
                stored["observed"] = units.cut(_mask(name, arrays[name], x.shape, units))
            continue
        key = _identifier(name, taken=(*RESERVED, *parts))
        if key != name:
            said.append(f"the array {name!r} is called {key!r} as a condition")
        renamed[key] = name
        cvae.checks.same_length(repr(name), len(arrays[name]), repr(x_name), len(x))
        if kind == "label":
            stored[key], classes = _labels(name, arrays[name], train)
            parts[key] = cvae.Label(classes, key)
        else:
            stored[key] = _numbers(name, arrays[name])
            parts[key] = _continuous(name, key, stored[key][train])
    if len(parts) < 2:
        return next(iter(parts.values()), cvae.Nothing()), stored, renamed
    return cvae.Mixed(**parts), stored, renamed


def _identifier(name: str, taken: tuple[str, ...]) -> str:
    """A Python identifier that is like the name of an array, and not taken."""
    plain = re.sub(r"\W", "_", name)
    plain = f"_{plain}" if not plain.isidentifier() else plain
    free = plain
    number = 2
    while free in taken:
        free, number = f"{plain}_{number}", number + 1
    return free


def _labels(name: str, label: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels as int32 [N], and the number of classes in the training part."""
    require = cvae.checks.require
    right = label.dtype.kind in "biu" and label.ndim == 1
    require(right, repr(name), "be integers [N]", f"{label.dtype} {label.shape}")
    negative = int(label.argmin())
    require(label[negative] >= 0, repr(name), "be classes from 0 on", f"{label[negative]} at row {negative}")
    classes = int(label[train].max()) + 1
    largest = int(label.argmax())
    came = f"{label[largest]} at row {largest}"
    # One weight a class: numbers that identify, or code, would fill the memory.
    number_them = f"be classes numbered from 0 (numpy.unique(..., return_inverse=True) does), below {len(label)}"
    require(int(label[largest]) < len(label), repr(name), number_them, came)
    require(label[largest] < classes, repr(name), f"be in [0, {classes}), the classes of the training part", came)
    require(classes > 1, repr(name), "name two classes at least", "0 in every row")
    return label.astype(np.int32), classes


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    """Real numbers as [N, D]."""
    right = values.dtype != bool and values.ndim in (1, 2) and values.size > 0
    cvae.checks.require(right, repr(name), "be real numbers [N] or [N, D]", f"{values.dtype} {values.shape}")
    _require_finite(name, values)
    return values[:, None] if values.ndim == 1 else values


def _continuous(name: str, key: str, values: np.ndarray) -> Part:
    """`Continuous.fitted` of the training part, with refusals that name the array as the file does."""
    try:
        return cvae.Continuous.fitted(values, key)
    except ValueError as error:
        raise ValueError(f"{str(error).replace(f'c[{key!r}]', repr(name))}, in the training part") from None


def _mask(name: str, mask: np.ndarray, shape: tuple[int, ...], units: Units) -> np.ndarray:
    """A boolean mask of every example, from one of each or one for all; pictures may leave out the channels."""
    require = cvae.checks.require
    event = shape[1:]
    shapes = [event, shape] + ([event[:-1], shape[:-1]] if len(event) == 3 else [])
    expected = f"be boolean, True where x is seen, of a shape among {', '.join(map(str, shapes))}"
    require(mask.dtype == bool and mask.shape in shapes, repr(name), expected, f"{mask.dtype} {mask.shape}")
    if mask.shape not in shapes[:2]:
        mask = mask[..., None]
    every = np.broadcast_to(mask, shape)
    whole = units.cut(every).reshape(len(every), -1).all(axis=1)
    require(not whole.any(), repr(name), "hide something of every example", f"nothing hidden at row {whole.argmax()}")
    return every
