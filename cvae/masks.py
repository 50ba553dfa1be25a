"""Masks: which part of an image is observed, drawn anew for every image where the mask is random.

True is observed and False is hidden, everywhere. A mask is a boolean array of its own, never a value in the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae import checks

# The same for every image: they depend on the shape alone.
FIXED = (
    "quadrants_1", "quadrants_2", "quadrants_3", "top_half", "bottom_half", "left_half", "right_half", "centre_box",
)  # fmt: skip


def _fixed(name: str, height: int, width: int) -> np.ndarray:
    """A mask that is the same for every image, bool [H, W]; the middle row or column is of the lower or right half."""
    row, column = np.indices((height, width))
    top, left = row < height // 2, column < width // 2
    down, across = height // 4, width // 4
    box = (row >= down) & (row < height - down) & (column >= across) & (column < width - across)
    return {
        "quadrants_1": ~top & left,
        "quadrants_2": left,
        "quadrants_3": top | left,
        "top_half": top,
        "bottom_half": ~top,
        "left_half": left,
        "right_half": ~left,
        "centre_box": ~box,
    }[name]


def _box(key: Array, height: int, width: int, least: float, most: float) -> Array:
    """True in a box somewhere, each side a share of the image's, from `least` to `most`; bool [H, W]."""
    keys = jax.random.split(key, 4)

    def inside(size_key: Array, start_key: Array, length: int) -> Array:
        # With JAX's 64 bits enabled, the dtypes make the draws the same.
        size = jax.random.randint(size_key, (), math.ceil(least * length), max(1, int(most * length)) + 1, jnp.int32)
        share = jax.random.uniform(start_key, (), jnp.float32)
        start = jnp.floor(share * (length - size + 1).astype(jnp.float32)).astype(jnp.int32)
        place = jnp.arange(length)
        return (place >= start) & (place < start + size)

    return inside(keys[0], keys[1], height)[:, None] & inside(keys[2], keys[3], width)


def _pixels(key: Array, height: int, width: int) -> Array:
    """True at every pixel with the same probability, which is drawn too; bool [H, W]."""
    share_key, pixel_key = jax.random.split(key)
    draws = jax.random.uniform(pixel_key, (height, width), jnp.float32)
    # The highest draw is hidden whatever the share: one image in D + 1 would be observed whole.
    return (draws < jax.random.uniform(share_key, (), jnp.float32)) & (draws < draws.max())


RANDOM: dict[str, Callable[[Array, int, int], Array]] = {
    "random_box": lambda key, height, width: ~_box(key, height, width, 1 / 4, 3 / 4),
    "random_pixels": _pixels,
}
MASKS = (*FIXED, *RANDOM)


def fixed(name: str, event_shape: tuple[int, ...]) -> np.ndarray | None:
    """The mask if it is the same for every image, bool [*event], on the host; None if it is drawn, or given.

    Raises: ValueError if there is no mask of this name, or the image has no height and width to be divided.
    """
    checks.one_of("mask", name, (*MASKS, "given"))
    if name not in FIXED:
        return None
    is_image = len(event_shape) > 1 and min(event_shape[:2]) > 1
    checks.require(is_image, "event_shape", "be an image (H, W, C), at least 2 high and wide", event_shape)
    height, width, *channels = event_shape
    return np.broadcast_to(_fixed(name, height, width).reshape(height, width, *[1] * len(channels)), event_shape)


def draw(name: str, key: Array, batch: int, event_shape: tuple[int, ...]) -> Array:
    """Draw a mask per image, True where it is observed.

    - `quadrants_1`, `_2`, `_3`: observed are the bottom left quadrant, the left half, all but the bottom right (Sohn,
      Lee and Yan 2015);
    - `top_half`, `bottom_half`, `left_half`, `right_half`: the half that is observed;
    - `centre_box`: all but a box of half the height and width in the middle;
    - `random_box`: all but a box somewhere, each side from a quarter to three quarters of the image's;
    - `random_pixels`: every pixel alone, with a probability drawn for each image from U(0, 1); one is always hidden.

    Shapes: -> bool [B, H, W, C], all channels of a pixel alike; a row (D,) is an image of height 1.
    Raises: ValueError if there is no mask of this name.
    """
    checks.one_of("mask", name, MASKS)
    checks.key("key", key)
    checks.integer("batch", batch)
    mask = RANDOM.get(name, lambda _, height, width: jnp.asarray(_fixed(name, height, width)))
    return _each(mask, key, batch, event_shape)


def draw_block(key: Array, batch: int, event_shape: tuple[int, ...]) -> Array:
    """Draw a block per image: True inside a box somewhere, each side from a fifth to two fifths of the image's.

    Shapes: -> bool [B, H, W, C]; a row (D,) is an image of height 1.
    """
    return _each(lambda key, height, width: _box(key, height, width, 1 / 5, 2 / 5), key, batch, event_shape)


def _each(mask: Callable[[Array, int, int], Array], key: Array, batch: int, event_shape: tuple[int, ...]) -> Array:
    """A mask drawn for every image of a batch, all channels of a pixel alike."""
    height, width = event_shape[:2] if len(event_shape) > 1 else (1, event_shape[0])
    observed = jax.vmap(lambda key: mask(key, height, width))(jax.random.split(key, batch))
    places, channels = event_shape[:2], [1] * len(event_shape[2:])
    return jnp.broadcast_to(observed.reshape(batch, *places, *channels), (batch, *event_shape))
