"""Data sets as NumPy arrays: the known ones by name, and a user's own from an `.npz` file."""

from cvae.data.augmentation import augmentation, binarize
from cvae.data.datasets import NAMES, Dataset, DataUnavailable, FallbackWarning, Split, load
from cvae.data.npz import Rows, npz_names, read_npz, split_rows

__all__ = [
    "NAMES",
    "DataUnavailable",
    "Dataset",
    "FallbackWarning",
    "Rows",
    "Split",
    "augmentation",
    "binarize",
    "load",
    "npz_names",
    "read_npz",
    "split_rows",
]
