"""Likelihood families: what the decoder's outputs mean, and which readings of x they can score.

A family is a setting: hashable, told to the `Architecture`, written to a run's config. Given the decoder's outputs
it makes the distribution p(x | z, c); the densities themselves are `distributions`'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae import checks, distributions


class _OnUnitInterval:
    """Families of one logit an element, on x in [0, 1]."""

    outputs = 1  # of the decoder, an element of x

    def check(self, name: str, x: Any) -> None:
        """Refuse what is not floats in [0, 1]."""
        checks.unit_interval(name, x)

    def check_stored(self, name: str, x: Any) -> None:
        """Refuse what is neither uint8 nor floats in [0, 1]."""
        if np.dtype(x.dtype) != np.uint8:
            checks.require(checks.is_float(x.dtype), name, "be uint8 or floats in [0, 1]", f"{x.dtype} values")
            checks.unit_interval(name, x)


@dataclass(frozen=True)
class Bernoulli(_OnUnitInterval):
    """Binary elements, p = sigmoid(output); grey ones in (0, 1) are scored by the same cross-entropy."""

    def distribution(self, outputs: Array) -> distributions.Bernoulli:
        """Shapes: [B, *event, 1] -> over [B, *event]."""
        return distributions.Bernoulli(outputs[..., 0])


@dataclass(frozen=True)
class ContinuousBernoulli(_OnUnitInterval):
    """Grey elements in [0, 1], by a normalised density."""

    def distribution(self, outputs: Array) -> distributions.ContinuousBernoulli:
        """Shapes: [B, *event, 1] -> over [B, *event]."""
        return distributions.ContinuousBernoulli(outputs[..., 0])


_SCALES = (1e-15, 1e15)  # a distance in units of these, squared, is still a number of float32


@dataclass(frozen=True)
class Normal:
    """Real elements. The standard deviation is fixed, `scale`, or the decoder's, kept smoothly within `bounds`.

        log std = log lowest + (log highest - log lowest) sigmoid(output)

    Without a lower bound, a pixel that is always black would be worth infinitely many nats.

    Raises:
        ValueError: a scale or bound is no number from 1e-15 to 1e15, or the bounds are not in order.
    """

    scale: float | None = None
    bounds: tuple[float, ...] = (0.01, 10.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", checks.several("bounds", self.bounds))
        scales = {} if self.scale is None else {"scale": self.scale}
        for name, value in (scales | {f"bounds[{i}]": bound for i, bound in enumerate(self.bounds)}).items():
            checks.positive_number(name, value)
            fits = _SCALES[0] <= float(value) <= _SCALES[1]
            checks.require(fits, name, f"be from {_SCALES[0]:g} to {_SCALES[1]:g}", value)
        in_order = len(self.bounds) == 2 and self.bounds[0] < self.bounds[1]
        checks.require(in_order, "bounds", "be two numbers, the lower first", self.bounds)

    @property
    def outputs(self) -> int:
        """Of the decoder, an element of x: its mean, and its scale if it is learned."""
        return 1 if self.scale is not None else 2

    def check(self, name: str, x: Any) -> None:
        """Refuse what is not finite floats."""
        checks.real_line(name, x)

    def check_stored(self, name: str, x: Any) -> None:
        """Refuse what is neither uint8 nor finite floats."""
        if np.dtype(x.dtype) != np.uint8:
            checks.real_line(name, x)

    def distribution(self, outputs: Array) -> distributions.Normal:
        """Shapes: [B, *event, 1 or 2] -> over [B, *event]."""
        mean = outputs[..., 0]
        if self.scale is not None:
            return distributions.Normal(mean, jnp.full(mean.shape, math.log(self.scale), mean.dtype))
        low, high = (math.log(bound) for bound in self.bounds)
        return distributions.Normal(mean, low + (high - low) * jax.nn.sigmoid(outputs[..., 1]))


Likelihood = Bernoulli | ContinuousBernoulli | Normal
