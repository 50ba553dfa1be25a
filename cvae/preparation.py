"""Preparation: from raw arrays as stored to the (x, c) a model sees, as one pure function inside the jitted step.

A preparation has the signature `prepare(key, x, c) -> (x, c)`. It runs on the device, so pixels stay uint8 until they
are needed, and training and evaluation share it. The key is for what is drawn: black and white pixels, masks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae import checks
from cvae.conditions import Condition, Conditions, Nothing

Prepare = Callable[[Array, Array, Conditions], tuple[Array, Conditions]]


def prepare(key: Array, x: Array, c: Conditions) -> tuple[Array, Conditions]:
    """Grey levels: uint8 pixels become 255ths in [0, 1], floats stay as they are; draws nothing.

    Shapes: x [B, *event], c unchanged.
    """
    del key
    return (x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x), c


@cache
def preparation(condition: Condition = Nothing(), targets: str = "grey") -> Prepare:
    """The preparation for a condition: grey levels, then black and white if asked, then what the condition draws.

    With `targets="dynamic"` every pixel is drawn 1 with its grey level as probability, afresh at every call. Pixels
    that are black or white already stay as they are, so a set that went through `binarise` can go through this too.

    The same arguments give the same function, so what was compiled with it is found again.

    Raises: ValueError if `targets` is unknown; see `Training`.
    """
    checks.one_of("targets", targets, ("grey", "dynamic", "static"))

    def prepared(key: Array, x: Array, c: Conditions) -> tuple[Array, Conditions]:
        pixel_key, condition_key = jax.random.split(key)
        x, c = prepare(key, x, c)
        if targets == "dynamic":
            x = jax.random.bernoulli(pixel_key, x).astype(jnp.float32)
        return x, condition.complete(condition_key, x, c)

    return prepared


def binarise(seed: int, x: Any) -> np.ndarray:
    """Draw every pixel black or white once, with its grey level as probability; on the host, as stored.

    What is scored must be drawn once, or the score of a picture would change from call to call; a set used for
    training may be.

    Shapes: x [N, *event] uint8 or floats in [0, 1] -> the same shape, uint8 of 0 and 255.
    Raises: ValueError for another dtype or range, or a seed that is none.
    Source: Salakhutdinov & Murray 2008.
    """
    checks.seed("seed", seed)
    checks.shape_of("x", x)
    x = np.asarray(x)
    if x.dtype != np.uint8:
        checks.unit_interval("x", x)
    grey = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
    drawn = np.random.default_rng(seed).random(x.shape, np.float32) < grey
    return np.where(drawn, np.uint8(255), np.uint8(0))
