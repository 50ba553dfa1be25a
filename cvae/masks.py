"""Masks: which part of an image is observed, drawn anew for every image where the mask is random.

True is observed and False is hidden, everywhere. A mask is a boolean array of its own, never a value in the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae import checks

# The places of an image: rows [H, 1] and columns [1, W], counted from the top left, and their numbers H and W.
Place = tuple[Any, Any, int, int]


def _quadrants_1(_: Any, place: Place) -> Any:
    row, column, height, width = place
    return (row >= height // 2) & (column < width // 2)


def _quadrants_3(_: Any, place: Place) -> Any:
    row, column, height, width = place
    return ~((row >= height // 2) & (column >= width // 2))


def _centre_box(_: Any, place: Place) -> Any:
    row, column, height, width = place
    top, left = height // 4, width // 4
    return ~((row >= top) & (row < height - top) & (column >= left) & (column < width - left))


def _inside_box(key: Array, place: Place, least: float, most: float) -> Any:
    """True in a box somewhere, each side a share of the image's, from `least` to `most`."""
    row, column, height, width = place
    keys = jax.random.split(key, 4)

    def span(size_key: Array, start_key: Array, length: int) -> tuple[Array, Array]:
        # With JAX's 64 bits enabled, the dtypes make the draws the same.
        size = jax.random.randint(size_key, (), math.ceil(least * length), max(1, int(most * length)) + 1, jnp.int32)
        share = jax.random.uniform(start_key, (), jnp.float32)
        start = jnp.floor(share * (length - size + 1).astype(jnp.float32)).astype(jnp.int32)
        return start, start + size

    (top, bottom), (left, right) = span(keys[0], keys[1], height), span(keys[2], keys[3], width)
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def _random_box(key: Array, place: Place) -> Any:
    return ~_inside_box(key, place, 1 / 4, 3 / 4)


def _random_pixels(key: Array, place: Place) -> Array:
    _, _, height, width = place
    share_key, pixel_key = jax.random.split(key)
    draws = jax.random.uniform(pixel_key, (height, width), jnp.float32)
    # The highest draw is hidden whatever the share: one image in D + 1 would be observed whole.
    return (draws < jax.random.uniform(share_key, (), jnp.float32)) & (draws < draws.max())


# The same for every image: they depend on the shape alone.
FIXED = (
    "quadrants_1", "quadrants_2", "quadrants_3", "top_half", "bottom_half", "left_half", "right_half", "centre_box",
)  # fmt: skip

MASKS: dict[str, Callable[[Any, Place], Any]] = {
    "quadrants_1": _quadrants_1,
    "quadrants_2": lambda _, place: (place[1] < place[3] // 2) & (place[0] >= 0),
    "quadrants_3": _quadrants_3,
    "top_half": lambda _, place: (place[0] < place[2] // 2) & (place[1] >= 0),
    "bottom_half": lambda _, place: (place[0] >= place[2] // 2) & (place[1] >= 0),
    "left_half": lambda _, place: (place[1] < place[3] // 2) & (place[0] >= 0),
    "right_half": lambda _, place: (place[1] >= place[3] // 2) & (place[0] >= 0),
    "centre_box": _centre_box,
    "random_box": _random_box,
    "random_pixels": _random_pixels,
}


def fixed(name: str, event_shape: tuple[int, ...]) -> np.ndarray | None:
    """The mask if it is the same for every image, bool [*event], on the host; None if it is drawn, or given.

    Raises: ValueError if there is no mask of this name, or the image has no height and width to be divided.
    """
    checks.one_of("mask", name, (*MASKS, "given"))
    return _fixed(name, tuple(event_shape)) if name in FIXED else None


@cache
def _fixed(name: str, event_shape: tuple[int, ...]) -> np.ndarray:
    is_image = len(event_shape) > 1 and min(event_shape[:2]) > 1
    checks.require(is_image, "event_shape", "be an image (H, W, C), at least 2 high and wide", event_shape)
    height, width, *channels = event_shape
    observed = MASKS[name](None, (np.arange(height)[:, None], np.arange(width)[None, :], height, width))
    return np.broadcast_to(np.asarray(observed).reshape(height, width, *[1] * len(channels)), event_shape)


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
    checks.one_of("mask", name, tuple(MASKS))
    checks.key("key", key)
    checks.integer("batch", batch)
    return _each(MASKS[name], key, batch, event_shape)


def draw_block(key: Array, batch: int, event_shape: tuple[int, ...]) -> Array:
    """Draw a block per image: True inside a box somewhere, each side from a fifth to two fifths of the image's.

    Shapes: -> bool [B, H, W, C]; a row (D,) is an image of height 1.
    """
    return _each(lambda key, place: _inside_box(key, place, 1 / 5, 2 / 5), key, batch, event_shape)


def _each(mask: Callable[[Array, Place], Array], key: Array, batch: int, event_shape: tuple[int, ...]) -> Array:
    """A mask drawn for every image of a batch, all channels of a pixel alike."""
    height, width = event_shape[:2] if len(event_shape) > 1 else (1, event_shape[0])
    place = (jnp.arange(height)[:, None], jnp.arange(width)[None, :], height, width)
    observed = jax.vmap(lambda key: mask(key, place))(jax.random.split(key, batch))
    if len(event_shape) == 1:
        return observed.reshape(batch, width)
    flat_channels = observed.reshape(batch, height, width, *[1] * (len(event_shape) - 2))
    return jnp.broadcast_to(flat_channels, (batch, *event_shape))
