"""Bodies of dense layers: a plain ReLU network, and a residual one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flax import nnx
from jax import Array

from cvae.networks.layers import Body, Conditioned, linear

if TYPE_CHECKING:
    from cvae.conditions import Features, FeatureSizes
    from cvae.config import Architecture


class MLP(Body):
    """ReLU layers: h <- relu(L h) for every width of `hidden`, in reverse order for a decoder."""

    def __init__(
        self,
        inputs: tuple[int, ...],
        features: FeatureSizes,
        architecture: Architecture,
        rngs: nnx.Rngs,
        outputs: int | None = None,
    ):
        widths = architecture.hidden if outputs is None else architecture.hidden[::-1]
        condition, size = features.flat, math.prod(inputs)
        self.layers: nnx.Dict[Conditioned] = nnx.Dict()
        for i, width in enumerate(widths):
            self.layers[f"layer_{i}"] = Conditioned(size, width, condition, architecture, rngs, first=i == 0)
            size = width
        self.size = size
        self.head = None if outputs is None else linear(size, outputs, rngs, small=True)

    def __call__(self, inputs: Array, features: Features) -> Array:
        """Shapes: as of `Body`."""
        hidden, flat = inputs.reshape(inputs.shape[0], -1), features.flat
        for i in range(len(self.layers)):
            hidden = nnx.relu(self.layers[f"layer_{i}"](hidden, flat))
        return hidden if self.head is None else self.head(hidden)


class ResidualMLP(Body):
    """Pre-norm residual blocks on a trunk as wide as the first layer.

        h <- gelu(L x);   then, for every width of `hidden`,   h <- h + W gelu(L layer_norm(h))

    References: He et al. 2016; normalised before each branch as by Xiong et al. 2020.
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        features: FeatureSizes,
        architecture: Architecture,
        rngs: nnx.Rngs,
        outputs: int | None = None,
    ):
        widths = architecture.hidden if outputs is None else architecture.hidden[::-1]
        condition, self.size = features.flat, widths[0]

        def layer(inputs: int, width: int, *, first: bool) -> Conditioned:
            return Conditioned(inputs, width, condition, architecture, rngs, first=first)

        self.enter = layer(math.prod(inputs), self.size, first=True)
        self.norms: nnx.Dict[nnx.LayerNorm] = nnx.Dict()
        self.layers: nnx.Dict[Conditioned] = nnx.Dict()
        self.leave: nnx.Dict[nnx.Linear] = nnx.Dict()
        for i, width in enumerate(widths):
            self.norms[f"norm_{i}"] = nnx.LayerNorm(self.size, rngs=rngs)
            self.layers[f"layer_{i}"] = layer(self.size, width, first=False)
            self.leave[f"leave_{i}"] = linear(width, self.size, rngs)
        self.head = None if outputs is None else linear(self.size, outputs, rngs, small=True)

    def __call__(self, inputs: Array, features: Features) -> Array:
        """Shapes: as of `Body`."""
        flat = features.flat
        hidden = nnx.gelu(self.enter(inputs.reshape(inputs.shape[0], -1), flat))
        for i in range(len(self.layers)):
            inner = nnx.gelu(self.layers[f"layer_{i}"](self.norms[f"norm_{i}"](hidden), flat))
            hidden = hidden + self.leave[f"leave_{i}"](inner)
        return hidden if self.head is None else self.head(hidden)
