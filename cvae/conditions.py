"""What a condition is: check the raw value, complete it from x, encode it, and say what of x it reveals.

A model's conditions arrive as one dict `c` of named arrays. Each class here names the arrays it reads and has the
same few methods, so that no other room knows one condition from another:

    check_stored(c, batch)   refuse what a data set must not hold
    complete(key, x, c)      what the model is given, from what is stored: an `Image` is cut from x here
    check(c, batch)          refuse what a model must not be given
    encode(c)                features [B, width], as the networks see them
    omit(key, c, p)          the same, with a block of what is seen left out of some examples: noise for training
    split(features)          those that are pictures of x's shape, and the numbers: for convolutions
    reveals(c)               the part of x that is given already, as (seen, values), or None

Nobody else calls `one_hot`. How features enter a network is `networks`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae import checks, masks

Conditions = Mapping[str, jax.Array | np.ndarray]  # raw conditions by name, each of length B


class _Condition:
    """What the conditions have in common unless they say otherwise."""

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of `c` that the model reads."""
        raise NotImplementedError

    @property
    def stored_names(self) -> tuple[str, ...]:
        """Keys of `c` that a data set stores."""
        return self.names

    def check_values(self, c: Any, batch: int | None, *, stored: bool = False) -> None:
        """Refuse bad values under `names`, or `stored_names`, whose presence is known."""
        raise NotImplementedError

    def check(self, c: Any, batch: int | None = None) -> None:
        """Refuse a `c` that a model must not be given; `batch` is the B that x has, where there is an x."""
        checks.names("c", c, self.names)
        self.check_values(c, batch)

    def check_stored(self, c: Any, batch: int) -> None:
        """Refuse a `c` that a data set of `batch` examples must not hold."""
        checks.names("c", c, self.stored_names)
        self.check_values(c, batch, stored=True)

    def complete(self, key: Array, x: Array, c: Conditions) -> Conditions:
        """What the model is given, from what is stored."""
        return c

    def omit(self, key: Array, c: Conditions, probability: float) -> Conditions:
        """With this probability an example's, what the model is given less a block of a picture; others stay."""
        return c

    @property
    def width(self) -> int:
        """Number of features."""
        raise NotImplementedError

    @property
    def pictures(self) -> int:
        """How many pictures of x's shape are among the features."""
        return 0

    @property
    def numbers(self) -> int:
        """How many features are no pixels of theirs."""
        return self.width

    def split(self, features: Array) -> tuple[list[Array], Array]:
        """The pictures among the features, and the numbers.  Shapes: [B, width] -> [B, *event] each, [B, numbers]."""
        return [], features

    def reveals(self, c: Conditions) -> tuple[Array, Array] | None:
        """The part of x that `c` gives away: bool [B, *event], True where it is seen, and the values there."""
        return None


@dataclass(frozen=True)
class Nothing(_Condition):
    """No condition: the model is a plain VAE, and `c` is the empty dict."""

    @property
    def names(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def width(self) -> int:
        """Number of features, 0."""
        return 0

    def check_values(self, c: Any, batch: int | None, *, stored: bool = False) -> None:
        """There are none."""

    def encode(self, c: Conditions) -> Array:
        """Features [1, 0]: one row, because without a condition there is no batch to read; it broadcasts."""
        return jnp.zeros((1, 0))


@dataclass(frozen=True)
class Label(_Condition):
    """A class label, `c = {"label": int[B]}` with values in [0, num_classes), entering one-hot.

    Raises:
        ValueError: `num_classes` is not a whole number of at least 2; the name is none.
    """

    num_classes: int
    name: str = "label"

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_classes", checks.whole_number("num_classes", self.num_classes, least=2))
        checks.word("name", self.name)

    @property
    def names(self) -> tuple[str, ...]:
        """The label's."""
        return (self.name,)

    @property
    def width(self) -> int:
        """Number of features, one a class."""
        return self.num_classes

    def check_values(self, c: Any, batch: int | None, *, stored: bool = False) -> None:
        """Refuse labels that are not int[B], out of range, or not one an example of x."""
        label, name = c[self.name], f"c[{self.name!r}]"
        shape = checks.shape_of(name, label)
        rule = f"be integers in [0, {self.num_classes}), shape [B]"
        is_integer = checks.is_integer(label.dtype)
        hint = " (one-hot? pass its argmax)" if shape[1:] == (self.num_classes,) else ""
        checks.require(is_integer and len(shape) == 1, name, rule, f"{label.dtype} of shape {shape}{hint}")
        checks.require(shape[0] > 0, name, "hold at least one label", f"shape {shape}")
        if batch is not None:
            checks.same_length(name, shape[0], "x", batch)
        array = checks.values(label)
        if array is not None:
            outside = (array < 0) | (array >= self.num_classes)
            row = int(outside.argmax())
            checks.require(not outside.any(), name, rule, f"{array[row]} at row {row}")

    def encode(self, c: Conditions) -> Array:
        """One-hot features.  Shapes: c[name] [B] -> [B, num_classes]."""
        return jax.nn.one_hot(c[self.name], self.num_classes)


# Float32's largest number, and the smallest that no processor takes for 0.
_LARGEST, _SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Continuous(_Condition):
    """Real numbers, `c = {"continuous": [B, dim]}` in their own units, entering standardised: (value - mean) / std.

    The statistics are those of the training set, and part of the condition, so that they go wherever the model
    goes: `Continuous.fitted(values)` takes them. Left out, they are 0 and 1.

    Raises:
        ValueError: `dim` is not a whole number of at least 1; the statistics are not `dim` finite numbers of
            float32, or a standard deviation is not above 0; the name is none.
    """

    dim: int = 1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    name: str = "continuous"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", checks.whole_number("dim", self.dim))
        checks.word("name", self.name)
        object.__setattr__(self, "mean", checks.several("mean", self.mean) or (0.0,) * self.dim)
        object.__setattr__(self, "std", checks.several("std", self.std) or (1.0,) * self.dim)
        for name, values in (("mean", self.mean), ("std", self.std)):
            checks.require(len(values) == self.dim, name, f"hold dim = {self.dim} numbers", len(values))
        for column in range(self.dim):
            checks.finite_number(f"mean[{column}]", self.mean[column])
            checks.positive_number(f"std[{column}]", self.std[column])
            # Features are float32, in which other numbers are infinite, or 0.
            rule = f"be a number of float32, up to {_LARGEST:.3g}"
            checks.require(abs(float(self.mean[column])) <= _LARGEST, f"mean[{column}]", rule, self.mean[column])
            rule = f"be a number of float32, from {_SMALLEST:.3g} to {_LARGEST:.3g}"
            std = float(self.std[column])
            checks.require(_SMALLEST <= std <= _LARGEST, f"std[{column}]", rule, self.std[column])
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))

    @classmethod
    def fitted(cls, values: Any, name: str = "continuous") -> Continuous:
        """The condition whose statistics are those of `values`, [N, dim].

        Raises:
            ValueError: not finite real numbers of shape [N, dim], or a column is constant; names the column.
        """
        label = f"c[{name!r}]"
        _check_real(label, values, None)
        array = np.asarray(values, np.float64)
        std = array.std(axis=0)
        for column in np.flatnonzero(~(std > 1e-6 * np.maximum(np.abs(array).max(axis=0), 1e-30))):
            checks.require(False, label, "vary", f"{array[0, column]:g} in every row of column {column}")
        return cls(array.shape[1], tuple(map(float, array.mean(axis=0))), tuple(map(float, std)), name)

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers'."""
        return (self.name,)

    @property
    def width(self) -> int:
        """Number of features, dim."""
        return self.dim

    def check_values(self, c: Any, batch: int | None, *, stored: bool = False) -> None:
        """Refuse what is not finite real numbers [B, dim], also once standardised, one row an example of x."""
        name = f"c[{self.name!r}]"
        _check_real(name, c[self.name], self.dim)
        array = checks.values(c[self.name])
        if array is not None:
            with np.errstate(over="ignore"):
                mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
                features = (checks.single(array) - mean) / std
            row, column = np.unravel_index(int((~np.isfinite(features)).argmax()), features.shape)
            rule = "be finite when standardised, (value - mean) / std"
            checks.require(bool(np.isfinite(features).all()), name, rule, f"{array[row, column]} at row {row}")
        if batch is not None:
            checks.same_length(name, c[self.name].shape[0], "x", batch)

    def encode(self, c: Conditions) -> Array:
        """Standardised features.  Shapes: c[name] [B, dim] -> [B, dim]."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return (jnp.asarray(c[self.name], jnp.float32) - mean) / std


def _check_real(name: str, values: Any, dim: int | None) -> None:
    shape = checks.shape_of(name, values)
    rule = f"be finite real numbers, shape [B, {'dim' if dim is None else dim}]"
    is_real = checks.is_float(values.dtype) or checks.is_integer(values.dtype)
    hint = " (add an axis: [:, None])" if len(shape) == 1 else ""
    fits = len(shape) == 2 and shape[1] == (shape[1] if dim is None else dim) and shape[1] > 0
    checks.require(is_real and fits, name, rule, f"{values.dtype} of shape {shape}{hint}")
    checks.require(shape[0] > 0, name, "hold at least one row", f"shape {shape}")
    array = checks.values(values)
    if array is not None:
        bad = ~np.isfinite(checks.single(array))
        row, column = np.unravel_index(int(bad.argmax()), bad.shape)
        checks.require(not bad.any(), name, rule, f"{array[row, column]} at row {row}, column {column}")
        # Compiled programs take integers of 32 bits, and what is larger by its remainder.
        fits = checks.is_float(array.dtype) or bool(((array >= -(2**31)) & (array < 2**31)).all())
        checks.require(fits, name, "be floats where integers are beyond 32 bits", f"up to {array.max()}")


@dataclass(frozen=True)
class Image(_Condition):
    """The part of x that is seen: `c = {"image": [B, *event], "observed": bool [B, *event]}`, True where it is.

    Both enter: the picture with nothing at its hidden places, and the mask; where the mask is the same for every
    picture, its seen places are all there is to say. The likelihood counts the hidden places only. A data set stores
    neither: `complete` draws the mask and cuts the picture from x. With `mask="given"` the data set stores the masks,
    under "observed".

    Args:
        event_shape: shape of one example x.
        mask: a name of `masks.draw`, or "given".
        name: of the picture in `c`.
        stored: whether the data set stores the picture that is cut, whole, under `name`, such as the grey levels of an
            x whose pixels are drawn black or white; otherwise it is x itself.

    Raises:
        ValueError: the shape is none, there is no such mask, or it does not suit the shape; the picture's name is
            none, or the mask's.
    """

    event_shape: tuple[int, ...]
    mask: str = "random_box"
    name: str = "image"
    stored: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "event_shape", masks.shape("event_shape", self.event_shape))
        checks.one_of("mask", self.mask, (*masks.MASKS, "given"))
        checks.word("name", self.name)
        checks.require(isinstance(self.stored, bool), "stored", "be True or False", checks.shown(self.stored))
        # Half of a picture one pixel high would be all of it, or nothing.
        has_halves = len(self.event_shape) > 1 and min(self.event_shape[:2]) > 1
        suits = has_halves or self.mask in ("given", "random_pixels")
        checks.require(suits, "mask", f"be random_pixels or given for x of shape {self.event_shape}", repr(self.mask))
        checks.require(self.name != "observed", "name", "be another than the mask's", repr(self.name))

    @property
    def names(self) -> tuple[str, ...]:
        """The picture's and the mask's."""
        return (self.name, "observed")

    @property
    def stored_names(self) -> tuple[str, ...]:
        """The picture's, if it is stored, and the mask's, if masks are given."""
        return ((self.name,) if self.stored else ()) + (("observed",) if self.mask == "given" else ())

    @property
    def width(self) -> int:
        """Number of features: a value for every seen element of x, or a value and a mask for every element."""
        fixed = masks.fixed(self.mask, self.event_shape)
        return 2 * int(np.prod(self.event_shape)) if fixed is None else int(fixed.sum())

    @property
    def pictures(self) -> int:
        """Two, the seen values and the mask."""
        return 2

    @property
    def numbers(self) -> int:
        """None."""
        return 0

    def split(self, features: Array) -> tuple[list[Array], Array]:
        """The seen values, 0 elsewhere, and the mask.  Shapes: [B, width] -> [B, *event] each, [B, 0]."""
        fixed = masks.fixed(self.mask, self.event_shape)
        if fixed is None:
            values, seen = jnp.split(features, 2, axis=1)
        else:
            seen = jnp.broadcast_to(fixed.reshape(1, -1), (len(features), fixed.size)).astype(features.dtype)
            values = jnp.zeros_like(seen).at[:, np.flatnonzero(fixed)].set(features)
        return [part.reshape(-1, *self.event_shape) for part in (values, seen)], features[:, :0]

    def check_values(self, c: Any, batch: int | None, *, stored: bool = False) -> None:
        """Refuse pictures and masks of another shape, masks that are not boolean or hide nothing, no finite floats."""
        for key in self.stored_names if stored else self.names:
            name = f"c[{key!r}]"
            checks.event(name, c[key], self.event_shape)
            if batch is not None:
                checks.same_length(name, c[key].shape[0], "x", batch)
        if not stored:
            array = self._check_mask(c["observed"])
            name, image = f"c[{self.name!r}]", c[self.name]
            checks.same_length("c['observed']", c["observed"].shape[0], name, image.shape[0])
            pixels = checks.values(image)
            if pixels is not None and array is not None:
                # What stands at hidden places is never read, so it may be anything.
                image = np.where(array, pixels, np.zeros_like(pixels))
            checks.real_line(name, image)
            return
        if self.stored and np.dtype(c[self.name].dtype) != np.uint8:  # whole
            checks.real_line(f"c[{self.name!r}]", c[self.name])
        if self.mask == "given":
            self._check_mask(c["observed"])

    def _check_mask(self, observed: Any) -> np.ndarray | None:
        """Refuse what is no mask, or another than the condition's; returns its values, None while it is traced."""
        rule = "be boolean, True where x is seen"
        checks.require(np.dtype(observed.dtype) == np.bool_, "c['observed']", rule, f"{observed.dtype} values")
        array = checks.values(observed)
        if array is not None:
            whole = array.reshape(len(array), -1).all(axis=1)
            fixed = masks.fixed(self.mask, self.event_shape)
            differs = (
                np.zeros(len(array), bool) if fixed is None else (array != fixed).reshape(len(array), -1).any(axis=1)
            )
            rule = f"be the mask {self.mask}"
            checks.require(not differs.any(), "c['observed']", rule, f"another at row {int(differs.argmax())}")
            rule = "hide something of every example"
            checks.require(not whole.any(), "c['observed']", rule, f"nothing hidden at row {int(whole.argmax())}")
        return array

    def complete(self, key: Array, x: Array, c: Conditions) -> Conditions:
        """Draw the masks, unless they are given, and cut the picture from x, or from what is stored."""
        if self.mask == "given":
            observed = jnp.asarray(c["observed"])
        else:
            observed = masks.draw(self.mask, key, x.shape[0], self.event_shape)
        whole = jnp.asarray(c[self.name]) if self.stored else x
        if whole.dtype == jnp.uint8:
            whole = whole.astype(jnp.float32) / 255
        return {**c, self.name: jnp.where(observed, whole, 0), "observed": observed}

    def omit(self, key: Array, c: Conditions, probability: float) -> Conditions:
        """Set a block of the picture to 0, each side a fifth to two fifths of x's; what is predicted stays the same.

        Source: Sohn, Lee & Yan 2015, section 4.3, input omission noise.
        """
        block_key, choice_key = jax.random.split(key)
        image = jnp.asarray(c[self.name])
        chosen = jax.random.bernoulli(choice_key, probability, (len(image), *[1] * len(self.event_shape)))
        block = masks.block(block_key, len(image), self.event_shape)
        return {**c, self.name: jnp.where(chosen & block, 0, image)}

    def encode(self, c: Conditions) -> Array:
        """The seen values; with a mask of its own for every picture, 0 elsewhere, and the mask.

        Shapes: [B, *event], [B, *event] -> [B, number seen] or [B, 2 D].
        """
        fixed = masks.fixed(self.mask, self.event_shape)
        if fixed is not None:
            values = jnp.asarray(c[self.name], jnp.float32)
            return values.reshape(len(values), -1)[:, np.flatnonzero(fixed)]
        seen = jnp.asarray(c["observed"])
        values = jnp.where(seen, c[self.name], 0).astype(jnp.float32)
        return jnp.concatenate([part.reshape(len(part), -1) for part in (values, seen.astype(jnp.float32))], axis=1)

    def reveals(self, c: Conditions) -> tuple[Array, Array]:
        """What is seen, and its values."""
        return jnp.asarray(c["observed"]), jnp.asarray(c[self.name])


Part = Label | Continuous | Image


@dataclass(frozen=True, init=False)
class Mixed(_Condition):
    """Several conditions at once, each under its own name: `Mixed(digit=Label(10), stroke=Continuous(2))`.

    Raises:
        ValueError: there is none, one is no `Label`, `Continuous` or `Image`, or two would read the same array.
    """

    parts: tuple[Part, ...]

    def __init__(self, /, **named: Part):
        checks.require(len(named) > 0, "Mixed", "name at least one condition", "none")
        for name, part in named.items():
            checks.require(isinstance(part, Part), name, "be a Label, Continuous or Image", checks.shown(part))
        object.__setattr__(self, "parts", tuple(replace(part, name=name) for name, part in named.items()))
        checks.require(len(set(self.names)) == len(self.names), "Mixed", "read every array once", list(self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the parts."""
        return tuple(name for part in self.parts for name in part.names)

    @property
    def stored_names(self) -> tuple[str, ...]:
        """Those of the parts."""
        return tuple(name for part in self.parts for name in part.stored_names)

    @property
    def width(self) -> int:
        """Number of features of all parts."""
        return sum(part.width for part in self.parts)

    @property
    def pictures(self) -> int:
        """Those of all parts."""
        return sum(part.pictures for part in self.parts)

    @property
    def numbers(self) -> int:
        """Those of all parts."""
        return sum(part.numbers for part in self.parts)

    def split(self, features: Array) -> tuple[list[Array], Array]:
        """Those of the parts, in their order.  Shapes: [B, width] -> [B, *event] each, [B, numbers]."""
        ends = np.cumsum([part.width for part in self.parts])
        own = zip(self.parts, jnp.split(features, ends[:-1], axis=1), strict=True)
        pictures, numbers = zip(*(part.split(columns) for part, columns in own), strict=True)
        return [picture for several in pictures for picture in several], jnp.concatenate(numbers, axis=1)

    def check_values(self, c: Any, batch: int | None, *, stored: bool = False) -> None:
        """Let every part refuse its own, and arrays of different lengths."""
        for part in self.parts:
            part.check_values(c, batch, stored=stored)
        names = self.stored_names if stored else self.names
        for other in names[1:]:
            checks.same_length(f"c[{other!r}]", c[other].shape[0], f"c[{names[0]!r}]", c[names[0]].shape[0])

    def complete(self, key: Array, x: Array, c: Conditions) -> Conditions:
        """Let every part complete its own."""
        for number, part in enumerate(self.parts):
            c = part.complete(jax.random.fold_in(key, number), x, c)
        return c

    def omit(self, key: Array, c: Conditions, probability: float) -> Conditions:
        """Let every part omit its own."""
        for number, part in enumerate(self.parts):
            c = part.omit(jax.random.fold_in(key, number), c, probability)
        return c

    def encode(self, c: Conditions) -> Array:
        """The features of the parts, side by side.  Shapes: -> [B, width]."""
        return jnp.concatenate([part.encode(c) for part in self.parts], axis=1)

    def reveals(self, c: Conditions) -> tuple[Array, Array] | None:
        """What the image among the parts reveals, if there is one."""
        revealed = [part.reveals(c) for part in self.parts if isinstance(part, Image)]
        return revealed[0] if revealed else None


Condition = Nothing | Label | Continuous | Image | Mixed
