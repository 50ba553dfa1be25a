"""A part of x as a condition: the image, and which of it is observed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks, masks
from cvae.checks import Spec
from cvae.conditions.base import Condition, Conditions, Features
from cvae.distributions import standardize
from cvae.settings import Count, Finite, Name, NonNegative, replace, setting

MaskName = Literal[
    "quadrants_1", "quadrants_2", "quadrants_3", "top_half", "bottom_half", "left_half", "right_half", "centre_box",
    "random_box", "random_pixels", "given",
]  # fmt: skip


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
