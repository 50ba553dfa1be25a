"""Bodies of dense layers: a plain ReLU network, and a residual one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flax import nnx
from jax import Array

from cvae.networks.layers import Body, Conditioned, Part, linear

if TYPE_CHECKING:
    from cvae.conditions import Features


class MLP(Body):
    """ReLU layers: h <- relu(L h) for every width of `hidden`, in reverse order for a decoder."""

    def __init__(self, part: Part, rngs: nnx.Rngs):
        self.layers: nnx.Dict[Conditioned] = nnx.Dict()
        size, condition = math.prod(part.inputs), part.features.flat
        for i, width in enumerate(part.widths):
            self.layers[f"layer_{i}"] = Conditioned(size, width, condition, part.architecture, rngs, first=i == 0)
            size = width
        self.size = size
        self.head = None if part.outputs is None else linear(size, part.outputs, rngs, small=True)

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

    most_steps = 100

    def __init__(self, part: Part, rngs: nnx.Rngs):
        size, condition, architecture = part.widths[0], part.features.flat, part.architecture
        self.enter = Conditioned(math.prod(part.inputs), size, condition, architecture, rngs, first=True)
        self.norms: nnx.Dict[nnx.LayerNorm] = nnx.Dict()
        self.layers: nnx.Dict[Conditioned] = nnx.Dict()
        self.leave: nnx.Dict[nnx.Linear] = nnx.Dict()
        for i, width in enumerate(part.widths):
            self.norms[f"norm_{i}"] = nnx.LayerNorm(size, rngs=rngs)
            self.layers[f"layer_{i}"] = Conditioned(size, width, condition, architecture, rngs, first=False)
            self.leave[f"leave_{i}"] = linear(width, size, rngs)
        self.size = size
        self.head = None if part.outputs is None else linear(size, part.outputs, rngs, small=True)

    def __call__(self, inputs: Array, features: Features) -> Array:
        """Shapes: as of `Body`."""
        flat = features.flat
        hidden = nnx.gelu(self.enter(inputs.reshape(inputs.shape[0], -1), flat))
        for i in range(len(self.layers)):
            inner = nnx.gelu(self.layers[f"layer_{i}"](self.norms[f"norm_{i}"](hidden), flat))
            hidden = hidden + self.leave[f"leave_{i}"](inner)
        return hidden if self.head is None else self.head(hidden)
