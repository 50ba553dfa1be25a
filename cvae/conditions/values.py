"""Conditions that are values of each example: labels, real numbers, exposures."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks
from cvae.checks import SMALLEST, Spec
from cvae.conditions.base import Condition, Conditions, Features, numbers
from cvae.distributions import center_and_spread, standardize
from cvae.settings import Count, Finite, Name, NonNegative, replace, setting


@setting
class Label(Condition):
    """A class label, `c = {"label": int [B]}` with values in [0, num_classes), encoded one-hot."""

    num_classes: Annotated[int, Field(ge=2, lt=2**31)]
    """number of classes"""
    name: Name = "label"
    """key in c"""
    categories: tuple[str, ...] = ()
    """the classes in words, in the order of their numbers; `cvae.use` takes and gives these"""

    def __post_init__(self) -> None:
        fits = not self.categories or len(set(self.categories)) == len(self.categories) == self.num_classes
        rule = f"be {self.num_classes} different words, or none"
        checks.require(fits, "categories", rule, checks.shown(self.categories))

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
        least, rule = std[std > 0].min(), f"vary by {SMALLEST:g} at least, or not at all"
        checks.require(least >= SMALLEST, label, rule, f"{least:.3g}")
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
class Exposure(Condition):
    """A positive number by which the mean of counts is multiplied, such as a duration: `c = {"exposure": [B]}`.

    Its logarithm is a feature too, so that all else may depend on it.
    """

    location: Finite = 0.0
    """mean of its logarithm"""
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """standard deviation of its logarithm"""
    name: Name = "exposure"
    """key in c"""

    @classmethod
    def fitted(cls, values: Any, name: str = "exposure") -> Exposure:
        """The condition with location and scale of the logarithm of `values`, [N].

        Raises:
            ValueError: not positive numbers of shape [N].
        """
        Spec((), low=SMALLEST).check(f"c[{name!r}]", values)
        (mean,), (std,) = center_and_spread(np.log(np.asarray(values, np.float64))[:, None])
        return cls(float(mean), float(std) or 1.0, name)  # a constant is as good as a standard deviation of 1

    @property
    def spec(self) -> dict[str, Spec]:
        """Positive numbers [B]."""
        return {self.name: Spec((), low=SMALLEST)}

    def exposure(self, c: Conditions) -> Array:
        """The numbers."""
        return jnp.asarray(self.spec[self.name].cast(c[self.name]))

    def encode(self, c: Conditions) -> Features:
        """The standardised logarithm.  Shapes: c[name] [B] -> [B, 1]."""
        return numbers(((jnp.log(self.exposure(c)) - self.location) / self.scale)[:, None])
