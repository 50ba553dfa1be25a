"""Examples moved to the origin before they go to a device, whose float32 holds no digits of what varies far from 0."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from cvae.checks import Spec, arrays
from cvae.conditions import Conditions
from cvae.model import CVAE, from_architecture, is_made
from cvae.settings import replace
from cvae.streamed import by_rows


def at_origin(model: CVAE, x: Any, c: Conditions) -> tuple[CVAE, Any, Conditions]:
    """The same model for x and c moved to the origin, with the same parameters and the same densities.

    Arrays on a device are float32, in which a column like 1.7e9 +- 300 has lost its digits; where likelihood or
    condition know a mean, it is subtracted in float64 on the host.
    """
    if not is_made(model):  # its functions are not known to depend on the means in the architecture alone
        return model, x, c
    assert model.architecture is not None
    likelihood, condition = model.architecture.likelihood, model.architecture.condition
    origins = condition.origin
    spec, specs = likelihood.spec(model.architecture.event_shape), condition.spec
    if likelihood.origin is None and not origins:
        within = {name: by_rows(_within_32_bits, c[name], each) for name, each in specs.items()}
        return model, by_rows(_within_32_bits, x, spec), within
    moved = replace(model.architecture, likelihood=likelihood.at_origin(), condition=condition.at_origin())
    x = by_rows(_moved, x, spec, likelihood.origin)
    c = {name: by_rows(_moved, c[name], each, origins.get(name)) for name, each in specs.items()}
    return from_architecture(moved, model.latent_mask), x, c


def conditions_at_origin(model: CVAE, c: Conditions) -> tuple[CVAE, Conditions]:
    """The same model and conditions moved to the origin, where there is no x; `restored` moves what it decodes back."""
    if not is_made(model):
        return model, c
    assert model.architecture is not None
    likelihood, condition = model.architecture.likelihood, model.architecture.condition
    specs, origins = condition.spec, condition.origin
    arrays("c", c, specs)
    c = {name: spec.cast(_within_32_bits(c[name], spec)) for name, spec in specs.items()}
    c = {name: _subtract(value, origins[name]) if name in origins else value for name, value in c.items()}
    moved = replace(model.architecture, likelihood=likelihood.at_origin(), condition=condition.at_origin())
    return from_architecture(moved, model.latent_mask), c


def restored(model: CVAE, x: Any) -> np.ndarray:
    """What the model at the origin draws or expects of x, in the units of x, float64 on the host."""
    values = np.asarray(x, np.float64)
    origin = model.architecture.likelihood.origin if is_made(model) and model.architecture else None
    return values if origin is None else values + np.array(origin)


def _within_32_bits(values: Any, spec: Spec) -> Any:
    """Integers of 64 bits as floats, because a device would silently drop their upper 32 bits; labels are small."""
    wide = spec.kind != "integer" and values.dtype.kind in "iu" and values.dtype.itemsize > 4
    return spec.cast(values) if wide else values


def _moved(values: Any, spec: Spec, origin: tuple[float, ...] | None) -> Any:
    values = spec.cast(values)
    return values if origin is None else _subtract(values, origin)


def _subtract(values: Any, origin: tuple[float, ...]) -> Any:
    if isinstance(values, np.ndarray):
        return (np.asarray(values, np.float64) - np.array(origin)).astype(np.float32)
    return values - jnp.asarray(np.array(origin), values.dtype)
