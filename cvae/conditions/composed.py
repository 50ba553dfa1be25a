"""Conditions composed of others: one that may be missing, and several at once."""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks
from cvae.checks import Spec
from cvae.conditions.base import Condition, Conditions, Features, numbers
from cvae.conditions.values import Continuous, Label
from cvae.settings import chosen_by_name, replace, setting


@setting
class Optional(Condition):
    """A condition that may be missing: NaN in place of its numbers (of any of them), or -1 in place of its label.

    In training it is dropped at random, so that one model serves with it and without it: without, it is p(x) averaged
    over the condition. Networks see 0 in its place, and whether it is there.
    """

    base: chosen_by_name(Condition)  # type: ignore[valid-type]
    """a `Label` or a `Continuous`"""
    drop_prob: Annotated[float, Field(ge=0, le=1)] = 0.2
    """probability that it is dropped from a training example"""

    def __post_init__(self) -> None:
        simple = isinstance(self.base, Label | Continuous)
        checks.require(simple, "base", "be a Label or a Continuous", checks.shown(self.base))

    @property
    def name(self) -> str:
        """The key in c."""
        return self.base.name  # type: ignore[no-any-return]

    @property
    def spec(self) -> dict[str, Spec]:
        """That of the base, or NaN or -1."""
        spec: Spec = self.base.spec[self.name]
        return {self.name: spec._replace(low=-1) if self._is_label else spec.with_missing()}

    @property
    def _is_label(self) -> bool:
        return isinstance(self.base, Label)

    def augment(self, key: Array, x: Array, c: Conditions) -> Conditions:
        """Drop it from some examples."""
        values = jnp.asarray(self.spec[self.name].cast(c[self.name]))
        dropped = jax.random.bernoulli(key, np.float32(self.drop_prob), (len(values), *[1] * (values.ndim - 1)))
        missing = jnp.asarray(-1 if self._is_label else jnp.nan, values.dtype)
        return {**c, self.name: jnp.where(dropped, missing, values)}

    def encode(self, c: Conditions) -> Features:
        """The features of the base, 0 where it is missing, and 1 where it is there.

        Shapes: c[name] [B] or [B, dim] -> [B, F + 1], for F features of the base.
        """
        values = self.spec[self.name].cast(c[self.name])
        where = np.where if isinstance(values, np.ndarray) else jnp.where
        # Only a label of -1 is missing: one out of range stays NaN, which shows.
        absent = values == -1 if self._is_label else np.isnan(values) if where is np.where else jnp.isnan(values)
        features = self.base.encode({self.name: where(absent, values.dtype.type(0), values)}).numbers
        missing = jnp.asarray(absent).reshape(len(values), -1).any(axis=1, keepdims=True)
        known = (~missing).astype(features.dtype)
        return numbers(jnp.concatenate([jnp.where(missing, 0, features), known], axis=1))

    @property
    def origin(self) -> dict[str, tuple[float, ...]]:
        """That of the base."""
        return self.base.origin  # type: ignore[no-any-return]

    def at_origin(self) -> Optional:
        """The base at its origin."""
        return replace(self, base=self.base.at_origin())


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

    def exposure(self, c: Conditions) -> Array | None:
        """That of the first part which has one."""
        return next((each for part in self.parts if (each := part.exposure(c)) is not None), None)

    @property
    def origin(self) -> dict[str, tuple[float, ...]]:
        """Those of the parts."""
        return {name: origin for part in self.parts for name, origin in part.origin.items()}

    def at_origin(self) -> Mixed:
        """Every part at its origin."""
        return replace(self, parts=tuple(part.at_origin() for part in self.parts))
