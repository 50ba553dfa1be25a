"""The public door: refusals in one sentence that name the argument, the rule and what came.

Everything a user can get wrong is refused here, before anything is compiled or written; the rooms inside trust
what they are given. Shapes and dtypes are known while tracing, so they are always checked. Values are looked at
only on arrays that hold some: never inside `jit`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np


def require(holds: bool, name: str, rule: str, got: object) -> None:
    """Raise `ValueError: <name> must <rule>, got <got>` unless the rule holds."""
    if not holds:
        raise ValueError(f"{name} must {rule}, got {got}")


def whole_number(name: str, value: object, least: int = 1) -> None:
    """Refuse what is not an integer of at least `least`; `True` is no integer here."""
    is_whole = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
    require(is_whole, name, f"be a whole number of at least {least}", repr(value))


def seed(name: str, value: object) -> None:
    """Refuse what does not seed a generator of JAX and of NumPy alike: anything but an integer in [0, 2**32)."""
    whole_number(name, value, least=0)
    require(int(value) < 2**32, name, "be below 2**32", repr(value))  # type: ignore[call-overload]


def positive_number(name: str, value: object) -> None:
    """Refuse what is not a finite number above zero."""
    is_positive = isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf
    require(is_positive, name, "be a finite number above 0", repr(value))


def finite_number(name: str, value: object, least: float = -math.inf) -> None:
    """Refuse what is not a finite number of at least `least`."""
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))
    rule = "be a finite number" + (f" of at least {least:g}" if least > -math.inf else "")
    require(is_number and float(value) >= least, name, rule, repr(value))  # type: ignore[arg-type]


def share(name: str, value: object) -> None:
    """Refuse what is not a number from 0 to 1."""
    is_share = isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1
    require(is_share, name, "be a number from 0 to 1", repr(value))


def several(name: str, values: Any, what: str = "numbers") -> tuple[Any, ...]:
    """The values as a tuple; refuses a lone number or a word in their place."""
    require(isinstance(values, Iterable) and not isinstance(values, str), name, f"be a list of {what}", repr(values))
    return tuple(values)


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not one of the choices."""
    require(value in choices, name, f"be one of {', '.join(choices)}", repr(value))


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
    """The shape of an array; refuses what is not one."""
    require(hasattr(x, "shape") and hasattr(x, "dtype"), name, "be an array", f"a {type(x).__name__}")
    return tuple(x.shape)


def event(name: str, x: Any, event_shape: tuple[int, ...]) -> None:
    """Refuse an array that is not [B, *event_shape], or that holds no example."""
    shape = shape_of(name, x)
    expected = "[B, " + ", ".join(map(str, event_shape)) + "]"
    require(shape[1:] == event_shape and len(shape) > 0, name, f"have shape {expected}", shape)
    require(shape[0] > 0, name, "hold at least one example", f"shape {shape}")


def is_float(dtype: Any) -> bool:
    """Whether a dtype is one of floats."""
    # ml_dtypes' bfloat16 is no numpy.floating; its kind is 'V', its name says what it is.
    return bool(np.issubdtype(np.dtype(dtype), np.floating) or "float" in np.dtype(dtype).name)


def real_line(name: str, x: Any) -> None:
    """Refuse floats that are not finite, and any other dtype."""
    require(is_float(x.dtype), name, "be finite floats (`cvae.prepare` scales uint8 pixels)", f"{x.dtype} values")
    array = values(x)
    if array is not None:
        bad = int((~np.isfinite(array.astype(np.float32))).sum())
        require(bad == 0, name, "be finite floats", f"{bad} NaN or infinite")


def unit_interval(name: str, x: Any) -> None:
    """Refuse floats that are NaN or outside [0, 1], and any other dtype."""
    rule = "be floats in [0, 1] (`cvae.prepare` scales uint8 pixels)"
    require(is_float(x.dtype), name, rule, f"{x.dtype} values")
    array = values(x)
    if array is None:
        return
    array = array.astype(np.float32)
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
