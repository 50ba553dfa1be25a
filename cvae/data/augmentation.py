"""Augmentation: what is drawn anew each time a training example is used, as one pure function `augment(key, x, c)`.

It runs inside the training step. What is scored is never augmented; `binarize` draws its pixels once, beforehand.
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
from cvae.conditions import Condition, Conditions
from cvae.config import Training

Augment = Callable[[Array, Array, Conditions], tuple[Array, Conditions]]


@cache
def augmentation(condition: Condition, training: Training = Training()) -> Augment:
    """The augmentation that a condition and the settings of training call for.

    In this order: images moved by `shift` pixels with probability `shift_prob`, and the images in c with them (a
    condition named "shift" is given how far, so that what is learned of moved images does not spill over to others,
    Jun et al. 2020); pixels drawn 0 or 1 if `binarization` is dynamic; the condition's own `augment`, such as masks
    drawn anew; `drop_block_prob` (Sohn, Lee and Yan 2015); and elements of x made NaN with
    probability `hide_prob`.

    The same arguments give the same function, so what was compiled with it is found again.
    """

    def augment(key: Array, x: Array, c: Conditions) -> tuple[Array, Conditions]:
        pixel_key, condition_key, shift_key, block_key = jax.random.split(key, 4)
        x, c = as_floats(x), dict(c)
        if training.shift > 0:
            by = _shifts(shift_key, x.shape[0], training)
            x = move(x, by)
            for name, spec in condition.spec.items():
                if spec.kind == "pixels" and spec.shape == x.shape[1:]:
                    c[name] = move(as_floats(c[name]), by)
            if "shift" in c:
                c["shift"] = by.astype(jnp.float32)
        if training.binarization == "dynamic":
            # In float32, because coarser uniforms would be below dark grey levels too often.
            uniforms = jax.random.uniform(pixel_key, x.shape, jnp.float32)
            x = (uniforms < x.astype(jnp.float32)).astype(x.dtype)
        c = condition.augment(condition_key, x, c)
        if training.drop_block_prob > 0:
            c = condition.drop_block(block_key, c, training.drop_block_prob)
        if training.hide_prob > 0:
            hidden = jax.random.bernoulli(jax.random.fold_in(key, 4), np.float32(training.hide_prob), x.shape)
            x = jnp.where(hidden, jnp.nan, x)
        return x, c

    return augment


def as_floats(x: Any) -> Any:
    """Pixels as floats: uint8 in 255ths, bool as 0 and 1, floats as they are."""
    return checks.Spec((), "pixels").cast(x)


def _shifts(key: Array, batch: int, training: Training) -> Array:
    """How far each image of a batch is moved, int [B, 2]."""
    by_key, moved_key = jax.random.split(key)
    by = jax.random.randint(by_key, (batch, 2), -training.shift, training.shift + 1, jnp.int32)
    is_moved = jax.random.bernoulli(moved_key, np.float32(training.shift_prob), (batch, 1))
    return jnp.where(is_moved, by, 0)


def move(x: Array, by: Array) -> Array:
    """Move images by whole pixels, down and to the right; 0 enters at the edges.

    Shapes: x [B, H, W, C] floats, by int [B, 2] -> [B, H, W, C].
    """
    _, height, width, _ = x.shape

    def mover(by: Array, size: int) -> Array:
        place = jnp.arange(size)
        return (place[:, None] == place + by[:, None, None]).astype(x.dtype)

    # Two products with matrices of 0 and 1: exact, and on a CPU faster than gathering slices.
    return jnp.einsum("bij,bjkc,blk->bilc", mover(by[:, 0], height), x, mover(by[:, 1], width), precision="highest")


def binarize(seed: int, x: Any) -> np.ndarray:
    """Draw every pixel 0 or 1 once, with its grey level as probability; on the host.

    Targets that are scored must be drawn once, or a score would change from call to call.

    Shapes: x [N, *event] uint8 or floats in [0, 1] -> the same shape, bool.
    Raises: ValueError for another dtype or range, or a seed that is none.
    References: Salakhutdinov and Murray 2008.
    """
    checks.integer("seed", seed, 0, 2**32)
    spec = checks.Spec(checks.shape_of("x", x)[1:], "pixels", 0, 1)
    spec.check("x", x)
    grey = np.asarray(as_floats(checks.binary("x", np.asarray(x), spec)), np.float32)
    drawn: np.ndarray = np.random.default_rng(seed).random(x.shape, np.float32) < grey
    return drawn
