"""What every likelihood has."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cvae import checks
from cvae.checks import Spec
from cvae.distributions import Distribution
from cvae.settings import setting


@setting
class Likelihood:
    """A family of densities p(x | z, c) over events of any shape."""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """How many numbers per example the decoder gives; a multiple of the number of pixels for images."""
        return math.prod(event_shape)

    def features(self, x: Any) -> Array:
        """What the encoder sees of x, [B, *event] -> [B, *feature_shape], in the order of 1 in size."""
        return jnp.asarray(x)

    def feature_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `features` of one example."""
        x = jax.ShapeDtypeStruct((1, *event_shape), jnp.float32)  # type: ignore[no-untyped-call]
        return tuple(jax.eval_shape(self.features, x).shape[1:])

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """p(x | z, c) from the decoder's outputs, [B, num_outputs] -> over [B, *event]."""
        raise NotImplementedError

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Which x it can score."""
        return Spec(event_shape, "pixels")

    @property
    def origin(self) -> tuple[float, ...] | None:
        """Where x is centred, per channel or for all, if far from 0; see `at_origin`."""
        return None

    def at_origin(self) -> Likelihood:
        """The same family for x - origin.

        Arrays are float32 on a device, which holds no digits of what varies around a large mean; so the mean of a
        data set is subtracted in float64 on the host, and the densities stay the same.
        """
        return self


def check_channels(name: str, values: tuple[float, ...], event_shape: tuple[int, ...]) -> None:
    """Refuse other than one number per channel, the last axis of x, or one for all."""
    rule = f"have 1 or {event_shape[-1]} numbers"
    checks.require(len(values) in (1, event_shape[-1]), name, rule, len(values))
