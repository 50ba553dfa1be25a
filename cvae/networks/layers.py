"""Layers that all bodies are built of: the initialisation, and the one place where a condition enters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

if TYPE_CHECKING:
    from cvae.conditions import Features, FeatureSizes
    from cvae.config import Architecture


_factors: ContextVar[Any] = ContextVar("factors", default=None)  # dtype of the factors of products; None is their own


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Networks that are traced in this context round the factors of their products to this precision."""
    token = _factors.set(jnp.bfloat16 if precision == "bfloat16" else None)
    try:
        yield
    finally:
        _factors.reset(token)


def rounded(function: Callable[..., Array]) -> Callable[..., Array]:
    """A product of two arrays, in the precision of `products_in`; the result has the dtype of the first."""

    def product(a: Array, b: Array, *args: Any, **kwargs: Any) -> Array:
        dtype = _factors.get()
        if dtype is None:
            return function(a, b, *args, **kwargs)
        return function(a.astype(dtype), b.astype(dtype), *args, **kwargs).astype(a.dtype)

    return product


def linear(inputs: int, outputs: int, rngs: nnx.Rngs, *, relu: bool = False, small: bool = False) -> nnx.Linear:
    """A dense layer, initialised for what follows it.

    He et al. 2015 before ReLU layers (Glorot's came out worse on MNIST's validation split at the article's setting, by
    0.4 to 1.1 nats), LeCun's in residual networks (He's came out worse by 1.5 nats after ten epochs). `small` is for
    heads: their outputs are exponentiated, and random ones start with a loss of thousands to millions of nats.
    """
    small_normal = nnx.initializers.normal(0.1 / math.sqrt(max(1, inputs)))
    usual = nnx.initializers.he_uniform() if relu else nnx.initializers.lecun_normal()
    init = small_normal if small else usual
    return nnx.Linear(inputs, outputs, kernel_init=init, dot_general=_dot_general, rngs=rngs)


_dot_general, _matmul = rounded(lax.dot_general), rounded(jnp.matmul)


class Conditioned(nnx.Module):
    """A dense layer that a condition's features may enter.

        concat, concat_all    W [h, f] + b
        film                  (1 + S f) (W h + b) + T f       Perez et al. 2018

    A layer that the condition does not enter, or a condition without features, leaves W h + b. Without h there is
    nothing for film to scale, and it is W f + b.
    """

    def __init__(
        self, inputs: int, outputs: int, features: int, architecture: Architecture, rngs: nnx.Rngs, *, first: bool
    ):
        how, relu = architecture.conditioning, architecture.body == "mlp"
        self.alone = inputs == 0
        enters = features > 0 and (first or how != "concat") and not self.alone
        concat, film = enters and how != "film", enters and how == "film"
        self.linear = linear(features if self.alone else inputs + concat * features, outputs, rngs, relu=relu)
        self.film = linear(features, 2 * outputs, rngs, relu=relu) if film else None
        # Drawn as one kernel, and two from here on: the product with f is the same for all samples of z of an example,
        # and slices of one kernel would be copied in every step.
        kernel = self.linear.kernel[...]
        self.features = nnx.Param(kernel[inputs:]) if concat else None
        if concat:
            self.linear.kernel = nnx.Param(kernel[:inputs])

    def __call__(self, hidden: Array, features: Array) -> Array:
        """Shapes: [B, inputs], [B or 1, features] -> [B, outputs]."""
        hidden = self.linear(features if self.alone else hidden)
        if self.features is not None:
            hidden = hidden + _matmul(features, self.features[...])
        if self.film is not None:
            scale, shift = jnp.split(self.film(features), 2, axis=-1)
            hidden = (1 + scale) * hidden + shift
        return hidden


class Part(NamedTuple):
    """The part of a model that a body is built for."""

    inputs: tuple[int, ...]  # shape of x for an encoder, (Z,) for a decoder, (0,) for a prior
    features: FeatureSizes  # of the condition
    architecture: Architecture
    outputs: int | None = None  # numbers per example that a decoder gives

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the layers: `hidden`, in reverse order for a decoder."""
        return self.architecture.hidden if self.outputs is None else self.architecture.hidden[::-1]


class Body(nnx.Module):
    """What an encoder, a prior or a decoder is made of.

    Called on inputs [B, *inputs] and a condition's features, it gives a hidden vector [B, size], or, if the part has
    `outputs`, that many numbers per example.
    """

    size: int
    most_steps = 1000  # of a compiled call, after which Ctrl-C is heard; a class may have fewer, for a CPU

    def __init__(self, part: Part, rngs: nnx.Rngs):
        raise NotImplementedError

    @staticmethod
    def check(architecture: Architecture) -> None:
        """Refuse an architecture that this body cannot have; raises ValueError."""

    def __call__(self, inputs: Array, features: Features) -> Array:
        """Shapes: [B, *inputs], features of B rows, or 1 where there is no condition -> [B, size or outputs]."""
        raise NotImplementedError
