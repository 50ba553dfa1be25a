"""Models whose exact answer is known: linear-Gaussian ones by SciPy, any model of few latents by integration.

    z | c ~ N(m0 + M f(c), diag(s0^2)),   x | z, c ~ N(W z + V f(c), noise^2 I),   f(c) the features of the condition

The model's features come from the library's condition, those of the exact answer from a few lines of NumPy. With an
image condition the decoder's distribution is `Masked`, and the exact answer the density of the hidden elements alone;
with missing elements it is `Missing`, and the exact answer that of the others.

Sizes all differ (batch 3, event 5, latent 2) and the prior is not N(0, I), so that a transpose or a swapped argument
cannot pass by luck.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import cvae
from cvae.config import parts_of
from cvae.distributions import Ladder, Masked, Missing, Normal
from cvae.model import feature_sizes

BATCH, EVENT, LATENT = 3, 5, 2
NOISE = 0.6
HOLES = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 1]], bool)  # cells that are missing

ROW = cvae.Continuous(4, name="row")
CONDITIONS = {
    "unconditional": cvae.Unconditional(),
    "label": cvae.Label(4),
    "continuous": cvae.Continuous(3, (0.5, -1.0, 2.0), (2.0, 0.7, 1.6)),
    "image": cvae.Image((EVENT,), "given"),
    "mixed": cvae.Mixed(
        (
            cvae.Label(3, "group"),
            cvae.Continuous(2, (3.0, -1.0), (2.0, 0.5), "amount"),
            cvae.Image((EVENT,), "given", "part"),
        )
    ),
}


# A model of three numbers that ignores x and z: its only parameter is the level b that it predicts.
LEVEL = cvae.CVAE(
    lambda key: {"b": jnp.zeros(3)},
    lambda params, x, c: Normal(jnp.zeros((len(x), 2)), jnp.zeros((len(x), 2))),
    lambda params, c: Normal(jnp.zeros((1, 2)), jnp.zeros((1, 2))),
    lambda params, z, c: Normal(jnp.broadcast_to(params["b"], (len(z), 3)), jnp.zeros((len(z), 3))),
)


class LinearGaussian(NamedTuple):
    """A conditional model with an exact answer, and examples."""

    model: cvae.CVAE
    params: dict
    x: np.ndarray  # [3, 5]
    c: dict

    def double(self) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray]:
        """Parameters, x with 0 where it is missing, features and which elements count, in double precision."""
        params = {name: np.asarray(value, np.float64) for name, value in self.params.items()}
        x = np.asarray(self.x, np.float64)
        f = features(self.model.architecture.condition, self.c)
        hidden = ~np.asarray(self.c["observed"]) if "observed" in self.c else ~np.isnan(x)
        return params, np.nan_to_num(x), np.broadcast_to(f, (len(x), f.shape[1])), hidden

    def exact_log_prob(self) -> np.ndarray:
        """Log p(x | c) of what c does not contain, [B], by SciPy."""
        p, x, f, hidden = self.double()
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
        p, x, f, hidden = self.double()
        loadings = hidden[:, :, None] * p["W"]  # [B, 5, 2]
        prior_precision = np.diag(np.exp(-2 * p["log_s0"]))
        covariance = np.linalg.inv(prior_precision + np.swapaxes(loadings, 1, 2) @ loadings / NOISE**2)
        residual = np.einsum("bi,bij->bj", x - f @ p["V"].T, loadings) / NOISE**2
        return np.einsum("bij,bj->bi", covariance, (p["m0"] + f @ p["M"].T) @ prior_precision + residual), covariance

    def repeated(self, copies: int) -> tuple[np.ndarray, dict]:
        """The examples, each `copies` times in a row: what is drawn for each differs."""
        return jax.tree.map(lambda values: np.repeat(values, copies, axis=0), (self.x, self.c))


def features(condition: cvae.Condition, c: dict) -> np.ndarray:
    """Features of conditions, [B, width] ([1, 0] without any), by NumPy alone."""
    if isinstance(condition, cvae.Label):
        return np.eye(condition.num_classes)[np.asarray(c[condition.name])]
    if isinstance(condition, cvae.Continuous):
        return (np.asarray(c[condition.name], np.float64) - condition.mean) / condition.std
    if isinstance(condition, cvae.Image):
        observed = np.asarray(c["observed"], np.float64)
        return np.concatenate([observed * np.asarray(c[condition.name], np.float64), observed], axis=1)
    if isinstance(condition, cvae.Mixed):
        return np.concatenate([features(part, c) for part in condition.parts], axis=1)
    return np.zeros((1, 0))


def draw_conditions(condition: cvae.Condition, rng: np.random.Generator, x: np.ndarray) -> dict:
    """Conditions for the examples x."""
    c = {}
    for part in parts_of(condition):
        if isinstance(part, cvae.Label):
            c[part.name] = rng.permutation(part.num_classes)[:BATCH]
        if isinstance(part, cvae.Continuous):
            c[part.name] = rng.normal(part.mean, part.std, (BATCH, part.dim)).astype(np.float32)
        if isinstance(part, cvae.Image):
            # One, three and two hidden: no two masks alike, and both latents matter in some.
            hidden = np.array([[0, 0, 0, 1, 0], [1, 0, 1, 0, 1], [0, 1, 0, 0, 1]], bool)
            c |= {part.name: x, "observed": ~hidden}
    return c


@cache
def linear_gaussian(*, exact: bool, condition: cvae.Condition = ROW, missing: bool = False) -> LinearGaussian:
    """A linear-Gaussian model whose encoder is the exact posterior, or one that is wrong on purpose.

    An encoder has a diagonal posterior. For the exact one every element of x depends on one latent only, so that the
    posterior is diagonal whatever is hidden; for the wrong one all elements depend on both. The wrong one is also
    shifted, and wider than the posterior: importance weights of a narrower one may have no variance, nor an error bar.
    """
    rng = np.random.default_rng(7)
    width = sum(feature_sizes(cvae.Architecture((EVENT,), condition))[:2])
    separate = np.array([[1.2, 0.0], [0.0, 0.5], [-0.8, 0.0], [0.4, 0.0], [0.0, -0.9]])
    params: Any = {
        "W": separate if exact else np.linalg.qr(rng.normal(size=(EVENT, LATENT)))[0] * [1.5, 0.7],
        "V": rng.normal(size=(EVENT, width)),
        "m0": np.array([0.5, -1.0]),
        "M": 0.5 * rng.normal(size=(LATENT, width)),
        "log_s0": np.log([0.8, 1.3]),
        "shift": np.zeros(LATENT) if exact else np.array([0.3, -0.2]),
        "widen": np.zeros(LATENT) if exact else np.array([0.3, 0.2]),
    }
    params = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), params)

    def prior(params, c):
        mean = params["m0"] + condition.encode(c).flat @ params["M"].T
        return Normal(mean, jnp.broadcast_to(params["log_s0"], mean.shape))

    def encode(params, x, c):
        p, observed = prior(params, c), condition.observed(c)
        hidden = 1.0 - (jnp.isnan(x) if observed is None else observed[0])
        residual = (hidden * (jnp.nan_to_num(x) - condition.encode(c).flat @ params["V"].T)) @ params["W"] / NOISE**2
        precision = jnp.exp(-2 * p.log_std) + hidden @ params["W"] ** 2 / NOISE**2
        mean = (p.mean * jnp.exp(-2 * p.log_std) + residual) / precision
        return Normal(mean + params["shift"], -0.5 * jnp.log(precision) + params["widen"])

    def decode(params, z, c):
        mean = z @ params["W"].T + condition.encode(c).flat @ params["V"].T
        distribution, observed = Normal(mean, jnp.full(mean.shape, np.log(NOISE))), condition.observed(c)
        if missing:
            return Missing(distribution)
        return distribution if observed is None else Masked(distribution, *observed)

    likelihood = cvae.Missing(cvae.Normal(std=NOISE)) if missing else cvae.Normal(std=NOISE)
    architecture = cvae.Architecture((EVENT,), condition, LATENT, likelihood=likelihood)
    model = cvae.CVAE(lambda key: params, encode, prior, decode, architecture)
    x = rng.normal(size=(BATCH, EVENT)).astype(np.float32)
    if missing:
        x[HOLES] = np.nan
    return LinearGaussian(model, params, x, draw_conditions(condition, rng, x))


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
        """Log p(x | c), [B], by SciPy."""
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


def _layer(state: tuple, number: int, above: jax.Array) -> Normal:
    """A layer of z1 ~ N(m1, s1^2), z2 | z1 ~ N(m2 + slope (z1 - m1), s2^2), from (m [B, 2], slope, log s [2])."""
    mean, slope, log_std = state
    centre = mean[:, :1] if number == 0 else mean[:, 1:] + slope * (above - mean[:, :1])
    return Normal(centre, jnp.broadcast_to(log_std[number], centre.shape))


def _ladder(mean: np.ndarray, covariance: np.ndarray) -> Ladder:
    """A joint Gaussian of two as a ladder of two layers."""
    slope = covariance[1, 0] / covariance[0, 0]
    log_std = 0.5 * np.log([covariance[0, 0], covariance[1, 1] - slope * covariance[1, 0]])
    state = jax.tree.map(lambda part: jnp.asarray(part, jnp.float32), (mean, slope, log_std))
    return Ladder(state, _layer, 2)


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
        return Normal(centre, jnp.full(centre.shape, np.log(NOISE)))

    model = cvae.CVAE(
        lambda key: {},
        lambda params, x, c: _ladder(mean, covariance),
        lambda params, c: _ladder(prior_mean, prior),
        decode,
    )
    c = {"label": jnp.asarray(label)}
    return LinearLadder(model, jnp.asarray(x, jnp.float32), c, prior_mean, prior, mean, covariance, weights)


@partial(jax.jit, static_argnums=0)
def _log_joint(model: cvae.CVAE, params: dict, z: jax.Array, x: jax.Array, c: dict) -> jax.Array:
    def at(z):
        return model.decode(params, z, c).log_prob(x) + model.prior(params, c).log_prob(z)

    return jax.lax.map(lambda z: at(jnp.broadcast_to(z, (x.shape[0], z.shape[-1]))), z, batch_size=1000)


def integrated_log_prob(
    model: cvae.CVAE, params: dict, x: Any, c: dict, *, centre: Any = 0.0, reach: float = 9.0, points: int = 181
) -> np.ndarray:
    """Log p(x | c) of a model of one or two latents, the integral of p(x | z, c) p(z | c) over a grid of z.

    Shapes: x [B, *event] -> [B]; the grid has `points` on each side, from `centre - reach` to `centre + reach`.
    """
    size = model.architecture.latent_size
    axis = np.linspace(-reach, reach, points)
    grid = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), axis=-1).reshape(-1, size) + centre
    log_joint = np.asarray(_log_joint(model, params, grid.astype(np.float32), jnp.asarray(x), c), np.float64)
    edge = (np.abs(grid - centre) > 0.98 * reach).any(axis=1)
    assert np.all(log_joint[edge].max(axis=0) < log_joint.max(axis=0) - 12), "the grid cuts the integrand off"
    return logsumexp(log_joint, axis=0) + size * np.log(axis[1] - axis[0])
