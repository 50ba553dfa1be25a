"""What every condition has, and the features that networks take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from cvae.checks import Spec
from cvae.settings import setting

Conditions = Mapping[str, Any]  # arrays by name, each of length B


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

    def exposure(self, c: Conditions) -> Array | None:
        """What the mean of counts is multiplied by, [B], if `c` contains it."""
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
