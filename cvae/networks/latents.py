"""The networks of a model as pure functions: q(z | x, c), p(z | c) and the decoder.

A network is a `flax.nnx` module taken apart once into `init(key) -> params` and `apply(params, ...)`, with params a
nested dict of arrays. `model` checks what goes in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from cvae.distributions import Ladder, Latents, Normal
from cvae.networks.layers import Body, Part, linear, products_in

if TYPE_CHECKING:
    from cvae.conditions import Features, FeatureSizes
    from cvae.config import Architecture

Params = dict[str, Any]

# |log std| stays below this, smoothly: a standard deviation between 0.0009 and 1100, whose square and inverse
# square are finite in float32 whatever one bad step does. Near 0, where latents live, the bound changes little.
LOG_STD_BOUND = 7.0


class Network(NamedTuple):
    """A network as two pure functions."""

    init: Callable[[Array], Params]
    apply: Callable[..., Any]


class Gaussian(nnx.Module):
    """Mean and bounded log standard deviation of q(z | x, c), or of p(z | c), of every layer of latents.

        h = body(x, c),   m_1, log s_1 = head_1(h),   m_l, log s_l = head_l(below_l(h, z_<l))

    References: Sonderby et al. 2016, with separate networks for posterior and prior, and skips from h to every layer.
    """

    def __init__(self, body: type[Body], part: Part, rngs: nnx.Rngs):
        self.body, architecture = body(part, rngs), part.architecture
        size, relu = architecture.latent_size // architecture.latent_layers, architecture.body == "mlp"
        single = architecture.latent_layers == 1
        # A layer of a hierarchy reads draws of those above it, so its means start small too. The only layer's do not:
        # a plain VAE of two latents that starts with all means near 0 ends 3 nats worse.
        self.mean = linear(self.body.size, size, rngs, relu=relu, small=not single)
        self.log_std = linear(self.body.size, size, rngs, small=True)
        self.below: nnx.Dict[Below] = nnx.Dict()
        for layer in range(1, architecture.latent_layers):
            self.below[f"layer_{layer}"] = Below(self.body.size, layer * size, size, rngs)

    def __call__(self, inputs: Array, features: Features) -> Array:
        """The hidden vector h of all layers of latents.  Shapes: [B, *inputs] -> [B, size]."""
        return self.body(inputs, features)

    def latents(self, hidden: Array, layer: int, above: Array) -> tuple[Array, Array]:
        """A layer given those above it.  Shapes: [B, size], [B, layer Z/L] -> [B, Z/L], [B, Z/L]."""
        if layer > 0:
            mean, log_std = self.below[f"layer_{layer}"](hidden, above)
        else:
            mean, log_std = self.mean(hidden), self.log_std(hidden)
        return mean, LOG_STD_BOUND * jnp.tanh(log_std / LOG_STD_BOUND)


class Below(nnx.Module):
    """From h and the latents above to mean and log standard deviation of a layer of latents.

    h <- h + V z;   h <- h + W gelu(L layer_norm(h));   U h
    """

    def __init__(self, size: int, above: int, latents: int, rngs: nnx.Rngs):
        # Latents are few: a narrow block expresses how they depend on those above, at a fifth of a wide one's cost.
        width = max(1, size // 5)
        self.above = linear(above, size, rngs)
        self.norm = nnx.LayerNorm(size, rngs=rngs)
        self.enter = linear(size, width, rngs)
        self.leave = linear(width, size, rngs)
        self.head = linear(size, 2 * latents, rngs, small=True)

    def __call__(self, hidden: Array, above: Array) -> tuple[Array, Array]:
        """Shapes: [B, size], [B, above] -> [B, latents] twice."""
        hidden = hidden + self.above(above)
        hidden = hidden + self.leave(nnx.gelu(self.enter(self.norm(hidden))))
        mean, log_std = jnp.split(self.head(hidden), 2, axis=-1)
        return mean, log_std


def functional(build: Callable[[nnx.Rngs], nnx.Module], precision: str = "float32") -> Network:
    """Take a module apart into pure functions over a nested dict of arrays, with products in this precision.

    The skeleton is taken once, without computing a weight; `apply` fills a copy of it, so nothing is shared
    between two calls and every JAX transformation sees a plain function.
    """
    graph, skeleton = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def init(key: Array) -> Params:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(key))))

    def apply(params: Params, *inputs: Any, method: str = "__call__") -> Any:
        state = jax.tree.map(lambda leaf: leaf, skeleton)
        nnx.replace_by_pure_dict(state, params)
        with products_in(precision):
            return getattr(nnx.merge(graph, state), method)(*inputs)

    return Network(init, apply)


def _gaussian(body: type[Body], part: Part) -> Network:
    """A `Gaussian` as a network that returns a distribution over all its layers of latents.

    With a prior of several layers, it is parametrised relative to it, m_p + m and log s_p + log s, layer by layer.
    """
    architecture = part.architecture
    network = functional(lambda rngs: Gaussian(body, part, rngs), architecture.precision)
    layers = architecture.latent_layers

    def layer(state: tuple[Params, Array, Ladder | None], number: int, above: Array) -> Normal:
        params, hidden, base = state
        mean, log_std = network.apply(params, hidden, number, above, method="latents")
        if base is None:
            return Normal(mean, log_std)
        p = base.layer(base.state, number, above)
        return Normal(p.mean + mean, p.log_std + log_std)

    def apply(params: Params, inputs: Array, features: Features, base: Latents | None = None) -> Latents:
        base = base if isinstance(base, Ladder) else None
        ladder = Ladder((params, network.apply(params, inputs, features), base), layer, layers, base)
        return ladder if layers > 1 else ladder.conditional(jnp.zeros((1, 0)))

    return Network(network.init, apply)


def encoder(body: type[Body], architecture: Architecture, features: FeatureSizes) -> Network:
    """q(z | x, c) as `apply(params, x, features, p(z | c))`; see `Gaussian`."""
    shape = architecture.likelihood.feature_shape(architecture.event_shape)
    return _gaussian(body, Part(shape, features, architecture))


def prior(body: type[Body], architecture: Architecture, features: FeatureSizes) -> Network:
    """p(z | c) as `apply(params, guess, features)`, where guess is [B, *event] or, without one, [B, 0]."""
    return _gaussian(body, Part(architecture.event_shape if architecture.guess else (0,), features, architecture))


def decoder(body: type[Body], architecture: Architecture, features: FeatureSizes) -> Network:
    """The numbers that parametrise p(x | z, c) as `apply(params, z, features)`, [B, num_outputs]."""
    outputs = architecture.likelihood.num_outputs(architecture.event_shape)
    part = Part((architecture.latent_size,), features, architecture, outputs)
    return functional(lambda rngs: body(part, rngs), architecture.precision)


def guess(body: type[Body], architecture: Architecture, features: FeatureSizes) -> Network:
    """The deterministic network p(x | c) whose mean a prior may see: a decoder without latents."""
    alone = dataclasses.replace(architecture, latent_size=0, latent_layers=1, prior="standard", guess=False)
    return decoder(body, alone, features)
