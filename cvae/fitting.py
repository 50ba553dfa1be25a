"""Fitting: training with validation, early stopping and resumption.

`epochs` iterates and hands each epoch to the caller's loop, to log, save or stop; `fit` is the simplest such loop. A
fit is a pure function of its arguments.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from cvae import checks
from cvae.conditions import Condition, Unconditional
from cvae.config import Architecture, Training
from cvae.data.augmentation import Augment, augmentation, binarize
from cvae.distributions import center_and_spread
from cvae.evaluation import evaluate
from cvae.keys import BINARIZATION_SEEDS, named
from cvae.likelihoods import Missing, Normal
from cvae.loop import Epoch, Progress, check_resumed, iterate, notes_on, steps_per_call
from cvae.model import CVAE, check_examples
from cvae.networks import Params
from cvae.origin import at_origin
from cvae.progress import Bar
from cvae.streamed import Streamed, row_bytes
from cvae.training import Metrics, init_state, static_settings, train_steps

CHECKED, CHECKED_NUMBERS = 10_000, 2**22  # examples of which mean and standard deviation are checked, at most
FARTHEST = 100.0  # mean and standard deviation of x, in units of its likelihood, that need no warning; or 1/100


class Fitted(NamedTuple):
    """The result of a fit."""

    params: Params
    history: list[Epoch]
    notes: list[str]  # what the user should know, such as a loss that rose


def epochs(
    model: CVAE,
    params: Params | Progress,
    key: Array,
    x: Any,
    c: Any,
    training: Training = Training(),
    *,
    validation: tuple[Any, Any] | None = None,
    augment: Augment | None = None,
    optimizer: optax.GradientTransformation | None = None,
    within: bool = False,
) -> Iterator[Progress]:
    """Train epoch by epoch; the caller's loop logs, saves, and may stop at any time.

        for progress in cvae.epochs(model, params, key, x, c, training):
            print(progress.history[-1])

    Called with a `Progress` in place of parameters, and otherwise the same arguments, it goes on from there and ends at
    the same bits as without interruption.

    Args: as `fit`; with `within`, what is iterated over is every compiled call, of which a long epoch has several: the
        `part` of a progress says how far its epoch has come, None at the end of one.
    Raises: ValueError and FloatingPointError as `fit`.
    """
    prepared = prepare(model, params, key, x, c, training, validation, augment)
    for name in ("learning_rate", "schedule", "clip_norm", "weight_decay") if optimizer is not None else ():
        usual, value = getattr(Training(), name), getattr(training, name)
        checks.require(value == usual, name, "be left out beside an optimizer, which has its own", value)
    run_steps = partial(
        train_steps, prepared.model, static_settings(training), augment=prepared.augment, optimizer=optimizer
    )
    if isinstance(params, Progress):
        start = params
    else:
        start = Progress(init_state(params, training, optimizer), None, [], training)
    check_resumed(start, training)
    validate = None
    if prepared.validation is not None:
        proposal = "prior" if training.hybrid_weight == 0 else "posterior"
        # Every epoch is scored with the same draws, so that two epochs differ by their parameters alone.
        validate = partial(_validate, model, named(key, "validation"), *prepared.validation, proposal)
    x, c, batch = prepared.x, prepared.c, training.batch_size
    per_call = steps_per_call(model, x.shape[0] // batch, batch * row_bytes(x, c))
    calls = iterate(run_steps, per_call, start, named(key, "training"), x, c, training, validate)
    return calls if within else (progress for progress in calls if progress.part is None)


class Prepared(NamedTuple):
    """The arguments of a fit as its training step takes them."""

    model: CVAE  # at the origin
    x: Any
    c: Any
    validation: tuple[Any, Any] | None  # as the original model takes it
    augment: Augment


def prepare(
    model: CVAE,
    params: Params | Progress,
    key: Array,
    x: Any,
    c: Any,
    training: Training,
    validation: Any,
    augment: Augment | None,
) -> Prepared:
    """Refuse arguments of a fit that do not suit each other; binarise pixels drawn once; move x and c to the origin."""
    checks.key("key", key)
    checks.instance("training", training, Training, "a cvae.Training")
    known = isinstance(params, Progress | Mapping)
    checks.require(known, "params", "be parameters as model.init(key) gives, or a Progress", checks.shown(params))
    names = params.state.params.keys() if isinstance(params, Progress) else params.keys()
    original = model.architecture.condition if model.architecture else Unconditional()
    x, c = _drawn_once(original, *check_examples(model.architecture, x, c), training, "train")
    size, batch = x.shape[0], training.batch_size
    checks.require(size >= batch, "batch_size", f"be at most the number of examples ({size})", batch)
    checks.require(training.shift == 0 or x.ndim == 4, "shift", "be 0 where x is no image (H, W, C)", training.shift)
    if training.hide_prob > 0 and model.architecture is not None:
        can_hide = model.architecture.likelihood.spec(model.architecture.event_shape).missing
        checks.require(can_hide, "hide_prob", "be 0 unless the likelihood is a cvae.Missing", training.hide_prob)
    missing = sorted(set(training.frozen) - names)
    checks.require(not missing, "frozen", f"name parts of the parameters, {list(names)}", missing)
    checks.require(
        training.patience is None or validation is not None,
        "patience",
        "be None without validation examples",
        training.patience,
    )
    if validation is not None:
        pair = isinstance(validation, tuple | list) and len(validation) == 2
        checks.require(pair, "validation", "be a pair, (x, c)", checks.shown(type(validation)))
        checked = check_examples(model.architecture, *validation)
        validation = _drawn_once(original, *checked, training, "validation")
    moved, x, c = at_origin(model, x, c)
    if moved.architecture:
        rows = max(1, min(CHECKED, CHECKED_NUMBERS // max(1, math.prod(x.shape[1:]))))
        _warn_of_scale(moved.architecture, x[:rows])
    condition = moved.architecture.condition if moved.architecture else original
    return Prepared(moved, x, dict(c), validation, augment or augmentation(condition, static_settings(training)))


def _warn_of_scale(architecture: Architecture, x: Any) -> None:
    """Warn where the networks would see x far from the order of 1, or a Normal could not be as narrow as x."""
    likelihood = architecture.likelihood
    base: Any = likelihood.base if isinstance(likelihood, Missing) else likelihood
    with jax.debug_nans(False):  # NaN marks what is missing
        seen = np.asarray(base.features(likelihood.spec(architecture.event_shape).cast(x)), np.float64)
    mean, std = center_and_spread(seen.reshape(-1, seen.shape[-1]))
    wrong = np.maximum(np.abs(mean), std) > FARTHEST
    wrong |= isinstance(base, Normal) & (std > 0) & (std < 1 / FARTHEST)
    if wrong.any():
        found = f"mean {mean[wrong][0]:.3g} and standard deviation {std[wrong][0]:.3g}"
        rule = "0 and 1 are best, as Normal.fitted(x) has them"
        warnings.warn(f"x has {found} in units of its likelihood, where {rule}", stacklevel=5)


def _drawn_once(condition: Condition, x: Any, c: Any, training: Training, part: str) -> tuple[Any, Any]:
    """Pixels drawn 0 or 1 where they are to be drawn once: static targets, and those of validation."""
    if training.binarization == "none" or (training.binarization == "dynamic" and part == "train"):
        return x, c
    in_memory = not isinstance(x, Streamed)
    checks.require(in_memory, "binarization", "be none or dynamic for examples on disk", training.binarization)
    x = binarize(BINARIZATION_SEEDS[part], x).astype(np.float32)
    return x, condition.with_target(x, c)


def _validate(model: CVAE, key: Array, x: Any, c: Any, proposal: str, params: Params) -> Metrics:
    terms = evaluate(model, params, key, x, c, proposal=proposal)
    return Metrics(float(-terms.value.mean()), float(terms.log_likelihood.mean()), float(terms.kl.mean()))


def fit(
    model: CVAE,
    params: Params | Progress,
    key: Array,
    x: Any,
    c: Any,
    training: Training = Training(),
    *,
    validation: tuple[Any, Any] | None = None,
    augment: Augment | None = None,
    optimizer: optax.GradientTransformation | None = None,
    progress: bool = True,
) -> Fitted:
    """Fit a model; the same arguments give the same parameters, bit for bit.

    Interrupted (Ctrl-C, a notebook's stop button) it returns what it has, with a warning.

    Args:
        model: the model.
        params: where to start, as `model.init(key)` gives; or the `Progress` of an interrupted fit, to go on with.
        key: the source of all randomness.
        x: training examples, [N, *event], on the host, a device, or on disk (`data.stream`).
        c: their conditions, each of length N.
        training: the settings.
        validation: (x, c), scored by the ELBO after every epoch (under the prior if `hybrid_weight` is 0). With
            `patience` it decides when to stop and which epoch's parameters are returned.
        augment: a function (key, x, c) -> (x, c) in place of `data.augmentation(condition, training)`, called on every
            training batch; x and c are moved to the origin (see `origin.at_origin`).
        optimizer: an Optax optimiser in place of Adam, with its own learning rate, schedule, clipping and weight decay.
        progress: draw a bar with the loss and examples per second.

    Raises:
        ValueError: examples that do not suit the model, or settings that do not suit the examples.
        FloatingPointError: a loss, or a parameter after an epoch, is not finite.
    """
    options: dict[str, Any] = {"validation": validation, "augment": augment, "optimizer": optimizer}
    run = epochs(model, params, key, x, c, training, **options, within=True)
    result, history, part = (params.result, *params[2::2]) if isinstance(params, Progress) else (params, [], None)
    with Bar("fit", training.epochs, len(history), disable=not progress) as bar:
        try:
            for current in run:
                result, history, part = current.result, current.history, current.part
                bar.show(current)
        except KeyboardInterrupt:
            done = f"{len(history)} of {training.epochs} epochs" + (f" and {part.steps:,} steps" if part else "")
            warnings.warn(f"interrupted after {done}; their parameters are returned", stacklevel=2)
    for note in (notes := notes_on(history)):
        warnings.warn(note, stacklevel=2)
    return Fitted(result, history, notes)
