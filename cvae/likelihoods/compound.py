"""Likelihoods composed of others: of the columns of a table, of what is not missing."""

from __future__ import annotations

from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks, distributions
from cvae.checks import Spec
from cvae.distributions import Distribution, without_gradient
from cvae.likelihoods.base import Likelihood
from cvae.settings import chosen_by_name, replace, setting


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
