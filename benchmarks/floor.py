"""The floor of a training step: its matrix products and Adam's memory traffic, at rates measured on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

import cvae
from benchmarks.rounds import Row

ADAM_BYTES = 7 * 4  # per parameter in float32: it, its gradient and two moments read, it and the moments written


def parameters(architecture: cvae.Architecture) -> Any:
    """Shapes of the parameters, as `init` gives them."""
    return jax.eval_shape(cvae.make(architecture).init, jax.random.key(0))


def adam_bytes(architecture: cvae.Architecture) -> int:
    """Bytes that a step of Adam must move: seven floats per parameter."""
    return ADAM_BYTES * int(sum(leaf.size for leaf in jax.tree.leaves(parameters(architecture))))


def step_flops(architecture: cvae.Architecture, batch_size: int) -> int:
    """Floating-point operations of the matrix products and convolutions of the gradient of the ELBO.

    A multiplication and an addition are two. They are counted in what JAX traces and a result depends on, so what
    needs no gradient, such as the input of the first layer, has none.
    """
    model, specs = cvae.make(architecture), architecture.condition.spec
    x: Any = np.zeros((batch_size, *architecture.event_shape), np.float32)
    c = {
        name: np.zeros((batch_size, *spec.shape), np.int32 if spec.kind == "integer" else np.float32)
        for name, spec in specs.items()
    }

    def loss(params: Any) -> Any:
        return -cvae.elbo(model, params, jax.random.key(0), x, c).value.mean()

    traced = jax.make_jaxpr(jax.grad(loss))(parameters(architecture)).jaxpr
    needed, _ = dce_jaxpr(traced, [True] * len(traced.outvars))
    return sum(times * _flops(equation) for times, equation in _equations(needed))


def _equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[int, Any]]:
    """The equations of a program, those of its functions and loops in their place, and how often each is computed."""
    for equation in jaxpr.eqns:
        inner = [value for value in equation.params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
        for value in inner:
            yield from _equations(getattr(value, "jaxpr", value), times * equation.params.get("length", 1))
        if not inner:
            yield times, equation


def _flops(equation: Any) -> int:
    """Operations of a matrix product or a convolution; 0 of all else."""
    if equation.primitive.name not in ("dot_general", "conv_general_dilated"):
        return 0
    (left, right), numbers = (value.aval.shape for value in equation.invars), equation.params["dimension_numbers"]
    out: int = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "conv_general_dilated":
        return 2 * out * int(math.prod(right) // right[numbers.rhs_spec[0]])
    # A product with a vector of ones is a sum.
    contracted: int = math.prod(left[axis] for axis in numbers[0][0])
    return 2 * out * contracted if min(len(left), len(right)) > 1 else 0


def shortest(call: Callable[[], object], repeats: int) -> float:
    """Seconds of a call, the least of several after one that is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def matmul_rate(repeats: int = 5) -> float:
    """Floating-point operations per second of a large square float32 product in JAX, the best of several."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    square = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: a @ a)
    return 2 * size**3 / shortest(lambda: product(square).block_until_ready(), repeats)


def memory_rate(size: int, repeats: int = 20) -> float:
    """Bytes per second of a <- a / 2 + b in place, two arrays of `size` bytes together, the best of several.

    `size` is that of what Adam reads, because what fits a cache is read faster than memory is.
    """
    a, b = (jnp.ones(size // 8, jnp.float32) for _ in range(2))
    update = jax.jit(lambda a, b: 0.5 * a + b, donate_argnums=0)

    def call() -> None:
        nonlocal a
        a = update(a, b).block_until_ready()

    return 3 * a.nbytes / shortest(call, repeats)


def measurement(architecture: cvae.Architecture, batch_size: int, steps: int) -> Callable[[], Row]:
    """A function that measures both rates, and gives the seconds of so many steps at them."""
    flops, traffic = step_flops(architecture, batch_size), adam_bytes(architecture)
    read = 4 * traffic // 7

    def measure() -> Row:
        compute, memory = matmul_rate(), memory_rate(read)
        return {"seconds": steps * (flops / compute + traffic / memory), "flops": compute, "bytes": memory}

    return measure
