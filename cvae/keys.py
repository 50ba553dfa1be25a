"""Random keys by purpose: every consumer of randomness derives its key here, so no two share random numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

PURPOSES = ("init", "training", "validation", "test", "figures")
# Seeds of pixels binarised once. Fixed, so that every model is scored on the same targets whatever its seed.
BINARIZATION_SEEDS = {"train": 0, "validation": 1, "test": 2}


def named(key: Array, purpose: str) -> Array:
    """The key for a purpose: one of "init", "training", "validation", "test" and "figures".

    The raw words of a key, as `jax.random.PRNGKey(seed)` gives, become a key of the same random numbers.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    return jax.random.fold_in(key, PURPOSES.index(purpose))


def threefry(key: Array) -> Array:
    """A key whose draws do not depend on how a batch is divided, from a key of any implementation.

    With other implementations, such as "rbg", the draws of a `vmap` over keys depend on its size.
    """
    derived: Array = jax.random.wrap_key_data(jax.random.bits(key, (2,), "uint32"), impl="threefry2x32")
    return derived
