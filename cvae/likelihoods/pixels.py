"""Likelihoods of elements in [0, 1], above all pixels."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from cvae import distributions
from cvae.checks import Spec
from cvae.distributions import LEVELS, Distribution
from cvae.likelihoods.base import Likelihood
from cvae.settings import setting


@setting
class Bernoulli(Likelihood):
    """Binary elements with p(1) = sigmoid(output); grey ones in (0, 1) are scored by the same cross-entropy."""

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D] -> over [B, *event]."""
        return distributions.Bernoulli(outputs.reshape(-1, *event_shape))

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Values in [0, 1], uint8 as 255ths."""
        return Spec(event_shape, "pixels", 0, 1)


@setting
class ContinuousBernoulli(Bernoulli):
    """Grey elements in [0, 1], by a normalised density."""

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D] -> over [B, *event]."""
        return distributions.ContinuousBernoulli(outputs.reshape(-1, *event_shape))


@setting
class CategoricalPixels(Bernoulli):
    """8-bit pixels, uint8 or in 255ths, with a probability for each of the 256 levels."""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """256 logits per pixel."""
        return math.prod(event_shape) * LEVELS

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, 256 D] -> over [B, *event]."""
        return distributions.CategoricalPixels(outputs.reshape(-1, *event_shape, LEVELS))


@setting
class DiscretizedLogistic(Bernoulli):
    """8-bit pixels, uint8 or in 255ths, by a logistic density integrated over each of the 256 levels.

    References: Kingma et al. 2016, Improved variational inference with inverse autoregressive flow.
    """

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A location and a scale per pixel."""
        return 2 * math.prod(event_shape)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, 2 D] -> over [B, *event]."""
        outputs = outputs.reshape(outputs.shape[0], *event_shape, 2)
        # Around the middle grey and a quarter of the range where the outputs are 0; scales from 1/2000 to 30.
        log_scale = -2 + 5.5 * jnp.tanh(outputs[..., 1] / 5.5)
        return distributions.DiscretizedLogistic(0.5 + 0.25 * outputs[..., 0], log_scale)
