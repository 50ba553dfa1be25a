"""The models of `benchmarks.epoch` in PyTorch, written plainly; the equations are those of `cvae.networks`.

Only what the sizes need: the condition enters the first layer, and is no image for a convolutional body. The order of
the channels in `pixel_shuffle` differs, which renames weights and changes nothing else.
"""

# Without torch, mypy sees Any in its place.
# mypy: disallow-subclassing-any=False
from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import cvae

LOG_STD_BOUND = 7.0


def linear(inputs: int, outputs: int, kind: str = "lecun") -> nn.Linear:
    """A dense layer, initialised as by `cvae.networks.layers`: before ReLU (he), in residual networks, or as a head."""
    return initialise(nn.Linear(inputs, outputs), inputs, kind)


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1, kind: str = "lecun") -> nn.Conv2d:
    """A convolution of images with zeros around them."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=1 if size == 3 else 0)
    return initialise(layer, inputs * size**2, kind)


def initialise(layer: Any, inputs: int, kind: str) -> Any:
    """Set the weights of a layer whose outputs read so many inputs."""
    if kind == "he":
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    else:
        nn.init.normal_(layer.weight, std=(0.1 if kind == "small" else 1) / math.sqrt(inputs))
    nn.init.zeros_(layer.bias)
    return layer


def gelu(x: Any) -> Any:
    """GELU by tanh, as Flax has it."""
    return functional.gelu(x, approximate="tanh")


class MLP(nn.Module):
    """ReLU layers."""

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int | None) -> None:
        super().__init__()
        sizes = (inputs, *widths)
        self.layers = nn.ModuleList(linear(a, b, "he") for a, b in zip(sizes[:-1], widths, strict=True))
        self.head = nn.Identity() if outputs is None else linear(widths[-1], outputs, "small")

    def forward(self, inputs: Any, condition: Any) -> Any:
        """Shapes: [B, inputs], [B, features] -> [B, size or outputs]."""
        hidden = torch.cat([inputs, condition], dim=1)
        for layer in self.layers:
            hidden = functional.relu(layer(hidden))
        return self.head(hidden)


class Residual(nn.Module):
    """A dense layer, then blocks h + W gelu(L layer_norm(h))."""

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int | None) -> None:
        super().__init__()
        size = widths[0]
        self.enter = linear(inputs, size)
        self.blocks = nn.ModuleList(DenseBlock(size, width) for width in widths)
        self.head = nn.Identity() if outputs is None else linear(size, outputs, "small")

    def forward(self, inputs: Any, condition: Any) -> Any:
        """Shapes: [B, inputs], [B, features] -> [B, size or outputs]."""
        hidden = gelu(self.enter(torch.cat([inputs, condition], dim=1)))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


class DenseBlock(nn.Module):
    """h + W gelu(L layer_norm(h))."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.inner, self.outer = linear(size, width), linear(width, size)

    def forward(self, hidden: Any) -> Any:
        """Shapes: [B, size] -> [B, size]."""
        return hidden + self.outer(gelu(self.inner(self.norm(hidden))))


class ConvolutionBlock(nn.Module):
    """The same of two 3x3 convolutions, normalised over the channels; no copy where channels are last in memory."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.inner, self.outer = convolution(channels, channels), convolution(channels, channels)

    def forward(self, hidden: Any) -> Any:
        """Shapes: [B, C, H, W] -> [B, C, H, W]."""
        normal = self.norm(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return hidden + self.outer(gelu(self.inner(normal)))


class Contracting(nn.Module):
    """From an image to a hidden vector."""

    def __init__(self, shape: tuple[int, ...], hidden: tuple[int, ...], condition: int) -> None:
        super().__init__()
        *channels, size = hidden
        height, width, depth = shape
        factor = 2 ** (len(channels) - 1)
        self.shape = (depth, height, width)
        self.first = convolution(depth, channels[0])
        self.blocks = nn.ModuleList(ConvolutionBlock(number) for number in channels)
        pairs = pairwise(channels)
        self.steps = nn.ModuleList(convolution(fine, coarse, 2, 2) for fine, coarse in pairs)
        self.pixels = (height // factor) * (width // factor)
        self.enter = linear(self.pixels * channels[-1] + condition, size)

    def forward(self, inputs: Any, condition: Any) -> Any:
        """Shapes: [B, inputs], [B, features] -> [B, size or outputs]."""
        image = inputs.unflatten(1, self.shape).contiguous(memory_format=torch.channels_last)
        hidden = self.blocks[0](self.first(image))
        for step, block in zip(self.steps, self.blocks[1:], strict=True):
            hidden = block(step(hidden))
        # In the order of memory, so that nothing is copied.
        flat = hidden.permute(0, 2, 3, 1).flatten(1) / math.sqrt(self.pixels)
        return gelu(self.enter(torch.cat([flat, condition], dim=1)))


class Expanding(nn.Module):
    """From latents to the logits of an image."""

    def __init__(self, shape: tuple[int, ...], hidden: tuple[int, ...], inputs: int) -> None:
        super().__init__()
        *channels, size = hidden
        height, width, depth = shape
        factor = 2 ** (len(channels) - 1)
        self.coarsest = (height // factor, width // factor, channels[-1])
        self.enter, self.grid = linear(inputs, size), linear(size, math.prod(self.coarsest))
        self.blocks = nn.ModuleList(ConvolutionBlock(number) for number in reversed(channels))
        pairs = pairwise(channels[::-1])
        self.steps = nn.ModuleList(convolution(coarse, 4 * fine, 1) for coarse, fine in pairs)
        self.last = convolution(channels[0], depth, kind="small")

    def forward(self, inputs: Any, condition: Any) -> Any:
        """Shapes: [B, inputs], [B, features] -> [B, size or outputs]."""
        grid = self.grid(gelu(self.enter(torch.cat([inputs, condition], dim=1))))
        hidden = grid.unflatten(1, self.coarsest).permute(0, 3, 1, 2)
        for block, step in zip(self.blocks[:-1], self.steps, strict=True):
            hidden = functional.pixel_shuffle(step(block(hidden)), 2)
        return self.last(self.blocks[-1](hidden)).flatten(1)


class Latents(nn.Module):
    """Mean and log standard deviation of every layer of latents, from a body's hidden vector and the latents above."""

    def __init__(self, body: nn.Module, size: int, latents: int, layers: int, kind: str) -> None:
        super().__init__()
        each = latents // layers
        self.body = body
        self.mean = linear(size, each, kind if layers == 1 else "small")
        self.log_std = linear(size, each, "small")
        self.below = nn.ModuleList(Below(size, number * each, each) for number in range(1, layers))

    def layer(self, hidden: Any, number: int, above: Any) -> tuple[Any, Any]:
        """A layer given those above it.  Shapes: [B, size], [B, number Z/L] -> [B, Z/L] twice."""
        if number == 0:
            mean, log_std = self.mean(hidden), self.log_std(hidden)
        else:
            mean, log_std = self.below[number - 1](hidden, above)
        return mean, LOG_STD_BOUND * torch.tanh(log_std / LOG_STD_BOUND)


class Below(nn.Module):
    """A layer of latents given those above it."""

    def __init__(self, size: int, above: int, latents: int) -> None:
        super().__init__()
        self.above = linear(above, size)
        self.block = DenseBlock(size, max(1, size // 5))
        self.head = linear(size, 2 * latents, "small")

    def forward(self, hidden: Any, above: Any) -> Any:
        """Shapes: [B, size], [B, above] -> [B, latents] twice."""
        return self.head(self.block(hidden + self.above(above))).chunk(2, dim=1)


class CVAE(nn.Module):
    """A conditional VAE of an architecture; called on flat pixels, features and noise, it gives the loss in nats."""

    hidden: Any

    def __init__(self, architecture: cvae.Architecture) -> None:
        super().__init__()
        shape, widths, latents = architecture.event_shape, architecture.hidden, architecture.latent_size
        x, c = math.prod(shape), condition_size(architecture)
        self.layers, convolutional = architecture.latent_layers, architecture.body == "convolutional"
        dense = Residual if architecture.body == "residual" else MLP
        size = widths[-1] if architecture.body != "residual" else widths[0]
        encoder = Contracting(shape, widths, c) if convolutional else dense(x + c, widths, None)

        def gaussian(body: nn.Module) -> Latents:
            return Latents(body, size, latents, self.layers, "he" if architecture.body == "mlp" else "lecun")

        self.encoder = gaussian(encoder)
        learned = architecture.prior == "learned"
        self.prior = gaussian(dense(c, widths, None)) if learned else None
        self.decoder = Expanding(shape, widths, latents + c) if convolutional else dense(latents + c, widths[::-1], x)
        mask = getattr(architecture.condition, "fixed", None)
        hidden = None if mask is None else torch.from_numpy(~np.asarray(mask).reshape(1, -1)).float()
        self.register_buffer("hidden", hidden)

    def forward(self, x: Any, c: Any, noise: Any) -> Any:
        """Shapes: [B, D], [B, F], [B, Z] -> []."""
        inner = self.encoder.body(x, c)
        base = None if self.prior is None else self.prior.body(x[:, :0], c)
        drawn: list[Any] = []
        kl: Any = 0.0
        for number, normal in enumerate(noise.chunk(self.layers, dim=1)):
            above = torch.cat(drawn, dim=1) if drawn else None
            mean, log_std = self.encoder.layer(inner, number, above)
            shift, ratio, scale = mean, log_std, 1.0
            if self.prior is not None:  # the posterior is relative to it
                prior_mean, prior_log_std = self.prior.layer(base, number, above)
                mean, log_std = prior_mean + mean, prior_log_std + log_std
                scale = torch.exp(-prior_log_std)
            kl = kl + 0.5 * torch.sum((2 * ratio).exp() + (shift * scale).square() - 1 - 2 * ratio)
            drawn.append(mean + log_std.exp() * normal)
        logits = self.decoder(torch.cat(drawn, dim=1), c)
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, x, self.hidden, reduction="sum")
        return (cross_entropy + kl) / len(x)


def condition_size(architecture: cvae.Architecture) -> int:
    """Numbers that the condition enters as: the classes of a label, or the observed pixels of an image."""
    condition: Any = architecture.condition
    return condition.num_classes if isinstance(condition, cvae.Label) else int(np.sum(condition.fixed))


def inputs(architecture: cvae.Architecture, x: np.ndarray, label: np.ndarray) -> tuple[Any, Any]:
    """Examples as the model reads them: flat pixels in [0, 1], and the features of the condition."""
    pixels = torch.from_numpy(x.reshape(len(x), -1).astype(np.float32) / 255)
    condition: Any = architecture.condition
    if isinstance(condition, cvae.Label):
        return pixels, functional.one_hot(torch.from_numpy(label).long(), condition.num_classes).float()
    return pixels, pixels[:, torch.from_numpy(np.flatnonzero(condition.fixed))].contiguous()
