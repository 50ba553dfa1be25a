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
    Raises: ValueError if x is no array, or neither uint8 nor floats.
    """
    del key
    checks.shape_of("x", x)
    is_grey = x.dtype == jnp.uint8 or checks.is_float(x.dtype)
    checks.require(is_grey, "x", "be uint8 or floats", f"{x.dtype} values")
    return (x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x), c


@cache
def preparation(
    condition: Condition = Nothing(),
    targets: str = "grey",
    *,
    shift: int = 0,
    moved: float = 1.0,
    omission: float = 0.0,
) -> Prepare:
    """The preparation for a condition: grey levels, then black and white if asked, then what the condition draws.

    With `targets="dynamic"` every pixel is drawn 1 with its grey level as probability, afresh at every call. Pixels
    that are black or white already stay as they are, so a set that went through `binarise` can go through this too.

    For training alone: `shift` first moves a share `moved` of the pictures by a whole number of pixels, from -shift to
    shift in each direction, drawn uniformly; a condition of the name "shift" is told how far, so that what is learned
    of moved pictures is not believed of others (Jun et al. 2020). `omission` is the probability that the condition,
    once complete, is told without a block of what is seen (Sohn, Lee & Yan 2015).

    The same arguments give the same function, so what was compiled with it is found again.

    Raises: ValueError if `targets` is unknown, or a number is out of its range; see `Training`.
    """
    checks.one_of("targets", targets, ("grey", "dynamic", "static"))
    checks.whole_number("shift", shift, least=0)
    checks.share("moved", moved)
    checks.share("omission", omission)

    def prepared(key: Array, x: Array, c: Conditions) -> tuple[Array, Conditions]:
        pixel_key, condition_key = jax.random.split(key)
        x, c = prepare(key, x, c)
        if shift > 0:
            by = _shifts(jax.random.fold_in(key, 0), len(x), shift, moved)
            # What is cut from a stored picture must move with x; masks are places, and stay.
            pictures = {name: jnp.asarray(v) for name, v in c.items() if v.shape == x.shape and v.dtype != bool}
            whole = {name: prepare(key, picture, {})[0] for name, picture in pictures.items()}
            c = {**c, **{name: move(picture, by) for name, picture in whole.items()}}
            x, c = move(x, by), ({**c, "shift": by.astype(jnp.float32)} if "shift" in c else c)
        if targets == "dynamic":
            x = jax.random.bernoulli(pixel_key, x).astype(jnp.float32)
        c = condition.complete(condition_key, x, c)
        return x, (condition.omit(jax.random.fold_in(key, 1), c, omission) if omission > 0 else c)

    return prepared


def _shifts(key: Array, batch: int, shift: int, moved: float) -> Array:
    """How far each picture of a batch is moved, int [B, 2]."""
    by_key, moved_key = jax.random.split(key)
    by = jax.random.randint(by_key, (batch, 2), -shift, shift + 1)
    return jnp.where(jax.random.bernoulli(moved_key, moved, (batch, 1)), by, 0)


def move(x: Array, by: Array) -> Array:
    """Move pictures by whole pixels, down and to the right; 0 enters at the edges.

    Shapes: x [B, H, W, C], by int [B, 2] -> [B, H, W, C].
    Raises: ValueError if x holds no pictures of finite floats, or `by` is not two integers a picture.
    """
    shape = checks.shape_of("x", x)
    checks.require(len(shape) == 4, "x", "hold pictures (H, W, C) to be moved", f"shape {shape}")
    checks.real_line("x", x)
    batch, height, width, _ = shape
    rule = f"be integers of shape [B, 2], here {(batch, 2)}"
    is_pairs = checks.shape_of("by", by) == (batch, 2) and checks.is_integer(by.dtype)
    checks.require(is_pairs, "by", rule, f"{by.dtype} of shape {by.shape}")
    steps = checks.values(by)
    if steps is not None:
        # Further than this is out of the picture as well, and 32 bits hold it.
        by = jnp.asarray(np.clip(steps.astype(float), -max(height, width), max(height, width)), jnp.int32)

    def mover(by: Array, size: int) -> Array:
        place = jnp.arange(size)
        return (place[:, None] == place + by[:, None, None]).astype(x.dtype)

    # Two products with matrices of 0 and 1: exact, and on a CPU faster than gathering slices.
    return jnp.einsum("bij,bjkc,blk->bilc", mover(by[:, 0], height), x, mover(by[:, 1], width), precision="highest")


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
