"""A convolutional body for images of any height and width.

An encoder contracts: convolutions at every resolution, each half as high and wide as the one before, then one dense
layer. A decoder expands, in mirror image. Images whose sides cannot be halved so often are padded and cropped.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from cvae import checks
from cvae.networks.layers import Body, Conditioned, Part, linear, rounded

if TYPE_CHECKING:
    from cvae.conditions import Features
    from cvae.config import Architecture


class Convolutional(Body):
    """Residual blocks of 3x3 convolutions; `hidden` names the channels of each resolution and, last, a dense width.

    Contracting, with H and W those of the last resolution, [..] the condition's images and numbers:

        h <- K [x, images];   at every resolution   h <- block(h), and down to the next   h <- W space_to_depth(h)
        gelu(L [h / sqrt(H W), numbers])

    Expanding:

        h <- W gelu(L [z, numbers, pixels]), a grid;   up at every resolution   h <- depth_to_space(W block(h))
        K block(h + K images)
    """

    most_steps = 10

    def __init__(self, part: Part, rngs: nnx.Rngs):
        *channels, self.size = part.architecture.hidden
        height, width, _ = self.event_shape = part.architecture.event_shape
        factor = 2 ** (len(channels) - 1)
        self.padded = (-(-height // factor) * factor, -(-width // factor) * factor)
        self.coarsest = (self.padded[0] // factor, self.padded[1] // factor, channels[-1])
        self.expands, self.depth = part.outputs is not None, len(channels)
        if self.expands:
            self._expanding(part, channels, rngs)
        else:
            self._contracting(part, channels, rngs)

    @staticmethod
    def check(architecture: Architecture) -> None:
        """Refuse x that is no image, and `hidden` without channels."""
        shape, hidden = architecture.event_shape, architecture.hidden
        checks.require(len(shape) == 3, "event_shape", "be an image (H, W, C) for a convolutional body", shape)
        rule = "have channels and, last, a dense width for a convolutional body"
        checks.require(len(hidden) > 1, "hidden", rule, hidden)

    def _contracting(self, part: Part, channels: list[int], rngs: nnx.Rngs) -> None:
        inputs, features = part.inputs, part.features
        depth = features.channels + (inputs[-1] if len(inputs) == 3 else 0)
        flat = math.prod(inputs) if len(inputs) < 3 else 0
        if depth > 0:
            self.first = Convolution(depth, channels[0], rngs)
            self._resolutions(channels, rngs)
            flat += math.prod(self.coarsest)
        self.enter = Conditioned(flat, self.size, features.numbers, part.architecture, rngs, first=True)

    def _expanding(self, part: Part, channels: list[int], rngs: nnx.Rngs) -> None:
        features, outputs = part.features, part.outputs or 0
        self.enter = Conditioned(math.prod(part.inputs), self.size, features.flat, part.architecture, rngs, first=True)
        self.grid = linear(self.size, math.prod(self.coarsest), rngs)
        self._resolutions(channels, rngs)
        if features.channels > 0:
            self.image = Convolution(features.channels, channels[0], rngs)
        pixels = self.event_shape[0] * self.event_shape[1]
        rule = f"give a multiple of {pixels} outputs, one or more per pixel, for a convolutional body"
        checks.require(outputs % pixels == 0, "likelihood", rule, outputs)
        self.last = Convolution(channels[0], outputs // pixels, rngs, small=True)

    def _resolutions(self, channels: list[int], rngs: nnx.Rngs) -> None:
        """The blocks of every resolution, and the steps from one to the next."""
        self.blocks = nnx.Dict({f"block_{i}": Block(number, rngs) for i, number in enumerate(channels)})
        self.steps: nnx.Dict[nnx.Linear] = nnx.Dict()
        for i in range(1, self.depth):
            fine, coarse = 4 * channels[i - 1], channels[i]
            self.steps[f"step_{i}"] = linear(coarse, fine, rngs) if self.expands else linear(fine, coarse, rngs)

    def __call__(self, inputs: Array, features: Features) -> Array:
        """Shapes: as of `Body`."""
        return self._expand(inputs, features) if self.expands else self._contract(inputs, features)

    def _contract(self, inputs: Array, features: Features) -> Array:
        images = [image for image in (inputs, features.image) if image.ndim == 4 and image.shape[-1] > 0]
        if not images:  # a prior whose condition has no images
            return nnx.gelu(self.enter(inputs, features.numbers))
        hidden = self.blocks["block_0"](self.first(self._pad(jnp.concatenate(images, axis=-1))))
        for i in range(1, self.depth):
            hidden = self.blocks[f"block_{i}"](self.steps[f"step_{i}"](space_to_depth(hidden)))
        # A step of Adam moves every weight alike, and so a sum of thousands of inputs by as many times: unscaled, the
        # first losses on MNIST are of the order of 1e5, and 60 steps later it is still 40 nats behind.
        batch, height, width, _ = hidden.shape
        return nnx.gelu(self.enter(hidden.reshape(batch, -1) / math.sqrt(height * width), features.numbers))

    def _expand(self, inputs: Array, features: Features) -> Array:
        hidden = self.grid(nnx.gelu(self.enter(inputs, features.flat))).reshape(-1, *self.coarsest)
        for i in reversed(range(1, self.depth)):
            hidden = depth_to_space(self.steps[f"step_{i}"](self.blocks[f"block_{i}"](hidden)))
        if features.image.shape[-1] > 0:
            hidden = hidden + self.image(self._pad(features.image))
        height, width, _ = self.event_shape
        outputs = self.last(self.blocks["block_0"](hidden))[:, :height, :width]
        # Per channel of x its outputs side by side, as the likelihood reads them.
        return outputs.reshape(outputs.shape[0], -1)

    def _pad(self, image: Array) -> Array:
        (height, width), (tall, wide) = image.shape[1:3], self.padded
        return jnp.pad(image, ((0, 0), (0, tall - height), (0, wide - width), (0, 0)))


class Convolution(nnx.Module):
    """A 3x3 convolution and a bias; see `convolve`. Initialised as `linear`."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs, *, small: bool = False):
        scale = nnx.initializers.normal(0.1 / math.sqrt(9 * inputs)) if small else nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(scale(rngs.params(), (3, 3, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))

    def __call__(self, x: Array) -> Array:
        """Shapes: [B, H, W, inputs] -> [B, H, W, outputs]."""
        return convolve(x, self.kernel[...]) + self.bias[...]


class Block(nnx.Module):
    """A residual block of two 3x3 convolutions: h + K2 gelu(K1 layer_norm(h)), normalised pixel by pixel.

    References: He et al. 2016; normalised before the branch as by Xiong et al. 2020, over the channels as by Liu et
    al. 2022.
    """

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(channels, rngs=rngs)
        self.inner, self.outer = (Convolution(channels, channels, rngs) for _ in range(2))

    def __call__(self, hidden: Array) -> Array:
        """Shapes: [B, H, W, channels] -> [B, H, W, channels]."""
        return hidden + self.outer(nnx.gelu(self.inner(self.norm(hidden))))


CHUNK_BYTES = 4 << 20  # of a few images in the gradient of a kernel on a CPU, which stay in its cache


def convolve(x: Array, kernel: Array) -> Array:
    """A 3x3 convolution of images with zeros around them.

        y[b, h, w] = sum_ij  kernel[i, j]^T x[b, h + i - 1, w + j - 1]

    Shapes: [B, H, W, I], [3, 3, I, O] -> [B, H, W, O].
    """
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    function = _with_fast_gradients if jax.default_backend() == "cpu" else _convolution
    return rounded(function)(x.astype(dtype), kernel.astype(dtype))


def _convolution(x: Array, kernel: Array, layout: str = "HWIO") -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", layout, "NHWC"))


@jax.custom_jvp
def _with_fast_gradients(x: Array, kernel: Array) -> Array:
    """A convolution whose gradients a CPU computes fast, in loops too.

    XLA's fast convolution has its dimensions in the order NHWC, HWIO. The gradients of a convolution have another; in a
    loop, where many training steps are, XLA then takes many times as long (jax issue 12868). JAX gets gradients
    by transposing the derivative below: the part in x, whose kernel is HWOI, becomes a convolution whose kernel is
    HWIO, and the part in the kernel becomes matrix products.
    """
    return _convolution(x, kernel)


@_with_fast_gradients.defjvp
def _derivative(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    y_dot = _convolution(x_dot, kernel.swapaxes(2, 3), "HWOI") + _by_products(x, kernel_dot)
    return _with_fast_gradients(x, kernel), y_dot


def _by_products(x: Array, kernel: Array) -> Array:
    """The same convolution as three matrix products, one per row of the kernel, of a few images at a time.

    Shapes: as of `convolve`.
    """
    batch, height, width, inputs = x.shape
    outputs = kernel.shape[-1]
    # A batch may be spread over all devices. As many images of a chunk are on each of them, so that none are moved.
    devices = jax.device_count() if batch % jax.device_count() == 0 else 1
    share, most = batch // devices, max(1, CHUNK_BYTES // (4 * height * width * 3 * (inputs + outputs)))
    images = devices * max(n for n in range(1, min(most, share) + 1) if share % n == 0)
    chunks = x.reshape(images, batch // images, height, width, inputs)
    # Of bfloat16, the gradient is added up in float32.
    rows = kernel.reshape(3, 3 * inputs, outputs).astype(jnp.promote_types(kernel.dtype, jnp.float32))

    @partial(jax.checkpoint, prevent_cse=False)  # or a gradient would store three times the images
    def chunk(rows: Array, number: Array) -> Array:
        padded = jnp.pad(chunks[:, number], ((0, 0), (0, 0), (1, 1), (0, 0)))
        beside = jnp.concatenate([padded[:, :, j : j + width] for j in range(3)], axis=-1).reshape(-1, 3 * inputs)
        products = ((beside @ row.astype(x.dtype)).reshape(images, height, width, outputs) for row in rows)
        tall = (jnp.pad(product, ((0, 0), (1, 1), (0, 0), (0, 0))) for product in products)
        above, middle, below = (product[:, i : i + height] for i, product in enumerate(tall))
        return above + middle + below

    y: Array = lax.map(partial(chunk, rows), jnp.arange(batch // images))
    return y.swapaxes(0, 1).reshape(batch, height, width, outputs)


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
