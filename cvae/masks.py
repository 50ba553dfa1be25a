"""Masks: which part of a picture is seen, drawn anew for every picture where the mask is random.

True is seen and False is hidden, everywhere. A mask is a boolean array of its own, never a value in the picture.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from cvae import checks

# The places of a picture: rows [H, 1] and columns [1, W], counted from the top left, and their numbers H and W.
Place = tuple[Array, Array, int, int]


def _quadrants_1(_: Array, place: Place) -> Array:
    row, column, height, width = place
    return (row >= height // 2) & (column < width // 2)


def _quadrants_3(_: Array, place: Place) -> Array:
    row, column, height, width = place
    return ~((row >= height // 2) & (column >= width // 2))


def _centre_box(_: Array, place: Place) -> Array:
    row, column, height, width = place
    top, left = height // 4, width // 4
    return ~((row >= top) & (row < height - top) & (column >= left) & (column < width - left))


def _random_box(key: Array, place: Place) -> Array:
    row, column, height, width = place
    keys = jax.random.split(key, 4)

    def span(size_key: Array, start_key: Array, length: int) -> tuple[Array, Array]:
        size = jax.random.randint(size_key, (), -(-length // 4), max(1, 3 * length // 4) + 1)
        start = jnp.floor(jax.random.uniform(start_key) * (length - size + 1)).astype(int)
        return start, start + size

    (top, bottom), (left, right) = span(keys[0], keys[1], height), span(keys[2], keys[3], width)
    return ~((row >= top) & (row < bottom) & (column >= left) & (column < right))


def _random_pixels(key: Array, place: Place) -> Array:
    _, _, height, width = place
    share_key, pixel_key = jax.random.split(key)
    draws = jax.random.uniform(pixel_key, (height, width))
    # The highest draw is hidden whatever the share: one picture in D + 1 would be seen whole.
    return (draws < jax.random.uniform(share_key)) & (draws < draws.max())


MASKS: dict[str, Callable[[Array, Place], Array]] = {
    "quadrants_1": _quadrants_1,
    "quadrants_2": lambda _, place: jnp.broadcast_to(place[1] < place[3] // 2, place[2:]),
    "quadrants_3": _quadrants_3,
    "top_half": lambda _, place: jnp.broadcast_to(place[0] < place[2] // 2, place[2:]),
    "bottom_half": lambda _, place: jnp.broadcast_to(place[0] >= place[2] // 2, place[2:]),
    "left_half": lambda _, place: jnp.broadcast_to(place[1] < place[3] // 2, place[2:]),
    "right_half": lambda _, place: jnp.broadcast_to(place[1] >= place[3] // 2, place[2:]),
    "centre_box": _centre_box,
    "random_box": _random_box,
    "random_pixels": _random_pixels,
}


def draw(name: str, key: Array, batch: int, event_shape: tuple[int, ...]) -> Array:
    """Draw a mask a picture: True where it is seen.

    - `quadrants_1`, `_2`, `_3`: seen are the bottom left quadrant, the left half, all but the bottom right (Sohn,
      Lee & Yan 2015);
    - `top_half`, `bottom_half`, `left_half`, `right_half`: the half that is seen;
    - `centre_box`: all but a box of half the height and width in the middle;
    - `random_box`: all but a box somewhere, each side from a quarter to three quarters of the picture's;
    - `random_pixels`: every pixel alone, with a probability drawn for each picture from U(0, 1); one is always hidden.

    Shapes: -> bool [B, H, W, C], all channels of a pixel alike; a row (D,) is a picture of height 1.
    Raises: ValueError if there is no mask of this name.
    """
    checks.require(name in MASKS, "mask", f"be one of {', '.join(MASKS)}", repr(name))
    height, width = event_shape[:2] if len(event_shape) > 1 else (1, event_shape[0])
    place = (jnp.arange(height)[:, None], jnp.arange(width)[None, :], height, width)
    seen = jax.vmap(lambda key: MASKS[name](key, place))(jax.random.split(key, batch))
    if len(event_shape) == 1:
        return seen.reshape(batch, width)
    return jnp.broadcast_to(seen.reshape(batch, height, width, *[1] * (len(event_shape) - 2)), (batch, *event_shape))
