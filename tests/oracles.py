"""Models whose exact answer is known: linear-Gaussian, so that log p(x | c) is a multivariate normal density.

    z | c ~ N(m0 + M c, diag(s0^2)),   x | z, c ~ N(W z + V c, noise^2 I)

Sizes are all different (batch 3, event 5, latent 2, condition 4) and the prior is not N(0, I), so that a
transpose or a swapped argument cannot pass by luck.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

import cvae

BATCH, EVENT, LATENT, CONDITION = 3, 5, 2, 4
NOISE = 0.6


class LinearGaussian(NamedTuple):
    """A conditional model with an exact answer, and examples to ask it about."""

    model: cvae.CVAE
    params: dict
    x: jax.Array  # [3, 5]
    c: dict  # {"row": [3, 4]}

    def exact_log_prob(self) -> np.ndarray:
        """Log p(x | c), [3], by scipy."""
        p = {name: np.asarray(value, np.float64) for name, value in self.params.items()}
        c = np.asarray(self.c["row"], np.float64)
        mean = (p["m0"] + c @ p["M"].T) @ p["W"].T + c @ p["V"].T
        covariance = p["W"] @ np.diag(np.exp(2 * p["log_s0"])) @ p["W"].T + NOISE**2 * np.eye(EVENT)
        x = np.asarray(self.x, np.float64)
        return np.array([multivariate_normal(m, covariance).logpdf(row) for m, row in zip(mean, x, strict=True)])

    def exact_posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [3, 2] and covariance [2, 2] of p(z | x, c)."""
        p = {name: np.asarray(value, np.float64) for name, value in self.params.items()}
        c, x = np.asarray(self.c["row"], np.float64), np.asarray(self.x, np.float64)
        precision = np.diag(np.exp(-2 * p["log_s0"])) + p["W"].T @ p["W"] / NOISE**2
        covariance = np.linalg.inv(precision)
        shift = (p["m0"] + c @ p["M"].T) * np.exp(-2 * p["log_s0"]) + (x - c @ p["V"].T) @ p["W"] / NOISE**2
        return shift @ covariance, covariance


def linear_gaussian(*, exact: bool) -> LinearGaussian:
    """A linear-Gaussian model whose encoder is the exact posterior, or one that is wrong on purpose.

    The columns of W are orthogonal, so the exact posterior is diagonal and an encoder can state it.
    """
    rng = np.random.default_rng(7)
    columns = np.linalg.qr(rng.normal(size=(EVENT, LATENT)))[0] * [1.5, 0.7]
    params = {
        "W": columns,
        "V": rng.normal(size=(EVENT, CONDITION)),
        "m0": np.array([0.5, -1.0]),
        "M": 0.5 * rng.normal(size=(LATENT, CONDITION)),
        "log_s0": np.log([0.8, 1.3]),
        # How far the encoder is off: nothing, or a shift and a wrong width.
        "shift": np.zeros(LATENT) if exact else np.array([0.3, -0.2]),
        "widen": np.zeros(LATENT) if exact else np.array([-0.4, 0.2]),
    }
    params = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), params)

    def prior(params, c):
        mean = params["m0"] + c["row"] @ params["M"].T
        return cvae.Normal(mean, jnp.broadcast_to(params["log_s0"], mean.shape))

    def encode(params, x, c):
        p = prior(params, c)
        gram = (params["W"] ** 2).sum(axis=0) / NOISE**2
        precision = jnp.exp(-2 * p.log_std) + gram
        residual = (x - c["row"] @ params["V"].T) @ params["W"] / NOISE**2
        mean = (p.mean * jnp.exp(-2 * p.log_std) + residual) / precision
        return cvae.Normal(mean + params["shift"], -0.5 * jnp.log(precision) + params["widen"])

    def decode(params, z, c):
        mean = z @ params["W"].T + c["row"] @ params["V"].T
        return cvae.Normal(mean, jnp.full(mean.shape, np.log(NOISE)))

    model = cvae.CVAE(lambda key: params, encode, prior, decode)
    x = jnp.asarray(rng.normal(size=(BATCH, EVENT)), jnp.float32)
    c = {"row": jnp.asarray(rng.normal(size=(BATCH, CONDITION)), jnp.float32)}
    return LinearGaussian(model, params, x, c)
