"""Arrays on disk, of which rows are read when they are asked for; `data.stream` makes them of files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvae.checks import Spec

SAMPLE_ROWS, SAMPLE_BYTES = 10_000, 2**24  # that stand for an array where all of it would take too long, at most

Read = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Streamed:
    """An array on disk, [N, ...], that is read by rows: `x[rows]` is an array in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Read  # (rows int64 [K]) -> [K, ...]
    place: Callable[[int], str]  # (row) -> where it is, in words

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The rows of a slice, a mask, or an integer array of any shape."""
        chosen = np.asarray(rows)
        if chosen.dtype.kind not in "iu" or (chosen.size > 0 and (chosen.min() < 0 or chosen.max() >= len(self))):
            chosen = np.arange(len(self))[rows]
        return self.read(chosen.reshape(-1)).reshape((*chosen.shape, *self.shape[1:]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it, in memory."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, rows: np.ndarray) -> Streamed:
        """These rows alone, still on disk."""
        return Streamed(
            (len(rows), *self.shape[1:]), self.dtype, lambda chosen: self.read(rows[chosen]),
            lambda row: self.place(int(rows[row])),
        )  # fmt: skip

    def map(self, function: Callable[[np.ndarray], Any]) -> Streamed:
        """The function of each row; it is called with the rows that are read."""
        like = np.asarray(function(self[:1]))
        return Streamed((len(self), *like.shape[1:]), like.dtype, lambda rows: function(self.read(rows)), self.place)

    def sample(self) -> np.ndarray:
        """Rows from all over the array, 10,000 and 16 MB at most; always the same."""
        count = max(1, min(len(self), SAMPLE_ROWS, SAMPLE_BYTES // max(1, row_bytes(self, {}))))
        return self[np.linspace(0, len(self) - 1, count).astype(np.int64)]

    def checked(self, name: str, spec: Spec) -> Streamed:
        """The same array, whose rows must meet the spec whenever they are read; some are checked now."""

        def read(rows: np.ndarray) -> np.ndarray:
            values = self.read(rows)
            try:
                spec.check(name, values)
            except ValueError:
                for row, value in zip(rows, values, strict=True):
                    with_place = f"{name} (from {self.place(int(row))})"
                    spec.check(with_place, value[None])
                raise
            return values

        found = Streamed(self.shape, self.dtype, read, self.place)
        found.sample()
        return found


def on_disk(x: Any, c: Mapping[str, Any]) -> bool:
    """Whether any array of these examples is on disk."""
    return any(isinstance(values, Streamed) for values in (x, *c.values()))


def row_bytes(x: Any, c: Mapping[str, Any]) -> int:
    """The bytes of an example on disk; 0 where none of its arrays is."""
    arrays = [values for values in (x, *c.values()) if isinstance(values, Streamed)]
    return sum(values.dtype.itemsize * math.prod(values.shape[1:]) for values in arrays)


def by_rows(function: Callable[..., Any], values: Any, *arguments: Any) -> Any:
    """The function of an array, or of the rows of one on disk as they are read."""
    if isinstance(values, Streamed):
        return values.map(lambda rows: function(rows, *arguments))
    return function(values, *arguments)
