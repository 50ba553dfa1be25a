"""Conditions: what a model is conditioned on, each one class of settings.

A model's conditions come as one dict `c` of arrays by name, each of length B. A condition says

    spec                     what each of its arrays must be; checking is generic
    encode(c)                `Features`, as the networks take them
    augment(key, x, c)       what is drawn anew in training, such as masks
    observed(c)              the part of x that c contains, of which there is no density

A subclass with these, defined anywhere, can be passed to `Architecture(condition=...)`. How features enter a network
is the business of `networks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks, masks
from cvae.checks import Spec
from cvae.distributions import center_and_spread, standardize
from cvae.settings import Count, Finite, Name, NonNegative, chosen_by_name, replace, setting

Conditions = Mapping[str, Any]  # arrays by name, each of length B

MaskName = Literal[
    "quadrants_1", "quadrants_2", "quadrants_3", "top_half", "bottom_half", "left_half", "right_half", "centre_box",
    "random_box", "random_pixels", "given",
]  # fmt: skip


class Features(NamedTuple):
    """A condition as networks take it: numbers, and pixels where it contains images of the height and width of x."""

    numbers: Array  # [B, N]
    pixels: Array  # [B, P], flat and only those that vary: what layers of dense networks take
    image: Array  # [B, H, W, K], the same laid out as x is: what convolutions take; K = 0 without images

    @property
    def flat(self) -> Array:
        """All that dense layers take, [B, N + P]."""
        return jnp.concatenate([self.numbers, self.pixels], axis=-1)


class FeatureSizes(NamedTuple):
    """How many of each of a condition's features there are: what a network is built for."""

    numbers: int
    pixels: int
    channels: int  # of images

    @property
    def flat(self) -> int:
        """Numbers and pixels."""
        return self.numbers + self.pixels


def numbers(values: Array) -> Features:
    """Features that are numbers alone.  Shapes: [B, N]."""
    batch = values.shape[0]
    return Features(values, jnp.zeros((batch, 0), values.dtype), jnp.zeros((batch, 1, 1, 0), values.dtype))


@setting
class Condition:
    """What a model is conditioned on; subclasses give `spec` and `encode`, and `augment` and `observed` if needed."""

    @property
    def spec(self) -> dict[str, Spec]:
        """What the arrays of `c` must be, by name."""
        raise NotImplementedError

    def encode(self, c: Conditions) -> Features:
        """Features of the arrays, numbers of the order of 1 in size."""
        raise NotImplementedError

    def augment(self, key: Array, x: Array, c: Conditions) -> Conditions:
        """The arrays for one training step, where something in them is drawn anew or depends on the augmented x."""
        return c

    def with_target(self, x: Any, c: Conditions) -> Conditions:
        """The arrays for another x, such as one with its pixels drawn 0 or 1: what they contain of it is taken anew."""
        return c

    def drop_block(self, key: Array, c: Conditions, probability: float) -> Conditions:
        """With this probability per example, the arrays without a block of what is observed: noise for training."""
        return c

    def observed(self, c: Conditions) -> tuple[Array, Array] | None:
        """The part of x that `c` contains: bool [B, *event], True where x is observed, and the values there."""
        return None

    @property
    def origin(self) -> dict[str, tuple[float, ...]]:
        """Where arrays far from 0 are centred, by name; see `Likelihood.at_origin`."""
        return {}

    def at_origin(self) -> Condition:
        """The same condition for arrays from which `origin` has been subtracted."""
        return self


@setting
class Unconditional(Condition):
    """No condition: the model is a plain VAE, and `c` is the empty dict."""

    @property
    def spec(self) -> dict[str, Spec]:
        """No arrays."""
        return {}

    def encode(self, c: Conditions) -> Features:
        """Features [1, 0]: one row, because there is no batch to read; it broadcasts."""
        return numbers(jnp.zeros((1, 0), jnp.float32))


@setting
class Label(Condition):
    """A class label, `c = {"label": int [B]}` with values in [0, num_classes), encoded one-hot."""

    num_classes: Annotated[int, Field(ge=2, lt=2**31)]
    """number of classes"""
    name: Name = "label"
    """key in c"""

    @property
    def spec(self) -> dict[str, Spec]:
        """Integers [B]."""
        return {self.name: Spec((), "integer", 0, self.num_classes)}

    def encode(self, c: Conditions) -> Features:
        """One-hot features, NaN for a label out of range: inside `jit` no error can be raised, and NaN shows.

        Shapes: c[name] [B] -> [B, num_classes].
        """
        label = jnp.asarray(c[self.name])
        valid = (label >= 0) & (label < self.num_classes)
        one_hot = jax.nn.one_hot(label, self.num_classes, dtype=jnp.float32)
        return numbers(jnp.where(valid[:, None], one_hot, jnp.nan))


@setting
class Continuous(Condition):
    """Real numbers, `c = {"continuous": [B, dim]}` in their own units, encoded as (value - mean) / std.

    Mean and standard deviation are those of the training set and part of the condition, so they go where the model
    goes: `Continuous.fitted(values, name)` computes them. A column that never varies has std 0 and is only centred.
    """

    dim: Count = 1
    """numbers per example"""
    mean: tuple[Finite, ...] = ()
    """per column; 0 if empty"""
    std: tuple[NonNegative, ...] = ()
    """per column; 1 if empty"""
    name: Name = "continuous"
    """key in c"""

    def __post_init__(self) -> None:
        for field, usual in (("mean", 0.0), ("std", 1.0)):
            object.__setattr__(self, field, getattr(self, field) or (usual,) * self.dim)
            length = len(getattr(self, field))
            checks.require(length == self.dim, field, f"have dim = {self.dim} numbers", length)

    @classmethod
    def fitted(cls, values: Any, name: str = "continuous") -> Continuous:
        """The condition with mean and standard deviation of `values`, [N, dim].

        Raises:
            ValueError: not finite real numbers of shape [N, dim], or no column varies.
        """
        label = f"c[{name!r}]"
        shape = checks.shape_of(label, values)
        hint = " (add an axis: [:, None])" if len(shape) == 1 else ""
        checks.require(len(shape) == 2 and shape[1] > 0, label, "have shape [N, dim]", f"{shape}{hint}")
        Spec(shape[1:]).check(label, values)
        array = np.asarray(values, np.float64)
        mean, std = center_and_spread(array)
        checks.require(bool((std > 0).any()), label, "vary", f"{array[0, 0]:.9g} in every row")
        return cls(array.shape[1], tuple(mean.tolist()), tuple(std.tolist()), name)

    @property
    def spec(self) -> dict[str, Spec]:
        """Real numbers [B, dim]."""
        return {self.name: Spec((self.dim,), "real")}

    def encode(self, c: Conditions) -> Features:
        """Standardised features.  Shapes: c[name] [B, dim] -> [B, dim]."""
        values = standardize(self.spec[self.name].cast(c[self.name]), self.mean, self.std)
        return numbers(jnp.asarray(values))

    @property
    def origin(self) -> dict[str, tuple[float, ...]]:
        """The mean."""
        return {self.name: self.mean} if any(self.mean) else {}

    def at_origin(self) -> Continuous:
        """The same with mean 0."""
        return replace(self, mean=(0.0,) * self.dim)


@setting
class Image(Condition):
    """A part of x: `c = {"image": [B, *event], "observed": bool [B, *event]}`, True where x is observed.

    Where the mask is the same for every image, it is known, and `c` holds the image alone. The image may be whole: only
    its observed places are read. They enter the networks, with the mask where that varies, and the likelihood counts
    the other places only. In training, a random mask is drawn anew at every step, whatever mask `c` holds.
    """

    event_shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    """shape of one example x"""
    mask: MaskName = "random_box"
    """a mask of `masks.draw`, or "given": the masks of `c` are used as they are"""
    name: Name = "image"
    """key of the image in c"""
    separate: bool = False
    """the image is not x itself but, say, the grey levels of an x that is binarised"""
    location: tuple[Finite, ...] = (0.0,)
    """mean per channel, or one for all; those of a Normal likelihood, if x has one"""
    scale: tuple[NonNegative, ...] = (1.0,)
    """standard deviation per channel, or one for all"""

    def __post_init__(self) -> None:
        has_halves = len(self.event_shape) > 1 and min(self.event_shape[:2]) > 1
        suits = has_halves or self.mask in ("given", "random_pixels")
        checks.require(suits, "mask", f"be random_pixels or given for x of shape {self.event_shape}", repr(self.mask))
        checks.require(self.name != "observed", "name", "be another than the mask's", repr(self.name))
        for field in ("location", "scale"):
            length, rule = len(getattr(self, field)), f"have 1 or {self.event_shape[-1]} numbers"
            checks.require(length in (1, self.event_shape[-1]), field, rule, length)

    @property
    def fixed(self) -> np.ndarray | None:
        """The mask, bool [*event], where it is the same for every image."""
        return masks.fixed(self.mask, self.event_shape)

    @property
    def spec(self) -> dict[str, Spec]:
        """The image, and the masks unless they are all the same."""
        image = {self.name: Spec(self.event_shape, "pixels")}
        return image if self.fixed is not None else image | {"observed": Spec(self.event_shape, "mask")}

    def _values(self, c: Conditions) -> tuple[Array, Array]:
        """The mask, and the image with 0 where x is not observed."""
        image = jnp.asarray(self.spec[self.name].cast(c[self.name]))
        fixed = self.fixed
        mask = jnp.asarray(c["observed"]) if fixed is None else jnp.broadcast_to(fixed, image.shape)
        return mask, jnp.where(mask, image, 0)

    def augment(self, key: Array, x: Array, c: Conditions) -> Conditions:
        """Take the image from the augmented x unless it is separate, and draw random masks."""
        c = self.with_target(x, c)
        if self.fixed is None and self.mask != "given":
            c = {**c, "observed": masks.draw(self.mask, key, x.shape[0], self.event_shape)}
        return c

    def with_target(self, x: Any, c: Conditions) -> Conditions:
        """Take the image from x, unless it is separate."""
        return c if self.separate else {**c, self.name: x}

    def drop_block(self, key: Array, c: Conditions, probability: float) -> Conditions:
        """Set a block of the image to 0, each side a fifth to two fifths of x's; what is predicted stays the same.

        References: Sohn, Lee and Yan 2015, section 4.3, input omission noise.
        """
        block_key, choice_key = jax.random.split(key)
        image = jnp.asarray(self.spec[self.name].cast(c[self.name]))
        chosen = jax.random.bernoulli(choice_key, np.float32(probability), (len(image), *[1] * len(self.event_shape)))
        block = masks.draw_block(block_key, len(image), self.event_shape)
        return {**c, self.name: jnp.where(chosen & block, 0, image)}

    def encode(self, c: Conditions) -> Features:
        """The observed values, and the mask: as channels, and flat.

        Flat, the values of a mask that is the same for every image are those at its observed places, [B, P]; with a
        mask per image they are all of x and the mask, [B, 2 D].
        """
        mask, values = self._values(c)
        values = jnp.where(mask, standardize(values, self.location, self.scale), 0)
        batch, fixed = values.shape[0], self.fixed
        flat, mask = values.reshape(batch, -1), mask.astype(values.dtype)
        if fixed is not None:
            pixels = flat[:, np.flatnonzero(fixed)]
        else:
            pixels = jnp.concatenate([flat, mask.reshape(batch, -1)], axis=1)
        if len(self.event_shape) == 3:
            image = jnp.concatenate([values, mask], axis=-1)
        else:
            image = jnp.zeros((batch, 1, 1, 0), values.dtype)
        return Features(jnp.zeros((batch, 0), values.dtype), pixels, image)

    def observed(self, c: Conditions) -> tuple[Array, Array]:
        """The mask, and the image."""
        return self._values(c)

    @property
    def origin(self) -> dict[str, tuple[float, ...]]:
        """The location."""
        return {self.name: self.location} if any(self.location) else {}

    def at_origin(self) -> Image:
        """The same with location 0."""
        return replace(self, location=(0.0,) * len(self.location))


@setting
class Mixed(Condition):
    """Several conditions at once, each under its own name: `Mixed((Label(10), Continuous(2, name="stroke")))`."""

    parts: Annotated[tuple[chosen_by_name(Condition), ...], Field(min_length=1)]  # type: ignore[valid-type]
    """the conditions; no two may read the same array"""

    def __post_init__(self) -> None:
        flat = all(part.spec and not isinstance(part, Mixed) for part in self.parts)
        checks.require(flat, "parts", "be conditions that read arrays, and not Mixed", checks.shown(self.parts))
        names = [name for part in self.parts for name in part.spec]
        checks.require(len(set(names)) == len(names), "parts", "each read arrays of their own", names)

    @property
    def spec(self) -> dict[str, Spec]:
        """The arrays of all parts."""
        return {name: spec for part in self.parts for name, spec in part.spec.items()}

    def augment(self, key: Array, x: Array, c: Conditions) -> Conditions:
        """Augment the arrays of every part."""
        for number, part in enumerate(self.parts):
            c = part.augment(jax.random.fold_in(key, number), x, c)
        return c

    def with_target(self, x: Any, c: Conditions) -> Conditions:
        """The arrays of every part for another x."""
        for part in self.parts:
            c = part.with_target(x, c)
        return c

    def drop_block(self, key: Array, c: Conditions, probability: float) -> Conditions:
        """Drop a block of every part that has one."""
        for number, part in enumerate(self.parts):
            c = part.drop_block(jax.random.fold_in(key, number), c, probability)
        return c

    def encode(self, c: Conditions) -> Features:
        """The features of the parts, side by side."""
        parts = [part.encode(c) for part in self.parts]
        images = [part.image for part in parts if part.image.shape[-1] > 0] or [parts[0].image]
        return Features(
            jnp.concatenate([part.numbers for part in parts], axis=-1),
            jnp.concatenate([part.pixels for part in parts], axis=-1),
            jnp.concatenate(images, axis=-1),
        )

    def observed(self, c: Conditions) -> tuple[Array, Array] | None:
        """What the first part observes that observes any of x."""
        return next((seen for part in self.parts if (seen := part.observed(c)) is not None), None)

    @property
    def origin(self) -> dict[str, tuple[float, ...]]:
        """Those of the parts."""
        return {name: origin for part in self.parts for name, origin in part.origin.items()}

    def at_origin(self) -> Mixed:
        """Every part at its origin."""
        return replace(self, parts=tuple(part.at_origin() for part in self.parts))
