"""Encoder, decoder and prior networks, and how a condition enters them. Only this file knows flax exists.

A network is a `flax.nnx` module taken apart once into `init(key) -> params` and `apply(params, *inputs)`, with
params a nested dict of arrays. Inputs and outputs are flat, [B, D]; `model` gives them back their shapes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from cvae.config import Architecture
from cvae.convolutions import convolve, depth_to_space, space_to_depth
from cvae.distributions import Ladder, Latents, Normal

Params = dict[str, Any]

# |log std| stays below this, smoothly: a standard deviation between 0.0009 and 1100, whose square and inverse
# square are finite in float32 whatever one bad step does. Near 0, where latents live, the bound changes little.
LOG_STD_BOUND = 7.0


class Network(NamedTuple):
    """A network as two pure functions."""

    init: Callable[[Array], Params]
    apply: Callable[..., Any]


def _linear(inputs: int, outputs: int, body: str, rngs: nnx.Rngs, *, small: bool = False) -> nnx.Linear:
    # He et al. 2015 before ReLU layers. The article says nothing; its library's default, Glorot's, came out worse on
    # MNIST's validation split at the article's setting: by 0.4 nats (CVAE, one seed) and 1.1 (VAE, mean of two).
    # LeCun's in residual networks, whose branches add up: there He's came out worse by 1.5 nats after ten epochs.
    # Heads of several layers of latents start small: a layer reads draws of those above it, whose random scales would
    # otherwise be exponentials of exponentials, and the first losses of the order of 1e10.
    small_normal = nnx.initializers.normal(0.1 / math.sqrt(max(1, inputs)))
    usual = nnx.initializers.he_uniform() if body == "plain" else nnx.initializers.lecun_normal()
    return nnx.Linear(inputs, outputs, kernel_init=small_normal if small else usual, rngs=rngs)


class Conditioned(nnx.Module):
    """A linear layer that a condition's features may enter. The only place where they do.

        concat, concat_all    W [h, f] + b
        film                  (1 + S f) (W h + b) + T f       Perez et al. 2018

    A layer that the condition does not enter, or a condition without features, leaves W h + b. Where there is no h,
    film has nothing to scale, and it is W f + b.
    """

    def __init__(
        self, inputs: int, outputs: int, features: int, architecture: Architecture, *, first: bool, rngs: nnx.Rngs
    ):
        how, body = architecture.conditioning, architecture.body
        enters = features > 0 and (first or how != "concat")
        self.concat = enters and (how != "film" or inputs == 0)
        self.linear = _linear(inputs + (features if self.concat else 0), outputs, body, rngs)
        self.film = _linear(features, 2 * outputs, body, rngs) if enters and not self.concat else None

    def __call__(self, hidden: Array, features: Array) -> Array:
        """Shapes: [B, inputs], [B or 1, features] -> [B, outputs]."""
        if self.concat:
            # Two products in place of one of [h, f]: the second is the same for all samples of z of an example.
            kernel, bias, inputs = self.linear.kernel[...], self.linear.bias, hidden.shape[-1]
            assert bias is not None
            hidden = hidden @ kernel[:inputs] + features @ kernel[inputs:] + bias[...]
        else:
            hidden = self.linear(hidden)
        if self.film is not None:
            scale, shift = jnp.split(self.film(features), 2, axis=-1)
            hidden = (1 + scale) * hidden + shift
        return hidden


class MLP(nnx.Module):
    """Hidden layers, plain or residual; each L is a linear layer that the condition may enter.

        plain       h <- relu(L h), for every width
        residual    h <- gelu(L x); then h <- h + W gelu(L layer_norm(h)), for every width

    He et al. 2016; normalised before each branch as by Xiong et al. 2020.
    """

    def __init__(self, inputs: int, features: int, widths: tuple[int, ...], architecture: Architecture, rngs: nnx.Rngs):
        def layer(inputs: int, outputs: int, *, first: bool) -> Conditioned:
            return Conditioned(inputs, outputs, features, architecture, first=first, rngs=rngs)

        self.residual = architecture.body == "residual"
        self.size = widths[0] if self.residual else widths[-1]
        self.layers: nnx.Dict[Conditioned] = nnx.Dict()
        if self.residual:
            self.enter = layer(inputs, self.size, first=True)
            self.norms: nnx.Dict[nnx.LayerNorm] = nnx.Dict()
            self.leave: nnx.Dict[nnx.Linear] = nnx.Dict()
            for i, width in enumerate(widths):
                self.norms[f"norm_{i}"] = nnx.LayerNorm(self.size, rngs=rngs)
                self.layers[f"layer_{i}"] = layer(self.size, width, first=False)
                self.leave[f"leave_{i}"] = _linear(width, self.size, architecture.body, rngs)
        else:
            for i, width in enumerate(widths):
                self.layers[f"layer_{i}"] = layer(inputs, width, first=i == 0)
                inputs = width

    def __call__(self, inputs: Array, features: Array) -> Array:
        """Shapes: [B, inputs], [B or 1, features] -> [B, size]."""
        if not self.residual:
            hidden = inputs
            for i in range(len(self.layers)):
                hidden = nnx.relu(self.layers[f"layer_{i}"](hidden, features))
            return hidden
        hidden = nnx.gelu(self.enter(inputs, features))
        for i in range(len(self.layers)):
            inner = nnx.gelu(self.layers[f"layer_{i}"](self.norms[f"norm_{i}"](hidden), features))
            hidden = hidden + self.leave[f"leave_{i}"](inner)
        return hidden


class Convolution(nnx.Module):
    """A 3x3 convolution and a bias; see `convolve`. Initialised as LeCun's, for residual networks as in `_linear`."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (3, 3, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Array) -> Array:
        """Shapes: [B, H, W, inputs] -> [B, H, W, outputs]."""
        return convolve(x, self.kernel[...]) + self.bias[...]


class Block(nnx.Module):
    """A residual block of two 3x3 convolutions: h + K2 gelu(K1 layer_norm(h)), every pixel normalised alone.

    He et al. 2016; normalised before the branch as by Xiong et al. 2020, over the channels as by Liu et al. 2022.
    """

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(channels, rngs=rngs)
        self.inner, self.outer = (Convolution(channels, channels, rngs) for _ in range(2))

    def __call__(self, hidden: Array) -> Array:
        """Shapes: [B, H, W, channels] -> [B, H, W, channels]."""
        return hidden + self.outer(nnx.gelu(self.inner(self.norm(hidden))))


class Contracting(nnx.Module):
    """From pictures to a dense layer: `hidden` names the channels of each resolution and, last, the dense width.

        h <- K pictures;  at every resolution but the first h <- W space_to_depth(h);  then h <- block(h)
        gelu(L [h / sqrt(H W), numbers]), H and W of the last resolution

    The pictures are x, where it is told, and those among the condition's features; the other features, numbers, enter
    at L, the dense layer. Where there is no picture at all, as for the prior of a label, L is all there is.
    """

    def __init__(self, inputs: int, architecture: Architecture, rngs: nnx.Rngs):
        self.condition, self.shape = architecture.condition, architecture.event_shape
        *channels, self.size = architecture.hidden
        pictures, flat = (inputs > 0) + self.condition.pictures, 0
        self.blocks: nnx.Dict[Block] = nnx.Dict()
        self.downs: nnx.Dict[nnx.Linear] = nnx.Dict()
        if pictures > 0:
            self.first = Convolution(pictures * self.shape[-1], channels[0], rngs)
            for i, number in enumerate(channels):
                if i > 0:
                    self.downs[f"down_{i}"] = _linear(4 * channels[i - 1], number, architecture.body, rngs)
                self.blocks[f"block_{i}"] = Block(number, rngs)
            flat = math.prod(_coarsest(architecture))
        self.enter = Conditioned(flat, self.size, self.condition.numbers, architecture, first=True, rngs=rngs)

    def __call__(self, inputs: Array, features: Array) -> Array:
        """Shapes: [B, D] or [B, 0] without x, [B, F] or [1, 0] without a condition -> [B, size]."""
        pictures, numbers = self.condition.split(features)
        if inputs.shape[-1] > 0:
            pictures = [inputs.reshape(-1, *self.shape), *pictures]
        if not pictures:
            return nnx.gelu(self.enter(inputs, numbers))
        hidden = self.blocks["block_0"](self.first(jnp.concatenate(pictures, axis=-1)))
        for i in range(1, len(self.blocks)):
            hidden = self.blocks[f"block_{i}"](self.downs[f"down_{i}"](space_to_depth(hidden)))
        # A step of Adam moves every weight alike, and so a sum of thousands of inputs by as many times: unscaled, the
        # first losses on MNIST are of the order of 1e5, and 60 steps later it is still 40 nats behind.
        batch, height, width, _ = hidden.shape
        return nnx.gelu(self.enter(hidden.reshape(batch, -1) / math.sqrt(height * width), numbers))


class Expanding(nnx.Module):
    """The mirror of `Contracting`: from z to a picture of the first of the channels.

        h <- W gelu(L [z, features]), the coarsest grid
        at every resolution h <- block(h), and up to the next h <- depth_to_space(W h)

    All features enter at L, the dense layer, so that every pixel may hear of them. The pictures among them enter once
    more before the last block, h <- h + K pictures: what a convolution of h and of them as further channels does.
    """

    def __init__(self, inputs: int, architecture: Architecture, rngs: nnx.Rngs):
        self.condition, self.coarsest = architecture.condition, _coarsest(architecture)
        *channels, width = architecture.hidden
        self.size, pictures = channels[0], self.condition.pictures
        self.enter = Conditioned(inputs, width, self.condition.width, architecture, first=True, rngs=rngs)
        self.grid = _linear(width, math.prod(self.coarsest), architecture.body, rngs)
        self.blocks: nnx.Dict[Block] = nnx.Dict()
        self.ups: nnx.Dict[nnx.Linear] = nnx.Dict()
        for i, number in enumerate(channels):
            self.blocks[f"block_{i}"] = Block(number, rngs)
            if i > 0:
                self.ups[f"up_{i}"] = _linear(number, 4 * channels[i - 1], architecture.body, rngs)
        if pictures > 0:
            self.given = Convolution(pictures * architecture.event_shape[-1], self.size, rngs)

    def __call__(self, inputs: Array, features: Array) -> Array:
        """Shapes: [B, Z], [B, F] or [1, 0] without a condition -> [B, H, W, size]."""
        pictures, _ = self.condition.split(features)
        hidden = self.grid(nnx.gelu(self.enter(inputs, features))).reshape(-1, *self.coarsest)
        for i in reversed(range(1, len(self.blocks))):
            hidden = depth_to_space(self.ups[f"up_{i}"](self.blocks[f"block_{i}"](hidden)))
        if pictures:
            hidden = hidden + self.given(jnp.concatenate(pictures, axis=-1))
        return self.blocks["block_0"](hidden)


def _coarsest(architecture: Architecture) -> tuple[int, int, int]:
    """Height, width and channels of a convolutional body's coarsest resolution."""
    height, width, _ = architecture.event_shape
    *channels, _ = architecture.hidden
    halved = 2 ** (len(channels) - 1)
    return height // halved, width // halved, channels[-1]


class Gaussian(nnx.Module):
    """Mean and bounded log standard deviation of q(z | x, c), or of p(z | c), of every layer of latents.

        h = mlp(x, c),   m_1, log s_1 = head_1(h),   m_l, log s_l = head_l(below_l(h, z_<l))

    Sonderby et al. 2016, with a network of its own for posterior and prior, and skips from h to every layer.
    """

    def __init__(self, inputs: int, features: int, architecture: Architecture, rngs: nnx.Rngs):
        if architecture.body == "convolutional":
            self.mlp: MLP | Contracting = Contracting(inputs, architecture, rngs)
        else:
            self.mlp = MLP(inputs, features, architecture.hidden, architecture, rngs)
        size = architecture.latent_size // architecture.latent_layers
        self.head = _linear(self.mlp.size, 2 * size, architecture.body, rngs, small=architecture.latent_layers > 1)
        self.below: nnx.Dict[Below] = nnx.Dict()
        for layer in range(1, architecture.latent_layers):
            self.below[f"layer_{layer}"] = Below(self.mlp.size, layer * size, 2 * size, architecture, rngs)

    def __call__(self, inputs: Array, features: Array) -> Array:
        """What all layers of latents start from, h.  Shapes: [B, D], [B or 1, F] -> [B, size]."""
        return self.mlp(inputs, features)

    def latents(self, hidden: Array, layer: int, above: Array) -> tuple[Array, Array]:
        """A layer given those above it.  Shapes: [B, size], [B, layer Z/L] -> [B, Z/L], [B, Z/L]."""
        outputs = self.head(hidden) if layer == 0 else self.below[f"layer_{layer}"](hidden, above)
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return mean, LOG_STD_BOUND * jnp.tanh(log_std / LOG_STD_BOUND)


class Below(nnx.Module):
    """From h and the latents above to the outputs of a layer of latents.

    h <- h + V z;   h <- h + W gelu(L layer_norm(h));   U h
    """

    def __init__(self, size: int, above: int, outputs: int, architecture: Architecture, rngs: nnx.Rngs):
        # Latents are few: a narrow block says how they depend on those above, at a fifth of a wide one's cost.
        width, body = max(1, size // 5), architecture.body
        self.above = _linear(above, size, body, rngs)
        self.norm = nnx.LayerNorm(size, rngs=rngs)
        self.enter = _linear(size, width, body, rngs)
        self.leave = _linear(width, size, body, rngs)
        self.head = _linear(size, outputs, body, rngs, small=True)

    def __call__(self, hidden: Array, above: Array) -> Array:
        """Shapes: [B, size], [B, above] -> [B, outputs]."""
        hidden = hidden + self.above(above)
        hidden = hidden + self.leave(nnx.gelu(self.enter(self.norm(hidden))))
        return self.head(hidden)


class Decoder(nnx.Module):
    """What the likelihood of x is made of, from z."""

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs):
        size = math.prod(architecture.event_shape) * architecture.likelihood.outputs
        features, widths = architecture.condition.width, architecture.hidden[::-1]
        if architecture.body == "convolutional":
            self.mlp: MLP | Expanding = Expanding(architecture.latent_size, architecture, rngs)
            channels = size // math.prod(architecture.event_shape[:2])
            self.outputs: nnx.Linear | Convolution = Convolution(self.mlp.size, channels, rngs)
        else:
            self.mlp = MLP(architecture.latent_size, features, widths, architecture, rngs)
            self.outputs = _linear(self.mlp.size, size, architecture.body, rngs)

    def __call__(self, z: Array, features: Array) -> Array:
        """Shapes: [B, Z], [B or 1, F] -> [B, D outputs]."""
        return self.outputs(self.mlp(z, features)).reshape(z.shape[0], -1)


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """Take a module apart into pure functions over a nested dict of arrays.

    The skeleton is taken once, without computing a weight; `apply` fills a copy of it, so nothing is shared
    between two calls and every JAX transformation sees a plain function.
    """
    graph, skeleton = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def init(key: Array) -> Params:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(key))))

    def apply(params: Params, *inputs: Any, method: str = "__call__") -> Any:
        state = jax.tree.map(lambda leaf: leaf, skeleton)
        nnx.replace_by_pure_dict(state, params)
        return getattr(nnx.merge(graph, state), method)(*inputs)

    return Network(init, apply)


def _gaussians(build: Callable[[nnx.Rngs], Gaussian], layers: int) -> Network:
    """A `Gaussian` as a network that returns a distribution over all its layers of latents.

    Given a prior of several layers, it is told as a departure from it, m_p + m and log s_p + log s, layer by layer.
    """
    network = functional(build)

    def layer(state: tuple[Params, Array, Ladder | None], number: int, above: Array) -> Normal:
        params, hidden, base = state
        mean, log_std = network.apply(params, hidden, number, above, method="latents")
        if base is None:
            return Normal(mean, log_std)
        p = base.layer(base.state, number, above)
        return Normal(p.mean + mean, p.log_std + log_std)

    def apply(params: Params, inputs: Array, features: Array, base: Latents | None = None) -> Latents:
        base = base if isinstance(base, Ladder) else None
        ladder = Ladder((params, network.apply(params, inputs, features), base), layer, layers, base)
        return ladder if layers > 1 else ladder.given(jnp.zeros((1, 0)))

    return Network(network.init, apply)


def encoder(architecture: Architecture) -> Network:
    """The encoder of an architecture, `apply(params, x, features, p(z | c))` -> q(z | x, c); see `Gaussian`."""
    size, features = math.prod(architecture.event_shape), architecture.condition.width
    return _gaussians(lambda rngs: Gaussian(size, features, architecture, rngs), architecture.latent_layers)


def prior(architecture: Architecture) -> Network:
    """The prior network of an architecture, `apply(params, guess, features)` -> p(z | c); see `Gaussian`.

    The condition is all it sees, so it is its input, and nothing is left to enter elsewhere. With a guess of x to see,
    it is built as the encoder is; so is a convolutional one, which takes pictures and numbers at different places, but
    is not told x.
    """
    if architecture.guess:
        return encoder(architecture)
    width, layers = architecture.condition.width, architecture.latent_layers
    if architecture.body == "convolutional":
        return _gaussians(lambda rngs: Gaussian(0, width, architecture, rngs), layers)
    network = _gaussians(lambda rngs: Gaussian(width, 0, architecture, rngs), layers)
    return Network(network.init, lambda params, _, features: network.apply(params, features, features[:, :0]))


def decoder(architecture: Architecture) -> Network:
    """The decoder of an architecture; see `Decoder`."""
    return functional(lambda rngs: Decoder(architecture, rngs))


def guess(architecture: Architecture) -> Network:
    """The deterministic network p(x | c) whose mean a prior may be given: a decoder without latents."""
    return decoder(dataclasses.replace(architecture, latent_size=0, latent_layers=1, prior="standard", guess=False))


def prune(params: Params, mask: Array) -> Params:
    """Set every weight to 0 that reads or writes a latent outside `mask`.

    Nothing flows through those weights once the latents are masked, so their gradient is 0; set to 0 they stay there
    under weight decay too.

    Shapes: params of `model.make`, mask [Z] of 0 and 1 -> params.
    """
    twice = jnp.concatenate([mask, mask])  # mean and log std
    params = jax.tree.map(lambda leaf: leaf, params)
    for name in {"encoder", "prior"} & params.keys():
        params[name]["head"] = {leaf: value * twice for leaf, value in params[name]["head"].items()}
    mlp = params["decoder"]["mlp"]
    first = (mlp["enter"] if "enter" in mlp else mlp["layers"]["layer_0"])["linear"]
    rows = jnp.concatenate([mask, jnp.ones(first["kernel"].shape[0] - len(mask))])
    first["kernel"] = rows[:, None] * first["kernel"]
    return params
