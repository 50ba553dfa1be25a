"""The public door: refusals in one sentence that name the argument, the rule and what came.

Everything a user can get wrong is refused here, before anything is compiled or written; the rooms inside trust
what they are given. Shapes and dtypes are known while tracing, so they are always checked. Values are looked at
only on arrays that hold some: never inside `jit`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np


def require(holds: bool, name: str, rule: str, got: object) -> None:
    """Raise `ValueError: <name> must <rule>, got <got>` unless the rule holds."""
    if not holds:
        raise ValueError(f"{name} must {rule}, got {got}")


def shown(value: object) -> str:
    """What came, on one line and cut short: an array is written on many, and a whole number may have no end."""
    try:
        text = re.sub(r"\s*\n\s*", " ", repr(value))
    except (ValueError, RecursionError):  # Python writes out no number of thousands of digits, and no endless list
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def whole_number(name: str, value: object, least: int = 1, bits: int = 31) -> int:
    """Refuse what is not an integer of at least `least`; `True` is no integer here.

    Returns it as Python's own: sums and products of NumPy's small ones overflow. Compiled programs count with 31 bits.
    """
    is_whole = _is_a(Integral, value) and int(value) >= least  # type: ignore[call-overload]
    require(is_whole, name, f"be a whole number of at least {least}", shown(value))
    number: int = int(value)  # type: ignore[call-overload]
    require(number < 2**bits, name, f"be below 2**{bits}", shown(value))
    return number


def seed(name: str, value: object) -> int:
    """Refuse what does not seed a generator of JAX and of NumPy alike: anything but an integer in [0, 2**32)."""
    return whole_number(name, value, least=0, bits=32)


def _is_a(kind: type, value: object) -> bool:
    """Whether a value is a number of this kind; a truth value is none, nor is a span of time, which NumPy calls one."""
    return isinstance(value, kind) and not isinstance(value, bool | np.timedelta64)


def _float(value: object) -> float:
    """A number as a float; NaN for what is none, and for a whole number that no float is as large as."""
    try:
        return float(value) if _is_a(Real, value) else math.nan  # type: ignore[arg-type]
    except OverflowError:
        return math.nan


def positive_number(name: str, value: object) -> None:
    """Refuse what is not a finite number above zero."""
    require(0 < _float(value) < math.inf, name, "be a finite number above 0", shown(value))


def finite_number(name: str, value: object, least: float = -math.inf) -> None:
    """Refuse what is not a finite number of at least `least`."""
    rule = "be a finite number" + (f" of at least {least:g}" if least > -math.inf else "")
    require(math.isfinite(_float(value)) and _float(value) >= least, name, rule, shown(value))


def share(name: str, value: object) -> None:
    """Refuse what is not a number from 0 to 1."""
    require(0 <= _float(value) <= 1, name, "be a number from 0 to 1", shown(value))


def several(name: str, values: Any, what: str = "numbers") -> tuple[Any, ...]:
    """The values as a tuple; refuses a lone number, a word or a dict in their place."""
    # An array of no axes says that it can be iterated over, and cannot.
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    require(is_list and getattr(values, "ndim", 1) > 0, name, f"be a list of {what}", shown(values))
    return tuple(values)


def path(name: str, value: object) -> Path:
    """Refuse what is no path, or one that no file can have; returns it as one."""
    require(isinstance(value, str | os.PathLike), name, "be a path", shown(value))
    found = Path(value)  # type: ignore[arg-type]
    longest = max((len(os.fsencode(part)) for part in found.parts), default=0)
    fits = longest < 256 and len(os.fsencode(found)) < 4096 and "\0" not in str(found)
    require(fits, name, "be a path that a file can have", shown(str(value)))
    return found


def word(name: str, value: object) -> None:
    """Refuse what is not a string of at least one letter."""
    require(isinstance(value, str) and value != "", name, "be a name", shown(value))


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not one of the choices."""
    require(isinstance(value, str) and value in choices, name, f"be one of {', '.join(choices)}", shown(value))


def names(name: str, c: object, expected: tuple[str, ...]) -> None:
    """Refuse a dict of raw conditions that lacks a name or has one too many."""
    wanted = "be a dict with " + (f"the keys {list(expected)}" if expected else "no keys: this model is unconditional")
    require(isinstance(c, Mapping), name, wanted, f"a {type(c).__name__}")
    assert isinstance(c, Mapping)
    missing = [key for key in expected if key not in c]
    unexpected = [key for key in c if key not in expected]
    require(not missing, name, wanted, f"{list(c)}: {missing} missing")
    require(not unexpected, name, wanted, f"{list(c)}: {unexpected} unexpected")


def values(x: Any) -> np.ndarray | None:
    """The values of an array on the host, or None while it is only being traced."""
    import jax

    return None if isinstance(x, jax.core.Tracer) else np.asarray(x)


def shape_of(name: str, x: Any) -> tuple[int, ...]:
    """The shape of an array of NumPy's or JAX's; refuses what is not one, and what JAX would not read."""
    if not isinstance(x, np.ndarray | np.generic):
        import jax

        require(isinstance(x, jax.Array), name, "be an array", f"a {type(x).__name__}")
        is_key = jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
        require(not is_key, name, "be an array of numbers", "a random key")
    rule = "be in the byte order of the machine, x.astype(x.dtype.newbyteorder('='))"
    require(np.dtype(x.dtype).isnative, name, rule, f"{np.dtype(x.dtype).str} values")
    return tuple(x.shape)


def array(name: str, values: Any, what: str) -> np.ndarray:
    """An array of NumPy's of an array or of nested lists; refuses what makes none."""
    try:
        made = np.asarray(values)
    except (TypeError, ValueError):  # lists of different lengths; random keys
        made = np.asarray(None)
    require(made.dtype != object, name, f"be {what}", f"a {type(values).__name__}")
    return made


def real_numbers(name: str, values: Any, what: str) -> np.ndarray:
    """Real numbers or truth values in an array or in nested lists, as float64; refuses anything else."""
    made = array(name, values, what)
    require(made.dtype.kind in "biuf" or is_float(made.dtype), name, f"be {what}", f"{made.dtype} values")
    with np.errstate(over="ignore"):
        return made.astype(np.float64)


def classes(name: str, values: Any) -> np.ndarray:
    """Classes, whole numbers [N] in an array or a list; refuses anything else, and none at all."""
    made = array(name, values, "classes, shape [N]")
    require(made.ndim == 1 and made.size > 0, name, "be classes, shape [N]", made.shape)
    require(is_integer(made.dtype), name, "be classes, integers of shape [N]", f"{made.dtype} values")
    return made


def key(name: str, value: Any) -> None:
    """Refuse what is not one random key: `jax.random.key(seed)`, or the words of one."""
    import jax

    is_array = isinstance(value, np.ndarray | jax.Array)
    is_typed = is_array and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
    is_one = is_array and value.ndim == (0 if is_typed else 1)
    if is_one and not is_typed:
        is_one = value.dtype == np.uint32 and value.shape == jax.random.key_data(jax.random.key(0)).shape
    came = f"{value.dtype} of shape {value.shape}" if is_array else shown(value)
    require(is_one, name, "be a random key, jax.random.key(seed)", came)


def scale(name: str, value: Any, batch: int | None = None, least: float = -math.inf) -> None:
    """Refuse what is neither a finite number of at least `least` nor an array of one, or of `batch` of them."""
    import jax

    if not isinstance(value, np.ndarray | jax.Array):
        finite_number(name, value, least)
        return
    shapes = [()] if batch is None else [(), (batch,)]
    rule = f"be a finite number, or an array of shape {' or '.join(map(str, shapes))}"
    shape = shape_of(name, value)
    is_real = is_float(value.dtype) or is_integer(value.dtype)
    require(is_real and shape in shapes, name, rule, f"{value.dtype} of shape {shape}")
    held = values(value)
    if held is not None:
        for number in single(held).ravel().tolist():
            finite_number(name, number, least)


def event(name: str, x: Any, event_shape: tuple[int, ...]) -> None:
    """Refuse an array that is not [B, *event_shape], or that holds no example."""
    shape = shape_of(name, x)
    expected = "[B, " + ", ".join(map(str, event_shape)) + "]"
    require(shape[1:] == event_shape and len(shape) > 0, name, f"have shape {expected}", shape)
    require(shape[0] > 0, name, "hold at least one example", f"shape {shape}")


def is_float(dtype: Any) -> bool:
    """Whether a dtype is one of floats of 16, 32 or 64 bits: JAX calculates with no longer or shorter ones."""
    # ml_dtypes' bfloat16 is no numpy.floating; its kind is 'V', its name says what it is.
    return np.dtype(dtype).name in ("bfloat16", "float16", "float32", "float64")


def is_integer(dtype: Any) -> bool:
    """Whether a dtype is one of integers; NumPy counts spans of time among them."""
    return np.dtype(dtype).kind in "iu"


def single(array: np.ndarray) -> np.ndarray:
    """Numbers as a model calculates with them, float32: infinite where that holds none so large."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def real_line(name: str, x: Any, hint: str = " (`cvae.prepare` scales uint8 pixels)") -> None:
    """Refuse floats that are not finite, and any other dtype."""
    require(is_float(x.dtype), name, f"be finite floats{hint}", f"{x.dtype} values")
    array = values(x)
    if array is not None:
        bad = int((~np.isfinite(single(array))).sum())
        require(bad == 0, name, "be finite floats", f"{bad} NaN or infinite")


def unit_interval(name: str, x: Any) -> None:
    """Refuse floats that are NaN or outside [0, 1], and any other dtype."""
    rule = "be floats in [0, 1] (`cvae.prepare` scales uint8 pixels)"
    require(is_float(x.dtype), name, rule, f"{x.dtype} values")
    array = values(x)
    if array is None or array.size == 0:
        return
    array = single(array)
    require(not np.isnan(array).any(), name, "be floats in [0, 1]", f"{int(np.isnan(array).sum())} NaN")
    require(
        bool((array >= 0).all() and (array <= 1).all()),
        name,
        "be floats in [0, 1]",
        f"values from {array.min():g} to {array.max():g}",
    )


def same_length(name: str, length: int, other: str, other_length: int) -> None:
    """Refuse two arrays whose batch axes differ."""
    require(length == other_length, name, f"hold one entry an example of {other}, {other_length} of them", length)
