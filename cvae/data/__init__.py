"""Data sets as NumPy arrays: the known ones by name, and a user's own from files."""

from cvae.data.augmentation import augmentation, binarize
from cvae.data.datasets import NAMES, Dataset, DataUnavailable, FallbackWarning, Split, load
from cvae.data.images import read_images
from cvae.data.npz import Rows, npz_names, read_npy, read_npz, split_rows
from cvae.data.streams import stream

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
    "read_images",
    "read_npy",
    "read_npz",
    "split_rows",
    "stream",
]
