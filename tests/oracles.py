"""Models whose exact answer is known: linear-Gaussian, so that log p(x | c) is a multivariate normal density.

    z | c ~ N(m0 + M f(c), diag(s0^2)),   x | z, c ~ N(W z + V f(c), noise^2 I),   f(c) the features of the condition

The model's features come from the library's condition, the exact answer's from the few lines of NumPy below. An image
condition makes the decoder's normal a `Partial` one, and the exact answer the density of the hidden elements alone.

Sizes are all different (batch 3, event 5, latent 2) and the prior is not N(0, I), so that a transpose or a swapped
argument cannot pass by luck.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

import cvae
from cvae.distributions import Partial
from cvae.preparation import preparation

BATCH, EVENT, LATENT = 3, 5, 2
NOISE = 0.6

ROW = cvae.Continuous(4, name="row")
CONDITIONS = {
    "nothing": cvae.Nothing(),
    "label": cvae.Label(4),
    "continuous": cvae.Continuous(3, (0.5, -1.0, 2.0), (2.0, 0.7, 1.6)),
    "image": cvae.Image((EVENT,), "given"),
    "mixed": cvae.Mixed(group=cvae.Label(3), amount=cvae.Continuous(2, (3.0, -1.0), (2.0, 0.5)),
                        picture=cvae.Image((EVENT,), "given")),
}  # fmt: skip


@contextmanager
def quickly_compiled() -> Iterator[None]:
    """Leave out most of XLA's optimisations: many small programs, each run once, compile in half the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


class LinearGaussian(NamedTuple):
    """A conditional model with an exact answer, and examples to ask it about."""

    model: cvae.CVAE
    params: dict
    x: jax.Array  # [3, 5]
    c: dict  # as the model is given it
    stored: dict  # as a data set holds it

    def _double(self) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray]:
        """Parameters, x, features and which elements are hidden, in double precision."""
        params = {name: np.asarray(value, np.float64) for name, value in self.params.items()}
        x = np.asarray(self.x, np.float64)
        given = features(self.model.architecture.condition, self.c)
        hidden = ~np.asarray(self.c["observed"]) if "observed" in self.c else np.ones(x.shape, bool)
        return params, x, np.broadcast_to(given, (len(x), given.shape[1])), hidden

    def exact_log_prob(self) -> np.ndarray:
        """Log p(x | c) of what c does not reveal, [B], by scipy."""
        p, x, f, hidden = self._double()
        mean = (p["m0"] + f @ p["M"].T) @ p["W"].T + f @ p["V"].T
        covariance = p["W"] @ np.diag(np.exp(2 * p["log_s0"])) @ p["W"].T + NOISE**2 * np.eye(EVENT)
        return np.array(
            [
                multivariate_normal(m[h], covariance[np.ix_(h, h)]).logpdf(row[h])
                for m, h, row in zip(mean, hidden, x, strict=True)
            ]
        )

    def exact_posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [B, 2] and covariance [B, 2, 2] of p(z | x, c)."""
        p, x, f, hidden = self._double()
        seen_by_z = hidden[:, :, None] * p["W"]  # [B, 5, 2]
        prior_precision = np.diag(np.exp(-2 * p["log_s0"]))
        covariance = np.linalg.inv(prior_precision + np.swapaxes(seen_by_z, 1, 2) @ seen_by_z / NOISE**2)
        residual = np.einsum("bi,bij->bj", x - f @ p["V"].T, seen_by_z) / NOISE**2
        return np.einsum("bij,bj->bi", covariance, (p["m0"] + f @ p["M"].T) @ prior_precision + residual), covariance

    def repeated(self, copies: int) -> tuple[np.ndarray, dict]:
        """The examples as a data set holds them, each `copies` times in a row: what is drawn for each differs."""
        return np.repeat(self.x, copies, axis=0), {
            name: np.repeat(v, copies, axis=0) for name, v in self.stored.items()
        }


def features(condition: cvae.conditions.Condition, c: dict) -> np.ndarray:
    """Features of raw conditions, [B, width] ([1, 0] of none), by NumPy alone."""
    if isinstance(condition, cvae.Nothing):
        return np.zeros((1, 0))
    if isinstance(condition, cvae.Label):
        return np.eye(condition.num_classes)[np.asarray(c[condition.name])]
    if isinstance(condition, cvae.Continuous):
        return (np.asarray(c[condition.name], np.float64) - condition.mean) / condition.std
    if isinstance(condition, cvae.Image):
        seen = np.asarray(c["observed"], np.float64)
        return np.concatenate([seen * np.asarray(c[condition.name], np.float64), seen], axis=1)
    return np.concatenate([features(part, c) for part in condition.parts], axis=1)


def draw(condition: cvae.conditions.Condition, rng: np.random.Generator) -> dict:
    """Raw conditions as a data set holds them."""
    if isinstance(condition, cvae.Label):
        return {condition.name: rng.permutation(condition.num_classes)[:BATCH]}
    if isinstance(condition, cvae.Continuous):
        return {condition.name: rng.normal(condition.mean, condition.std, (BATCH, condition.dim)).astype(np.float32)}
    if isinstance(condition, cvae.Image):
        # One, three and two hidden: no two masks alike, and both latents are felt in some.
        return {"observed": ~np.array([[0, 0, 0, 1, 0], [1, 0, 1, 0, 1], [0, 1, 0, 0, 1]], bool)}
    drawn = {}
    for part in getattr(condition, "parts", ()):
        drawn |= draw(part, rng)
    return drawn


@cache
def linear_gaussian(*, exact: bool, condition: cvae.conditions.Condition = ROW) -> LinearGaussian:
    """A linear-Gaussian model whose encoder is the exact posterior, or one that is wrong on purpose.

    An encoder states a diagonal posterior. For the exact one every element of x hears one latent only, so that the
    posterior is diagonal whatever is hidden; for the wrong one all elements hear both. The wrong one is also shifted,
    and wider than the posterior: importance weights of a narrower one may have no variance, nor an error bar.
    """
    rng = np.random.default_rng(7)
    width = condition.width
    apart = np.array([[1.2, 0.0], [0.0, 0.5], [-0.8, 0.0], [0.4, 0.0], [0.0, -0.9]])
    params: Any = {
        "W": apart if exact else np.linalg.qr(rng.normal(size=(EVENT, LATENT)))[0] * [1.5, 0.7],
        "V": rng.normal(size=(EVENT, width)),
        "m0": np.array([0.5, -1.0]),
        "M": 0.5 * rng.normal(size=(LATENT, width)),
        "log_s0": np.log([0.8, 1.3]),
        "shift": np.zeros(LATENT) if exact else np.array([0.3, -0.2]),
        "widen": np.zeros(LATENT) if exact else np.array([0.3, 0.2]),
    }
    params = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), params)

    def prior(params, c):
        mean = params["m0"] + condition.encode(c) @ params["M"].T
        return cvae.Normal(mean, jnp.broadcast_to(params["log_s0"], mean.shape))

    def encode(params, x, c):
        p, revealed = prior(params, c), condition.reveals(c)
        hidden = jnp.ones(x.shape) if revealed is None else 1.0 - revealed[0]
        residual = (hidden * (x - condition.encode(c) @ params["V"].T)) @ params["W"] / NOISE**2
        precision = jnp.exp(-2 * p.log_std) + hidden @ params["W"] ** 2 / NOISE**2
        mean = (p.mean * jnp.exp(-2 * p.log_std) + residual) / precision
        return cvae.Normal(mean + params["shift"], -0.5 * jnp.log(precision) + params["widen"])

    def decode(params, z, c):
        mean = z @ params["W"].T + condition.encode(c) @ params["V"].T
        distribution, revealed = cvae.Normal(mean, jnp.full(mean.shape, np.log(NOISE))), condition.reveals(c)
        return distribution if revealed is None else Partial(distribution, ~revealed[0], revealed[1])

    likelihood = cvae.likelihoods.Normal(scale=NOISE)
    architecture = cvae.Architecture((EVENT,), condition, LATENT, likelihood=likelihood)
    model = cvae.CVAE(lambda key: params, encode, prior, decode, architecture)
    x, stored = jnp.asarray(rng.normal(size=(BATCH, EVENT)), jnp.float32), draw(condition, rng)
    x, c = preparation(condition)(jax.random.key(0), x, stored)  # masks are stored, so the key draws nothing
    return LinearGaussian(model, params, x, jax.tree.map(jnp.asarray, c), stored)


class LinearLadder(NamedTuple):
    """Two layers of one latent each, linear and Gaussian, with an exact answer."""

    model: cvae.CVAE
    x: jax.Array  # [3, 5]
    c: dict
    prior_mean: np.ndarray  # [3, 2] of both layers together
    prior_covariance: np.ndarray  # [2, 2]
    posterior_mean: np.ndarray  # [3, 2] of q, both layers together
    posterior_covariance: np.ndarray  # [2, 2]
    weights: np.ndarray  # [5, 2] of the likelihood, N(W z, noise^2 I)

    def exact_log_prob(self) -> np.ndarray:
        """Log p(x | c), [B], by scipy."""
        covariance = self.weights @ self.prior_covariance @ self.weights.T + NOISE**2 * np.eye(EVENT)
        means = self.prior_mean @ self.weights.T
        pairs = zip(np.asarray(self.x, np.float64), means, strict=True)
        return np.array([multivariate_normal(mean, covariance).logpdf(x) for x, mean in pairs])

    def exact_kl(self) -> np.ndarray:
        """KL(q(z | x, c) || p(z | c)) of both layers together, [B], by the matrix formula."""
        precision = np.linalg.inv(self.prior_covariance)
        shift = self.posterior_mean - self.prior_mean
        ratio = np.linalg.slogdet(self.prior_covariance)[1] - np.linalg.slogdet(self.posterior_covariance)[1]
        trace = np.trace(precision @ self.posterior_covariance)
        return 0.5 * (trace - LATENT + np.einsum("bi,ij,bj->b", shift, precision, shift) + ratio)


def _rung(state: tuple, number: int, above: jax.Array) -> cvae.Normal:
    """A layer of z1 ~ N(m1, s1^2), z2 | z1 ~ N(m2 + slope (z1 - m1), s2^2), from (m [B, 2], slope, log s [2])."""
    mean, slope, log_std = state
    centre = mean[:, :1] if number == 0 else mean[:, 1:] + slope * (above - mean[:, :1])
    return cvae.Normal(centre, jnp.broadcast_to(log_std[number], centre.shape))


def _rungs(mean: np.ndarray, covariance: np.ndarray) -> cvae.distributions.Ladder:
    """A joint Gaussian of two as a ladder of two layers."""
    slope = covariance[1, 0] / covariance[0, 0]
    log_std = 0.5 * np.log([covariance[0, 0], covariance[1, 1] - slope * covariance[1, 0]])
    state = jax.tree.map(lambda part: jnp.asarray(part, jnp.float32), (mean, slope, log_std))
    return cvae.distributions.Ladder(state, _rung, 2)


@cache
def linear_ladder(*, exact: bool) -> LinearLadder:
    """A ladder whose q is the exact posterior, or one that is shifted, wider and tilted on purpose."""
    rng = np.random.default_rng(11)
    weights, x = rng.normal(size=(EVENT, LATENT)), rng.normal(size=(BATCH, EVENT))
    label = np.array([2, 0, 1])
    slope, scale = -0.9, np.array([0.7, 1.2])
    prior_mean = rng.normal(size=(3, LATENT))[label]
    corner = slope * scale[0] ** 2
    prior = np.array([[scale[0] ** 2, corner], [corner, scale[1] ** 2 + slope * corner]])
    precision = np.linalg.inv(prior) + weights.T @ weights / NOISE**2
    covariance = np.linalg.inv(precision)
    mean = (prior_mean @ np.linalg.inv(prior) + x @ weights / NOISE**2) @ covariance
    if not exact:
        mean, covariance = mean + np.array([0.2, -0.1]), covariance * 1.5 + [[0.0, 0.02], [0.02, 0.1]]

    def decode(params, z, c):
        centre = z @ jnp.asarray(weights.T, jnp.float32)
        return cvae.Normal(centre, jnp.full(centre.shape, np.log(NOISE)))

    model = cvae.CVAE(
        lambda key: {},
        lambda params, x, c: _rungs(mean, covariance),
        lambda params, c: _rungs(prior_mean, prior),
        decode,
    )
    c = {"label": jnp.asarray(label)}
    return LinearLadder(model, jnp.asarray(x, jnp.float32), c, prior_mean, prior, mean, covariance, weights)
