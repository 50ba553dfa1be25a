"""Checks of what a user passes in: one sentence that names the argument, the rule and the value.

The public API calls these once, before anything is compiled or written; the functions inside trust their arguments.
Shapes and dtypes are known while JAX traces a function, so they are always checked; values only on concrete arrays.
What one array must be is a `Spec`; likelihoods and conditions state theirs, so that checking is generic.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SMALLEST = 1e-30  # of positive numbers, for logarithms in float32
ROUNDING = 1e-6  # by which a value may leave its range: images scaled in float32 reach 1.0000001


def require(holds: bool, name: str, rule: str, got: object) -> None:
    """Raise `ValueError: <name> must <rule>, got <got>` unless the rule holds."""
    if not holds:
        raise ValueError(f"{name} must {rule}, got {got}")


def shown(value: object) -> str:
    """`repr(value)` on one line, truncated to 200 characters."""
    try:
        text = re.sub(r"\s*\n\s*", " ", repr(value))
    except (ValueError, RecursionError):  # an integer of thousands of digits; a list that contains itself
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def integer(name: str, value: object, least: int = 1, below: int = 2**31) -> int:
    """Check an integer in [least, below); returns Python's own int, which does not overflow."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool | np.timedelta64)
    require(is_integer and int(value) >= least, name, f"be an integer of at least {least}", shown(value))  # type: ignore[call-overload]
    require(int(value) < below, name, f"be below {below}", shown(value))  # type: ignore[call-overload]
    return int(value)  # type: ignore[call-overload, no-any-return]


def number(name: str, value: object, least: float = -math.inf, most: float = math.inf) -> float:
    """Check a finite number in [least, most]."""
    is_real = isinstance(value, Real) and not isinstance(value, bool | np.timedelta64)
    try:
        found = float(value) if is_real else math.nan  # type: ignore[arg-type]
    except OverflowError:
        found = math.nan
    bounds = {(True, True): f" in [{least:g}, {most:g}]", (True, False): f" of at least {least:g}"}
    rule = "be a finite number" + bounds.get((least > -math.inf, most < math.inf), "")
    require(math.isfinite(found) and least <= found <= most, name, rule, shown(value))
    return found


def scalar(name: str, value: Any, batch: int | None = None, least: float = -math.inf) -> None:
    """Check a finite number, or an array of one, or of one per example."""
    if not isinstance(value, np.ndarray | jax.Array):
        number(name, value, least)
        return
    shapes = [()] if batch is None else [(), (batch,)]
    rule = f"be a number, or an array of numbers of shape {' or '.join(map(str, shapes))}"
    require(value.shape in shapes and is_real(value.dtype), name, rule, f"{value.dtype} of shape {value.shape}")
    for each in [] if (held := values(value)) is None else held.ravel().tolist():
        number(name, each, least)


def one_of(name: str, value: object, choices: Any) -> None:
    """Check a word against the choices."""
    require(isinstance(value, str) and value in choices, name, f"be one of {', '.join(choices)}", shown(value))


def path(name: str, value: object) -> Path:
    """Check a path that a file can have."""
    require(isinstance(value, str | os.PathLike), name, "be a path", shown(value))
    found = Path(value).expanduser()  # type: ignore[arg-type]
    longest = max((len(os.fsencode(part)) for part in found.parts), default=0)
    require(longest < 256 and "\0" not in str(found), name, "be a path that a file can have", shown(str(value)))
    return found


def key(name: str, value: Any) -> None:
    """Check a single random key, `jax.random.key(seed)` or the raw uint32 words of one."""
    is_array = isinstance(value, np.ndarray | jax.Array)
    typed = is_array and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    raw = is_array and not typed and value.dtype == np.uint32 and value.shape in ((2,), (4,))
    got = f"{value.dtype} of shape {value.shape}" if is_array else shown(value)
    require((typed and value.ndim == 0) or raw, name, "be a random key, jax.random.key(seed)", got)


def instance(name: str, value: object, kind: type, what: str) -> None:
    """Check the class of a value."""
    require(isinstance(value, kind), name, f"be {what}", shown(value))


# Arrays


def is_real(dtype: Any) -> bool:
    """Whether a dtype is one of bool, integers, or floats of 16 to 64 bits."""
    # ml_dtypes' bfloat16 is no numpy.floating: its kind is "V", its name says what it is.
    return np.dtype(dtype).kind in "biu" or is_float(dtype)


def is_float(dtype: Any) -> bool:
    """Whether a dtype is one of floats of 16 to 64 bits."""
    return np.dtype(dtype).name in ("bfloat16", "float16", "float32", "float64")


def values(x: Any) -> np.ndarray | None:
    """The values of an array on the host, or None while it is traced."""
    return None if isinstance(x, jax.core.Tracer) else np.asarray(x)


def shape_of(name: str, x: Any) -> tuple[int, ...]:
    """The shape of a NumPy or JAX array of numbers in native byte order; refuses anything else."""
    require(isinstance(x, np.ndarray | np.generic | jax.Array), name, "be an array", f"a {type(x).__name__}")
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    require(not is_key and is_real(x.dtype), name, "be an array of real numbers", f"{x.dtype} values")
    native = np.dtype(x.dtype).isnative
    require(native, name, "be in native byte order, x.astype(x.dtype.newbyteorder('='))", np.dtype(x.dtype).str)
    return tuple(x.shape)


class Spec(NamedTuple):
    """What an array of one value per example must be.

    Kinds: "pixels" are floats, bool, or uint8 that stand for 255ths; "real" numbers are floats, integers or bool;
    "whole" numbers are the same without fractions, in [low, high); "integer" values are those of integer dtypes; a
    "mask" is bool.
    """

    shape: tuple[int, ...]  # of one example; the batch axis comes before it
    kind: Literal["pixels", "real", "whole", "integer", "mask"] = "real"
    low: float = -math.inf
    high: float = math.inf
    missing: bool = False  # whether NaN is allowed, for a missing value
    columns: tuple[Spec, ...] = ()  # of each entry of the last axis, where they differ; without shapes

    @classmethod
    def of_columns(cls, parts: Sequence[Spec], columns: Sequence[Sequence[int]]) -> Spec:
        """Rows of a table, [B, D], from the specs of groups of columns and the numbers of their columns."""
        specs = {number: part for part, numbers in zip(parts, columns, strict=True) for number in numbers}
        each = [specs[number]._replace(shape=()) for number in range(len(specs))]
        # 255ths are a matter of images: in a table, an integer stands for itself.
        each = [spec._replace(kind="real") if spec.kind == "pixels" else spec for spec in each]
        return cls((len(each),), "real", columns=tuple(each))

    def with_missing(self) -> Spec:
        """The same, with NaN allowed everywhere."""
        return self._replace(missing=True, columns=tuple(column.with_missing() for column in self.columns))

    def check(self, name: str, x: Any, batch: int | None = None) -> int:
        """Refuse an array that does not meet this spec, or has another batch size than `batch`; returns its own.

        Raises:
            ValueError: names the argument, the rule, and the shape, dtype or the first value that breaks it.
        """
        shape = shape_of(name, x)
        expected = "[" + ", ".join(["B", *map(str, self.shape)]) + "]"
        fits = shape[1:] == self.shape and len(shape) > 0
        require(fits, name, f"have shape {expected}", f"{shape}{self._hint(shape)}")
        require(shape[0] > 0, name, "hold at least one example", f"shape {shape}")
        require(batch in (None, shape[0]), name, f"hold one entry per example of x, {batch}", shape[0])
        fits = {
            "integer": np.dtype(x.dtype).kind in "iu",
            "mask": x.dtype == bool,
            "pixels": is_float(x.dtype) or x.dtype in (bool, np.uint8),
            "real": True,
            "whole": True,
        }[self.kind]
        require(fits, name, self.rule, f"{x.dtype} values")
        array = values(x)
        always = array is None or array.dtype == bool or (self.kind == "pixels" and array.dtype == np.uint8)
        if array is not None and not always:
            self._check_values(name, array)
            for number, column in enumerate(self.columns):
                column._check_values(f"{name}[..., {number}]", array[..., number])
        return shape[0]

    def _check_values(self, name: str, array: np.ndarray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            single = array.astype(np.float32) if is_float(array.dtype) else array
            slack = 0 if self._is_whole or self.high == math.inf else ROUNDING
            above = single >= self.high if self._is_whole and self.high < math.inf else single > self.high + slack
            wrong = ~np.isfinite(single) | (single < self.low - slack) | above
            if self.kind == "whole":
                wrong |= single != np.rint(single)
            if self.missing:
                wrong &= ~np.isnan(single)
        if wrong.any():
            place = np.unravel_index(int(wrong.argmax()), wrong.shape)
            where = f"row {place[0]}" + (f", element {tuple(map(int, place[1:]))}" if len(place) > 1 else "")
            spread = ""
            if not self._is_whole and (known := array[~np.isnan(single)]).size:
                spread = f" (values from {known.min():.9g} to {known.max():.9g})"
            value = f"{array[place]:.9g}" if is_float(array.dtype) else str(array[place])
            require(False, name, self.rule, f"{value} at {where}{spread}")

    @property
    def _is_whole(self) -> bool:
        return self.kind in ("integer", "whole")

    @property
    def rule(self) -> str:
        """What the values must be, in words."""
        if self.kind == "mask":
            return "be boolean, True where x is observed"
        missing = ", or NaN for a missing value" if self.missing else ""
        if self._is_whole:
            words = {"integer": "integers", "whole": "whole numbers"}[self.kind]
            return f"be {words} in [{self.low:g}, {self.high:g}){missing}"
        what = {"pixels": "be floats, or uint8 in 255ths", "real": "be real numbers"}[self.kind]
        bounded = self.low > -math.inf or self.high < math.inf
        where = f"in [{self.low:g}, {self.high:g}]" if bounded else "all finite"
        return f"{what}, {where}{missing}"

    def _hint(self, shape: tuple[int, ...]) -> str:
        if self.kind == "integer" and self.high < math.inf and shape[1:] == (int(self.high),):
            return " (one-hot? pass its argmax)"
        if len(shape) == len(self.shape) and shape[1:] == self.shape[:-1]:
            return " (add an axis: [..., None])"
        return ""

    def cast(self, x: Any) -> Any:
        """The array as floats: uint8 pixels become 255ths, floats stay as they are; labels and masks are untouched.

        Inside `jit` this computes with JAX, on NumPy arrays with NumPy, in their own precision.
        """
        if self.kind in ("integer", "mask") or is_float(x.dtype):
            return x
        scale = 255 if self.kind == "pixels" and x.dtype == np.uint8 else 1
        # Integers of 32 bits, such as Unix seconds, have more digits than float32; only the host can hold them.
        dtype: Any = np.float64 if isinstance(x, np.ndarray) and x.dtype.itemsize > 2 else np.float32
        return x.astype(dtype) / dtype(scale)


def binary(name: str, x: Any, spec: Spec) -> Any:
    """uint8 pixels of 0 and 1 alone as bool, with a warning: they are black and white, not 255ths."""
    if spec.kind != "pixels" or x.dtype != np.uint8 or (array := values(x)) is None or array.max() != 1:
        return x
    warnings.warn(f"{name} holds only 0 and 1, and is read as black and white, not as 255ths", stacklevel=4)
    return array.astype(bool)


def arrays(name: str, c: Any, specs: Mapping[str, Spec], batch: int | None = None) -> None:
    """Refuse a dict of arrays that lacks a name, has one too many, or holds an array that does not meet its spec."""
    rule = "be a dict with " + (f"the keys {list(specs)}" if specs else "no keys: this model is unconditional")
    require(isinstance(c, Mapping), name, rule, f"a {type(c).__name__}")
    missing = [entry for entry in specs if entry not in c]
    unexpected = [entry for entry in c if entry not in specs]
    require(not missing, name, rule, f"{list(c)}: {missing} missing")
    require(not unexpected, name, rule, f"{list(c)}: {unexpected} unexpected")
    for entry, spec in specs.items():
        batch = spec.check(f"{name}[{entry!r}]", c[entry], batch)
