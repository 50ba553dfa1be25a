"""A small MNIST of noise: the arrays of its four IDX files, in original order."""

import numpy as np

COUNTS, VALIDATION = {"train": 100, "test": 40}, 30

_RNG = np.random.default_rng(3)
IMAGES = {part: _RNG.integers(0, 256, (count, 28, 28), np.uint8) for part, count in COUNTS.items()}
LABELS = {part: _RNG.integers(0, 10, count, np.uint8) for part, count in COUNTS.items()}


def idx_arrays(images=IMAGES, labels=LABELS):
    """The arrays by the name of the file that holds them."""
    prefixes = {"train": "train", "test": "t10k"}
    return {f"{prefixes[part]}-images-idx3-ubyte.gz": images[part] for part in COUNTS} | {
        f"{prefixes[part]}-labels-idx1-ubyte.gz": labels[part] for part in COUNTS
    }


def files_below(folder):
    """Every file in a folder, as paths relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
