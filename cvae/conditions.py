"""What a condition is: check the raw value, encode it to the features the networks see.

A model's raw conditions arrive as one dict `c` of named arrays. Each condition class here names the keys it
reads, refuses bad values, and encodes good ones to `[B, width]` floats. Nothing else in the library knows how a
condition is encoded, and nobody else calls `one_hot`. How features enter a network is `networks`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvae import checks

Conditions = Mapping[str, jax.Array | np.ndarray]  # raw conditions by name, each of length B


@dataclass(frozen=True)
class Nothing:
    """No condition: the model is a plain VAE, and `c` is the empty dict."""

    @property
    def width(self) -> int:
        """Number of features, 0."""
        return 0

    def check(self, c: Any, batch: int | None = None) -> None:
        """Refuse a `c` that holds anything."""
        checks.names("c", c, ())

    def encode(self, c: Conditions) -> jax.Array:
        """Features [1, 0]: one row, because without a condition there is no batch to read; it broadcasts."""
        return jnp.zeros((1, 0))


@dataclass(frozen=True)
class Label:
    """A class label, `c = {"label": int[B]}` with values in [0, num_classes), entering one-hot.

    Raises:
        ValueError: `num_classes` is not a whole number of at least 2.
    """

    num_classes: int
    name: str = "label"

    def __post_init__(self) -> None:
        checks.whole_number("num_classes", self.num_classes, least=2)

    @property
    def width(self) -> int:
        """Number of features, one a class."""
        return self.num_classes

    def check(self, c: Any, batch: int | None = None) -> None:
        """Refuse labels that are missing, not int[B], out of range, or not one an example of x.

        Shapes: c[name] [B]. `batch` is the B that x has, where there is an x.
        """
        checks.names("c", c, (self.name,))
        label, name = c[self.name], f"c[{self.name!r}]"
        shape = checks.shape_of(name, label)
        rule = f"be integers in [0, {self.num_classes}), shape [B]"
        is_integer = np.issubdtype(np.dtype(label.dtype), np.integer)
        hint = " (one-hot? pass its argmax)" if shape[1:] == (self.num_classes,) else ""
        checks.require(is_integer and len(shape) == 1, name, rule, f"{label.dtype} of shape {shape}{hint}")
        checks.require(shape[0] > 0, name, "hold at least one label", f"shape {shape}")
        if batch is not None:
            checks.same_length(name, shape[0], "x", batch)
        array = checks.values(label)
        if array is not None:
            outside = (array < 0) | (array >= self.num_classes)
            row = int(outside.argmax())
            checks.require(not outside.any(), name, rule, f"{array[row]} at row {row}")

    def encode(self, c: Conditions) -> jax.Array:
        """One-hot features.

        Shapes: c[name] [B] -> [B, num_classes].
        """
        return jax.nn.one_hot(c[self.name], self.num_classes)


Condition = Nothing | Label
