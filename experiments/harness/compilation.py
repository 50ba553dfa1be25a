"""JAX's persistent compilation cache, by which a command that was called before starts sooner."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from cvae.data.datasets import cache_folder

MOST_BYTES = 2**30  # of the folder; what was not used for longest goes first, and processes take turns by a lock


def enable_cache(folder: Path | None = None) -> None:
    """Keep compiled programs in a folder, by default in the cache folder, unless JAX was given one by environment.

    A program is found again only by the same versions, flags and kind of device, and computes the same bits.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = folder or cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written: every call compiles
        return
    options = {"compilation_cache_dir": str(folder), "compilation_cache_max_size": MOST_BYTES}
    for name, value in (options | {"persistent_cache_min_compile_time_secs": 0.1}).items():
        jax.config.update(f"jax_{name}", value)  # type: ignore[no-untyped-call]
