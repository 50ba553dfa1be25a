"""Data sets as NumPy arrays: the known ones by name, and a user's own from files."""

from cvae.data.augmentation import augmentation, binarize
from cvae.data.datasets import NAMES, Dataset, DataUnavailable, FallbackWarning, Split, load
from cvae.data.images import read_images
from cvae.data.npz import Rows, npz_names, read_npy, read_npz, split_rows
from cvae.data.parquet import parquet_files, scan_table, stream_table
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
    "parquet_files",
    "read_images",
    "read_npy",
    "read_npz",
    "scan_table",
    "split_rows",
    "stream",
    "stream_table",
]
