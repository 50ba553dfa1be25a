"""Preparation: from raw arrays as stored to the (x, c) a model sees, as one pure function inside the jitted step.

A preparation has the signature `prepare(key, x, c) -> (x, c)`. It runs on the device, so pixels stay uint8
until they are needed, and training and evaluation share it. The key is for preparations that draw.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from cvae.conditions import Conditions

Prepare = Callable[[Array, Array, Conditions], tuple[Array, Conditions]]


def prepare(key: Array, x: Array, c: Conditions) -> tuple[Array, Conditions]:
    """Grey levels: uint8 pixels become 255ths in [0, 1], floats stay as they are; draws nothing.

    Shapes: x [B, *event], c unchanged.
    """
    del key
    return (x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x), c
