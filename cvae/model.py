"""A conditional VAE is four pure functions; `make` builds them from an architecture.

This is the public API of the networks: names, shapes and dtypes are checked here on every call, and values on concrete
arrays. What is done with the four functions lives in other modules: objectives, generation, training, evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cvae import checks, networks
from cvae.checks import Spec
from cvae.conditions import Conditions, Features, FeatureSizes
from cvae.config import Architecture
from cvae.distributions import Distribution, Latents, Masked, Normal
from cvae.networks import Params
from cvae.streamed import Streamed, on_disk


class CVAE(NamedTuple):
    """A conditional VAE as pure functions; it holds shapes and no parameters.

    Any four functions of these signatures make a model: the other modules need no more. A model of one's own leaves
    `architecture` out, and checks its inputs itself.
    """

    init: Callable[[Array], Params]  # (key) -> params
    encode: Callable[[Params, Array, Conditions], Latents]  # (params, x, c) -> q(z | x, c)
    prior: Callable[[Params, Conditions], Latents]  # (params, c) -> p(z | c); one row if c has no batch
    decode: Callable[[Params, Array, Conditions], Distribution]  # (params, z, c) -> p(x | z, c)
    architecture: Architecture | None = None
    latent_mask: bool = False  # whether this is a `masked` model

    def __reduce__(self) -> Any:
        """Pickle a model by its architecture: unpickled, it is the same functions."""
        if not is_made(self):  # functions of the user's own, which pickle if they are defined in a module
            return CVAE, tuple(self)
        return from_architecture, (self.architecture, self.latent_mask)


def from_architecture(architecture: Architecture, latent_mask: bool) -> CVAE:
    """The model of an architecture, `masked` or not."""
    return masked(make(architecture)) if latent_mask else make(architecture)


def is_made(model: CVAE) -> bool:
    """Whether the functions are those of `make` or `masked`, so that the architecture says all."""
    return model.architecture is not None and model == from_architecture(model.architecture, model.latent_mask)


def make(architecture: Architecture) -> CVAE:
    """Build the four functions of an architecture.

    The same architecture gives the same functions, so what was compiled for one model serves its next fit.

    Shapes: x [B, *event_shape], z [B, Z], c as the condition's `spec` says.

    Raises:
        ValueError: `architecture` is not an `Architecture`, or its body or likelihood cannot have it; from the
            functions, when an input has the wrong name, shape, dtype or range.
    """
    checks.instance("architecture", architecture, Architecture, "a cvae.Architecture")
    return _make(architecture)


@cache
def _make(architecture: Architecture) -> CVAE:
    condition, likelihood = architecture.condition, architecture.likelihood
    body, sizes = networks.BODIES[architecture.body], feature_sizes(architecture)
    parts = {"decoder": networks.decoder(body, architecture, sizes)}
    if architecture.latent_size > 0:
        parts = {"encoder": networks.encoder(body, architecture, sizes)} | parts
    if architecture.prior == "learned":
        parts["prior"] = networks.prior(body, architecture, sizes)
    if architecture.guess:
        parts["guess"] = networks.guess(body, architecture, sizes)

    def init(key: Array) -> Params:
        keys = jax.random.split(key, len(parts))
        return {name: network.init(key) for (name, network), key in zip(parts.items(), keys, strict=True)}

    def standard(params: Params, batch: int) -> Normal:
        return standard_normal(batch, architecture.latent_size, dtype_of(params))

    def features_of(params: Params, c: Conditions) -> Features:
        features = condition.encode(c)
        return jax.tree.map(lambda values: jnp.asarray(values, dtype_of(params)), features)  # type: ignore[no-any-return]

    def encode(params: Params, x: Array, c: Conditions) -> Latents:
        x, c = as_floats(architecture, x, c)
        if "encoder" not in parts:  # a deterministic network: nothing to infer
            return standard(params, x.shape[0])
        p = prior(params, c) if architecture.latent_layers > 1 else None
        visible = jnp.asarray(likelihood.features(x), dtype_of(params))
        q: Latents = parts["encoder"].apply(params["encoder"], visible, features_of(params, c), p)
        return q

    def prior(params: Params, c: Conditions) -> Latents:
        checks.arrays("c", c, condition.spec)
        features = features_of(params, c)
        if "prior" not in parts:
            return standard(params, features.numbers.shape[0])
        p: Latents = parts["prior"].apply(params["prior"], guessed(params, c, features), features)
        return p

    def guessed(params: Params, c: Conditions, features: Features) -> Array:
        """The mean of the deterministic network, [B, *event], observed values as they are; without one, [B, 0]."""
        nothing = features.numbers[:, :0]
        if "guess" not in parts:
            return nothing
        px = density(architecture, parts["guess"].apply(params["guess"], nothing, features), c)
        return jnp.asarray(likelihood.features(px.mean), dtype_of(params))

    def decode(params: Params, z: Array, c: Conditions) -> Distribution:
        batch = Spec((architecture.latent_size,)).check("z", z)
        checks.arrays("c", c, condition.spec, batch if condition.spec else None)
        outputs = parts["decoder"].apply(params["decoder"], jnp.asarray(z, dtype_of(params)), features_of(params, c))
        return density(architecture, outputs, c)

    return CVAE(init, encode, prior, decode, architecture)


def density(architecture: Architecture, outputs: Array, c: Conditions) -> Distribution:
    """p(x | z, c) from the decoder's outputs [B, num_outputs]: with the exposure of c, without what c holds of x."""
    px = architecture.likelihood.distribution(outputs, architecture.event_shape)
    if (exposure := architecture.condition.exposure(c)) is not None:
        px = px.with_exposure(exposure)
    observed = architecture.condition.observed(c)
    return px if observed is None else Masked(px, *observed)


def standard_normal(batch: int, size: int, dtype: Any) -> Normal:
    """N(0, I) over [batch, size]."""
    zeros = jnp.zeros((batch, size), dtype)
    return Normal(zeros, zeros)


def dtype_of(params: Params) -> Any:
    """The dtype of the parameters, in which a model computes."""
    return jax.tree.leaves(params)[0].dtype


def feature_sizes(architecture: Architecture) -> FeatureSizes:
    """How many features the condition has."""
    kinds = {"integer": jnp.int32, "mask": jnp.bool_}
    specs = architecture.condition.spec
    c = {n: jax.ShapeDtypeStruct((1, *s.shape), kinds.get(s.kind, jnp.float32)) for n, s in specs.items()}  # type: ignore[no-untyped-call]
    return FeatureSizes(*(part.shape[-1] for part in jax.eval_shape(architecture.condition.encode, c)))


def check_examples(architecture: Architecture | None, x: Any, c: Any) -> tuple[Any, Conditions]:
    """Refuse examples that do not suit an architecture; returns them as they are, but for uint8 images of 0 and 1.

    Those are black and white, not 255ths, and become bool, with a warning. Inside `jit`, where values are not known,
    uint8 always stands for 255ths. For a model with a schema, x may be a data frame, which holds c too.

    Raises:
        ValueError: x is empty, not [B, *event_shape], or outside the likelihood's range; c is not what the
            condition's `spec` says, with one entry per example.
    """
    if architecture is None:
        return x, c
    if architecture.schema is not None and not isinstance(x, np.ndarray | jax.Array | Streamed):
        checks.require(c is None or len(c) == 0, "c", "be {} or None beside a table, which holds it", checks.shown(c))
        x, c = architecture.schema.encode(x)
    spec, specs = architecture.likelihood.spec(architecture.event_shape), architecture.condition.spec
    if isinstance(c, Mapping) and on_disk(x, c):
        return _checked_on_disk(x, c, spec, specs)
    batch = spec.check("x", x)
    checks.arrays("c", c, specs, batch)
    x = checks.binary("x", x, spec)
    return x, {name: checks.binary(f"c[{name!r}]", c[name], entry) for name, entry in specs.items()}


def _checked_on_disk(x: Any, c: Mapping[str, Any], spec: Spec, specs: Mapping[str, Spec]) -> tuple[Any, Conditions]:
    """The same for arrays on disk: some rows are checked now, the others when they are read."""

    def sample(values: Any) -> Any:
        return values.sample() if isinstance(values, Streamed) else values

    spec.check("x", sample(x))
    checks.arrays("c", {name: sample(values)[:1] for name, values in c.items()}, specs)
    for name, values in c.items():
        rule = f"hold one entry per example of x, {len(x)}"
        checks.require(len(values) == len(x), f"c[{name!r}]", rule, len(values))
        specs[name].check(f"c[{name!r}]", sample(values))

    def checked(name: str, values: Any, spec: Spec) -> Any:
        return values.checked(name, spec) if isinstance(values, Streamed) else values

    return checked("x", x, spec), {name: checked(f"c[{name!r}]", values, specs[name]) for name, values in c.items()}


def as_floats(architecture: Architecture | None, x: Any, c: Any) -> tuple[Any, Conditions]:
    """Checked examples as the networks and densities take them: uint8 pixels become 255ths, bool 0 and 1."""
    x, c = check_examples(architecture, x, c)
    if architecture is None:
        return x, c
    spec, specs = architecture.likelihood.spec(architecture.event_shape), architecture.condition.spec
    return spec.cast(x), {name: entry.cast(c[name]) for name, entry in specs.items()}


@cache
def masked(model: CVAE) -> CVAE:
    """The model with a mask over its latents among its parameters: `{"mask": [Z] of 0 and 1, "model": params}`.

    A masked latent carries nothing: its posterior and its prior are N(0, 1), so its KL is 0, and the decoder reads 0
    in its place. What is left has exactly the ELBO and the gradients of the smaller model with the same weights. The
    mask is an array, so models of many latent sizes share one compiled program; no gradient reaches it. With free bits,
    a masked latent costs a constant.

    Raises:
        ValueError: the model is one of the user's own, so its latent size is not known, or has a hierarchy of latents.
    """
    checks.require(model.architecture is not None, "model", "be made by cvae.make", "a model without an architecture")
    assert model.architecture is not None
    latent_size, layers = model.architecture.latent_size, model.architecture.latent_layers
    checks.require(layers == 1, "latent_layers", "be 1 for a mask over the latents", layers)

    def init(key: Array) -> Params:
        params = model.init(key)
        return {"mask": jnp.ones(latent_size, dtype_of(params)), "model": params}

    def hide(params: Params, q: Latents) -> Normal:
        assert isinstance(q, Normal)
        active = lax.stop_gradient(params["mask"]) > 0
        return Normal(jnp.where(active, q.mean, 0), jnp.where(active, q.log_std, 0))

    def encode(params: Params, x: Array, c: Conditions) -> Normal:
        return hide(params, model.encode(params["model"], x, c))

    def prior(params: Params, c: Conditions) -> Normal:
        return hide(params, model.prior(params["model"], c))

    def decode(params: Params, z: Array, c: Conditions) -> Distribution:
        return model.decode(params["model"], jnp.where(lax.stop_gradient(params["mask"]) > 0, z, 0), c)

    return CVAE(init, encode, prior, decode, model.architecture, latent_mask=True)
