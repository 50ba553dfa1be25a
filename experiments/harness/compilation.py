"""How XLA compiles for a command: a cache of compiled programs, and the faster of its convolutions on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import jax

from cvae.data.datasets import cache_folder

MOST_BYTES = 2**30  # of the folder; what was not used for longest goes first, and processes take turns by a lock
EIGEN = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"


def use_eigen_convolutions() -> None:
    """Have XLA compute convolutions on a CPU by Eigen, which is faster there than YNNPACK, its default.

    To be called before JAX computes. XLA ends a process that gives it a flag it does not know, so that versions that
    are not known to have this one are left alone, as are flags in a file that XLA_FLAGS names.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    is_file = flags and not flags.startswith("-")
    if (0, 10) <= jax.__version_info__[:2] <= (0, 11) and EIGEN not in flags and not is_file:
        os.environ["XLA_FLAGS"] = f"{EIGEN} {flags}".strip()


def enable_cache(folder: Path | None = None) -> None:
    """Keep compiled programs in a folder, by default in the cache folder, unless JAX was given one by environment.

    A program is found again only by the same versions, flags and kind of device, and computes the same bits. Small ones
    are cached too: a command has twenty, each of which takes longer to compile than to read.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = folder or cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written: every call compiles
        return
    options = {"compilation_cache_dir": str(folder), "compilation_cache_max_size": MOST_BYTES}
    for name, value in (options | {"persistent_cache_min_compile_time_secs": 0}).items():
        jax.config.update(f"jax_{name}", value)  # type: ignore[no-untyped-call]
