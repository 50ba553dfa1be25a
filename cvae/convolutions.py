"""Convolutions of pictures, fast also inside a compiled loop on a CPU, and pixels as channels.

`networks` builds encoders and decoders of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax


def convolve(x: Array, kernel: Array) -> Array:
    """A 3x3 convolution of pictures with nothing around them.

        y[b, h, w] = sum_ij  kernel[i, j]^T x[b, h + i - 1, w + j - 1]

    On a CPU it is written as that sum of nine shifted matrix products, because XLA leaves its fast convolution inside
    loops, and an epoch is one (jax issue 12868). To fewer channels the products are shifted, else their inputs.

    Shapes: [B, H, W, I], [3, 3, I, O] -> [B, H, W, O].
    """
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    _, height, width, inputs = x.shape
    outputs = kernel.shape[-1]
    narrowing = outputs < inputs
    if narrowing:
        x = x @ kernel.transpose(2, 0, 1, 3).reshape(inputs, 9 * outputs)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def tap(i: int, j: int) -> Array:
        shifted = padded[:, i : i + height, j : j + width]
        if not narrowing:
            return shifted @ kernel[i, j]
        return shifted[..., (3 * i + j) * outputs :][..., :outputs]

    first, *others = (tap(i, j) for i in range(3) for j in range(3))
    return sum(others, start=first)


def space_to_depth(x: Array) -> Array:
    """Every square of 2x2 pixels as one of four times the channels.  Shapes: [B, 2H, 2W, C] -> [B, H, W, 4C]."""
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def depth_to_space(x: Array) -> Array:
    """The inverse of `space_to_depth`.  Shapes: [B, H, W, 4C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height, width, 2, 2, channels // 4)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
