"""What every density has: log_prob, sample and mean over a batch of events."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cvae.checks import Spec

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def distribution(cls: type[T]) -> type[T]:
    """Make a class of array fields a frozen dataclass that passes through `jit` and `vmap`."""
    return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))


class Distribution:
    """A density over events [*event], one per example; subclasses give `mean`, `log_terms` and `sample`."""

    support: ClassVar[tuple[float, float]] = (-math.inf, math.inf)  # range of the elements of x

    if TYPE_CHECKING:  # a field of some subclasses and a property of others, so there is none to inherit

        @property
        def mean(self) -> Array:
            """Expected value, [B, *event]."""

    def log_terms(self, x: Array) -> Array:
        """Log density of every element in nats, [B, *event] -> [B, *event]."""
        raise NotImplementedError

    def sample(self, key: Array) -> Array:
        """One draw, [B, *event]."""
        raise NotImplementedError

    def mixture_mean(self, weights: Array) -> Array:
        """Expected value under the mixture of the densities of the batch; weights sum to 1.

        Shapes: [B] -> [*event].
        """
        return jnp.tensordot(weights, self.mean, axes=1, precision=lax.Precision.HIGHEST)

    def with_exposure(self, exposure: Array) -> Distribution:
        """The density of counts whose mean is multiplied by an exposure; other densities stay as they are.

        Shapes: [B].
        """
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, *event)."""
        return tuple(np.broadcast_shapes(*(leaf.shape for leaf in jax.tree.leaves(self))))

    @property
    def dtype(self) -> Any:
        """The dtype of the parameters."""
        return jax.tree.leaves(self)[0].dtype

    def log_prob(self, x: Any) -> Array:
        """Log density in nats, the sum of `log_terms` over the event.

        Shapes: [B, *event] -> [B]; a batch axis of 1 broadcasts.
        Raises: ValueError for another shape, or values outside the support.
        """
        self.check(x)
        return sum_event(self.log_terms(self.cast(x)))

    @property
    def spec(self) -> Spec:
        """What events must be."""
        return Spec(self.shape[1:], "real", *self.support)

    def check(self, x: Any) -> None:
        """Refuse events of another shape, or outside the support."""
        rows = self.shape[0]
        batch = None if rows == 1 or getattr(x, "shape", (0,))[:1] == (1,) else rows
        self.spec.check("x", x, batch)

    def cast(self, x: Any) -> Array:
        """X in the dtype of the parameters."""
        return jnp.asarray(x, self.dtype)


def sum_event(terms: Array) -> Array:
    """Sum over every axis but the first, [B, *event] -> [B].

    As a product with ones: XLA would compute `terms` inside the loop of a plain sum, one element at a time, which on
    a CPU makes the score of an image twenty times slower. Full precision, because a GPU would round to TF32.
    """
    rows = terms.reshape(terms.shape[0], -1)
    return jnp.dot(rows, jnp.ones(rows.shape[1], rows.dtype), precision=lax.Precision.HIGHEST)
