"""Arrays that a model of a user's own arrays is conditioned on: labels, numbers, and parts of x."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import cvae
from cvae import checks, masks
from cvae.data import Rows
from cvae.keys import named
from experiments.harness.user_data import MOST_LISTED, listed, require_finite
from experiments.harness.user_files import Arrays, Wanted


def conditions(
    wanted: list[Wanted],
    arrays: Arrays,
    x_name: str,
    x: np.ndarray,
    rows: Rows,
    likelihood: cvae.Likelihood,
    seed: int,
    notes: list[str],
) -> tuple[cvae.Condition, Arrays]:
    """The condition of the model, and its arrays."""
    parts: list[cvae.Condition] = []
    c: Arrays = {}
    for kind, name, categories in wanted:
        if kind == "image":
            part, more = _image(name, arrays.get(name), x, likelihood, seed)
            parts.append(part)
            c |= more
            continue
        count = f"hold one entry per example of {x_name!r}, {len(x)} of them"
        checks.require(len(arrays[name]) == len(x), repr(name), count, len(arrays[name]))
        if kind == "label":
            c[name], classes = _labels(name, arrays[name], rows.train, notes, categories)
            parts.append(cvae.Label(classes, name, categories))
        else:
            c[name] = _numbers(name, arrays[name])
            parts.append(_continuous(name, c[name][rows.train], notes))
    if len(parts) < 2:
        return next(iter(parts), cvae.Unconditional()), c
    return cvae.Mixed(tuple(parts)), c


def _labels(
    name: str, label: np.ndarray, train: np.ndarray, notes: list[str], words: tuple[str, ...] = ()
) -> tuple[np.ndarray, int]:
    """Labels as int32 [N], and the number of classes: those of the training part, unless they have words."""
    require = checks.require
    got = f"{label.dtype} of shape {label.shape}"
    if label.ndim == 2:
        one_hot = label.shape[1] > 1 and bool(np.isin(label, (0, 1)).all() and (label.sum(axis=1) == 1).all())
        got += " (one-hot? save label.argmax(axis=1))" if one_hot else ""
        got += " (save label[:, 0])" if label.shape[1] == 1 else ""
    require(label.ndim == 1, repr(name), "be integers of shape [N]", got)
    require_finite(name, label)
    if label.dtype.kind == "f":
        whole = bool((label == np.rint(label)).all())
        got += "" if whole else " with fractions (numbers? use continuous=...; numpy.digitize makes classes of them)"
        require(whole, repr(name), "be integers of shape [N]", got)
        notes.append(f"{name!r} holds whole floats, and is read as integers")
    negative, largest = int(label.argmin()), int(label.argmax())
    number = "numpy.unique(label, return_inverse=True)[1] numbers them"
    require(
        label[negative] >= 0, repr(name), f"be classes from 0 on ({number})", f"{label[negative]} at row {negative}"
    )
    came = f"{int(label[largest])} at row {largest}"
    # There is a weight per class: numbers that identify, or code, would fill the memory.
    require(int(label[largest]) < len(label), repr(name), f"be classes below {len(label)} ({number})", came)
    classes = len(words) or int(label[train].max()) + 1
    require(label[largest] < classes, repr(name), f"be in [0, {classes}), the classes of the training part", came)
    require(classes > 1, repr(name), "name two classes at least", "0 in every row")
    unused = np.setdiff1d(np.arange(classes), label[train].astype(np.int64)).tolist()
    if unused:
        shown = ", ".join(words[k] if words else str(k) for k in unused[:MOST_LISTED])
        hint = "" if words else f" ({number})"
        notes.append(
            f"no training row is of class {shown}{' and more' * (len(unused) > MOST_LISTED)} of {name!r}: what is "
            f"drawn of it means nothing{hint}"
        )
    return label.astype(np.int32), classes


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    """Real numbers as [N, D]."""
    right = values.ndim in (1, 2) and values.size > 0
    got = f"{values.dtype} of shape {values.shape}"
    checks.require(right, repr(name), "be real numbers of shape [N] or [N, D]", got)
    require_finite(name, values)
    values = values[:, None] if values.ndim == 1 else values
    return values if values.dtype.kind == "f" else values.astype(np.float32 if values.dtype == bool else np.float64)


def _continuous(name: str, values: np.ndarray, notes: list[str]) -> cvae.Continuous:
    """`Continuous.fitted` of the training part, with refusals that name the array as the file does."""
    try:
        fitted = cvae.Continuous.fitted(values, name)
    except ValueError as error:
        raise ValueError(f"{str(error).replace(f'c[{name!r}]', repr(name))}, in the training part") from None
    if constant := listed(np.array(fitted.std) == 0):
        notes.append(f"constant in the training part, and no condition therefore: {constant} of {name!r}")
    return fitted


def _image(
    name: str, mask: np.ndarray | None, x: np.ndarray, likelihood: cvae.Likelihood, seed: int
) -> tuple[cvae.Image, Arrays]:
    """The condition on a part of x, and its arrays; masks that vary are drawn once, for what is scored."""
    event = x.shape[1:]
    fields: dict[str, Any] = {}
    if isinstance(likelihood, cvae.Normal):
        fields = {"location": likelihood.location, "scale": likelihood.scale}
    condition = cvae.Image(event, name if mask is None else "given", **fields)  # type: ignore[arg-type]
    c = {"image": x}
    if mask is not None:
        varies = np.broadcast_to(np.array(fields.get("scale", 1.0)) > 0, event)
        c["observed"] = _mask(name, mask, x.shape, varies)
    elif "observed" in condition.spec:
        c["observed"] = drawn_masks(name, seed, x.shape)
    return condition, c


def drawn_masks(name: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The masks of examples that are scored, bool [N, *event], always the same of a seed."""
    key = named(named(jax.random.key(seed), "test"), "init")
    return np.asarray(masks.draw(name, key, shape[0], shape[1:]))


def _mask(name: str, mask: np.ndarray, shape: tuple[int, ...], varies: np.ndarray) -> np.ndarray:
    """A mask per example, as `every_mask` gives them; each must hide something."""
    every = every_mask(name, mask, shape)
    whole = (every | ~varies).reshape(len(every), -1).all(axis=1)
    rule = "hide something of every example"
    checks.require(not whole.any(), repr(name), rule, f"nothing hidden at row {whole.argmax()}")
    return every


def every_mask(name: str, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask per example, from one of each or one for all; those of images may leave out the channels."""
    event = shape[1:]
    shapes = [event, shape] + ([event[:-1], shape[:-1]] if len(event) == 3 else [])
    rule = f"be boolean, True where x is observed, of a shape among {', '.join(map(str, shapes))}"
    fits = mask.dtype == bool and mask.shape in shapes
    checks.require(fits, repr(name), rule, f"{mask.dtype} of shape {mask.shape}")
    return np.broadcast_to(mask if mask.shape in shapes[:2] else mask[..., None], shape)
