"""Likelihoods composed of others: of values with a probability of their own, of a table, of what is not missing."""

from __future__ import annotations

import math
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks, distributions
from cvae.checks import Spec
from cvae.distributions import Distribution, without_gradient
from cvae.likelihoods.base import Likelihood, check_channels
from cvae.likelihoods.real import LogNormal, Normal
from cvae.settings import Finite, chosen_by_name, replace, setting


@setting
class PointMass(Likelihood):
    """Real elements of which many equal one value, such as 0 for no income: it has a probability of its own.

        log p(x | z, c) = log w(z, c)  if x = value,   else log(1 - w(z, c)) + log p_base(x | z, c)

    Called zero-inflated, or censored, where the value is 0 or the end of a scale. The encoder sees 0 in the place of
    the value, and which elements equal it.
    """

    base: chosen_by_name(Likelihood)  # type: ignore[valid-type]
    """the likelihood of the other elements, a `Normal` or a `LogNormal` that is fitted to them"""
    value: tuple[Finite, ...] = (0.0,)
    """the value, per channel (the last axis of x), or one for all"""

    def __post_init__(self) -> None:
        checks.require(isinstance(self.base, Normal), "base", "be a Normal or a LogNormal", checks.shown(self.base))
        low = 0 if isinstance(self.base, LogNormal) else -math.inf
        checks.require(all(value >= low for value in self.value), "value", "be 0 or positive", self.value)

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """Those of the base, and a logit per element."""
        check_channels("value", self.value, event_shape)
        return int(self.base.num_outputs(event_shape)) + math.prod(event_shape)

    def features(self, x: Any) -> Array:
        """The features of the base, 0 where x is the value, and 1 where it is, along the last axis."""
        at_value = distributions.is_value(x, self.value)
        where = np.where if isinstance(x, np.ndarray) else jnp.where
        features = self.base.features(where(at_value, np.ones((), x.dtype), x))
        return jnp.concatenate([jnp.where(at_value, 0, features), jnp.asarray(at_value, features.dtype)], axis=-1)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, num_outputs] -> over [B, *event]."""
        outputs = outputs.reshape(outputs.shape[0], *event_shape, -1)
        base = self.base.distribution(outputs[..., :-1].reshape(outputs.shape[0], -1), event_shape)
        return distributions.PointMass(base, outputs[..., -1], self.value)

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """That of the base, or the value."""
        spec: Spec = self.base.spec(event_shape)
        return spec._replace(kind="real", low=min(spec.low, *self.value))


@setting
class Columns(Likelihood):
    """Rows of a table, each column under a likelihood of its own: independent given z and c.

    Columns of one family are one part: `Columns((Normal.fitted(x[:, [0, 2]]), Categorical(5)), ((0, 2), (1,)))`.
    """

    parts: Annotated[tuple[chosen_by_name(Likelihood), ...], Field(min_length=1)]  # type: ignore[valid-type]
    """the likelihoods"""
    columns: tuple[tuple[int, ...], ...]
    """the numbers of the columns of each; together every column once"""

    def __post_init__(self) -> None:
        pairs = len(self.columns) == len(self.parts) and all(self.columns)
        checks.require(pairs, "columns", f"hold the columns of each of the {len(self.parts)} parts", self.columns)
        numbers = sorted(number for columns in self.columns for number in columns)
        checks.require(numbers == list(range(len(numbers))), "columns", "hold every column once", self.columns)
        simple = not any(isinstance(part, Columns | Missing) for part in self.parts)
        checks.require(simple, "parts", "be other than Columns and Missing, which is around it", self.parts)

    @property
    def _each(self) -> list[tuple[Any, tuple[int, ...]]]:
        """Every part with its columns."""
        return list(zip(self.parts, self.columns, strict=True))

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """The outputs of all parts."""
        count = sum(map(len, self.columns))
        rule = f"be ({count},), the columns of the likelihood"
        checks.require(event_shape == (count,), "event_shape", rule, event_shape)
        return sum(self._outputs())

    def _outputs(self) -> list[int]:
        return [part.num_outputs((len(columns),)) for part, columns in self._each]

    def features(self, x: Any) -> Array:
        """The features of the parts side by side, [B, D] -> [B, F]."""
        return jnp.concatenate([part.features(x[:, np.array(columns)]) for part, columns in self._each], axis=-1)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, num_outputs] -> over [B, D]."""
        split = jnp.split(outputs, np.cumsum(self._outputs())[:-1], axis=1)
        parts = [
            part.distribution(part_outputs, (len(columns),))
            for (part, columns), part_outputs in zip(self._each, split, strict=True)
        ]
        return distributions.Columns(tuple(parts), self.columns)

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Those of the columns."""
        return Spec.of_columns([part.spec((len(columns),)) for part, columns in self._each], self.columns)

    @property
    def origin(self) -> tuple[float, ...] | None:
        """Those of the parts, 0 for columns that have none."""
        origin = np.zeros(sum(map(len, self.columns)))
        for part, columns in self._each:
            if part.origin is not None:
                origin[list(columns)] = part.origin
        return tuple(origin.tolist()) if origin.any() else None

    def at_origin(self) -> Columns:
        """Every part at its origin."""
        return replace(self, parts=tuple(part.at_origin() for part in self.parts))


@setting
class Missing(Likelihood):
    """A likelihood of the elements of x that are there: NaN marks a missing one.

    The encoder sees 0 in its place, and which are there; the density is that of the others. That is the right ELBO
    where elements are missing at random: whether one is missing may depend on the others, but not on its own value.

    References: Rubin 1976, Inference and missing data; Mattei and Frellsen 2019, MIWAE.
    """

    base: chosen_by_name(Likelihood)  # type: ignore[valid-type]
    """the likelihood of an example without missing elements"""

    def __post_init__(self) -> None:
        checks.require(not isinstance(self.base, Missing), "base", "be other than Missing", checks.shown(self.base))

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """Those of the base."""
        return int(self.base.num_outputs(event_shape))

    def features(self, x: Any) -> Array:
        """The features of the base, 0 where there are none, and 1 where an element is there, along the last axis."""
        features = self.base.features(without_gradient(x, jnp.isnan(x)))
        known = jnp.asarray(~np.isnan(x) if isinstance(x, np.ndarray) else ~jnp.isnan(x), features.dtype)
        return jnp.concatenate([jnp.nan_to_num(features), known], axis=-1)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: as of the base."""
        return distributions.Missing(self.base.distribution(outputs, event_shape))

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """That of the base, or NaN."""
        spec: Spec = self.base.spec(event_shape)
        return spec.with_missing()

    @property
    def origin(self) -> tuple[float, ...] | None:
        """That of the base."""
        return self.base.origin  # type: ignore[no-any-return]

    def at_origin(self) -> Missing:
        """The base at its origin."""
        return replace(self, base=self.base.at_origin())
