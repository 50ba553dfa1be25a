"""Fitting: the loop over epochs of training, with validation, early stopping and resumption.

`epochs` iterates and hands each epoch to the caller's loop, to log, save or stop; `fit` is the simplest such loop. Keys
are derived from the one given by the number of the epoch, so a fit is a pure function of its arguments, and one that is
resumed ends at the same bits.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from cvae import checks
from cvae.conditions import Condition, Conditions, Unconditional
from cvae.config import Architecture, Training
from cvae.data.augmentation import Augment, augmentation, binarize
from cvae.devices import MEMBER, mesh_for, on, put
from cvae.distributions import center_and_spread
from cvae.evaluation import evaluate
from cvae.keys import BINARIZATION_SEEDS, named
from cvae.likelihoods import Missing, Normal
from cvae.model import CVAE, check_examples
from cvae.networks import BODIES, Params
from cvae.origin import at_origin
from cvae.progress import Bar
from cvae.training import Metrics, TrainState, init_state, shuffled, static_settings, train_steps

CHECKED = 10_000  # examples of which the mean and standard deviation are checked
FARTHEST = 100.0  # mean and standard deviation of x, in units of its likelihood, that need no warning; or 1/100
MOST_STEPS = 1000  # of a compiled call, after which Ctrl-C is heard
REMEDY = "try a lower learning_rate, or a clip_norm such as 10"


class Epoch(NamedTuple):
    """What one epoch of training came to."""

    epoch: int  # counted from 1
    train: Metrics  # means over the epoch's steps, while the parameters changed
    validation: Metrics | None  # after the epoch, where a validation set was given
    first_loss: float  # of the epoch's first step; in the first epoch that is before any training
    seconds: float  # of the training steps; the first epoch's include compilation
    examples_per_second: float


class Progress(NamedTuple):
    """A fit after an epoch: with the arguments of that fit, all that decides how it goes on."""

    state: TrainState
    best: Params | None  # of the epoch that validates best, where patience decides
    history: list[Epoch]
    training: Training  # the settings of the fit

    @property
    def result(self) -> Params:
        """The parameters to use: the best, if patience decides."""
        return self.state.result if self.best is None else self.best


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
) -> Iterator[Progress]:
    """Train epoch by epoch; the caller's loop logs, saves, and may stop at any time.

        for progress in cvae.epochs(model, params, key, x, c, training):
            print(progress.history[-1])

    Called with a `Progress` in place of parameters, and otherwise the same arguments, it goes on from there and ends at
    the same bits as without interruption.

    Args: as `fit`.
    Raises: ValueError and FloatingPointError as `fit`.
    """
    prepared = prepare(model, params, key, x, c, training, validation, augment)
    for name in ("learning_rate", "schedule", "clip_norm", "weight_decay") if optimizer is not None else ():
        usual, value = getattr(Training(), name), getattr(training, name)
        checks.require(value == usual, name, "be left out beside an optimizer, which has its own", value)
    run_steps = partial(
        train_steps, prepared.model, static_settings(training), augment=prepared.augment, optimizer=optimizer
    )
    start = params if isinstance(params, Progress) else begin(init_state(params, training, optimizer), training)
    check_resumed(start, training)
    validate = None
    if prepared.validation is not None:
        proposal = "prior" if training.hybrid_weight == 0 else "posterior"
        # Every epoch is scored with the same draws, so that two epochs differ by their parameters alone.
        validate = partial(_validate, model, named(key, "validation"), *prepared.validation, proposal)
    per_call = steps_per_call(model, prepared.x.shape[0] // training.batch_size)
    return iterate(run_steps, per_call, start, named(key, "training"), prepared.x, prepared.c, training, validate)


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
        _warn_of_scale(moved.architecture, x[:CHECKED])
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


def begin(state: TrainState, training: Training) -> Progress:
    """The progress before the first epoch."""
    return Progress(state, None, [], training)


def check_resumed(start: Progress, training: Training) -> None:
    """Refuse to go on with other settings; more epochs are possible where no schedule depends on them."""
    free = {"patience"} | ({"epochs"} if training.schedule == "constant" else set())
    for name, before in vars(start.training).items():
        if not name.startswith("_") and name not in free and before != (now := getattr(training, name)):
            raise ValueError(f"{name} must be as in the fit that is resumed, {before!r}, got {now!r}")


def steps_per_call(model: CVAE, steps: int) -> int:
    """How many of an epoch's steps a compiled call computes.

    Many for small steps, because each call costs a millisecond; one where XLA computes the body slowly in a loop. Equal
    parts of an epoch if there are any, so that only one program is compiled.
    """
    body = BODIES[model.architecture.body] if model.architecture else None
    if body is not None and body.slow_in_loops and jax.default_backend() == "cpu":
        return 1
    calls = -(-steps // MOST_STEPS)
    even = (number for number in range(calls, 2 * calls + 1) if steps % number == 0)
    return -(-steps // next(even, calls))


def iterate(
    run_steps: Callable[..., tuple[TrainState, Metrics]],
    per_call: int,
    start: Progress,
    key: Array,
    x: Array,
    c: Conditions,
    training: Training,
    validate: Callable[[Params], Metrics] | None = None,
) -> Iterator[Progress]:
    """The loop over epochs, see `epochs`: of one model, or of several side by side (`sweeps`).

    States, keys and metrics of several have a leading axis.
    """
    is_group = key.ndim > 0
    mesh = mesh_for(training.batch_size, len(key) if is_group else 1)
    state, key = put(mesh, (start.state, key), *[MEMBER] * is_group)
    (x, c), run_steps = put(mesh, (x, c)), on(mesh, run_steps)
    best, history = start.best, list(start.history)
    shuffle, fold_in = partial(shuffled, size=x.shape[0], batch_size=training.batch_size), jax.random.fold_in
    if is_group:
        shuffle, fold_in = jax.vmap(shuffle), jax.vmap(fold_in, (0, None))
    while not ended(training, history):
        number, began = len(history) + 1, time.perf_counter()
        epoch_key = fold_in(key, number)
        order = np.asarray(shuffle(epoch_key))
        state, metrics = _epoch(run_steps, per_call, state, epoch_key, x, c, order)
        seconds = time.perf_counter() - began
        train = _finite_means(metrics, state.params, number)
        scores = validate(state.result) if validate else None
        first = np.asarray(metrics.loss)[..., 0].tolist()
        history = [*history, Epoch(number, train, scores, first, seconds, x.shape[0] / seconds)]
        if training.patience is not None and best_epoch(history) == number:
            best = state.result
        yield Progress(state, best, history, training)


def _epoch(
    run_steps: Callable[..., tuple[TrainState, Metrics]],
    per_call: int,
    state: TrainState,
    key: Array,
    x: Array,
    c: Conditions,
    order: np.ndarray,
) -> tuple[TrainState, Metrics]:
    """The state after an epoch, and the metrics of its steps on the host.  Shapes: order [..., steps, batch]."""
    parts: list[Metrics] = []
    for first in range(0, order.shape[-2], per_call):
        state, metrics = run_steps(state, key, x, c, order[..., first : first + per_call, :], first)
        # One call ahead of the device at most: it is never idle, and Ctrl-C waits for no more than two.
        parts.append(metrics)
        jax.block_until_ready(parts[-2:-1])  # type: ignore[no-untyped-call]
    return state, jax.tree.map(lambda *values: np.concatenate(values, axis=-1), *parts)  # waits for the device


def _drawn_once(condition: Condition, x: Any, c: Any, training: Training, part: str) -> tuple[Any, Any]:
    """Pixels drawn 0 or 1 where they are to be drawn once: static targets, and those of validation."""
    if training.binarization == "none" or (training.binarization == "dynamic" and part == "train"):
        return x, c
    x = binarize(BINARIZATION_SEEDS[part], x).astype(np.float32)
    return x, condition.with_target(x, c)


def _finite_means(metrics: Metrics, params: Params, number: int) -> Metrics:
    """The means of an epoch's metrics; raises FloatingPointError if a loss or a parameter is not finite."""
    wrong = np.argwhere(~np.isfinite(metrics.loss))
    if len(wrong) > 0:
        value, place = np.asarray(metrics.loss)[tuple(wrong[0])], wrong[0][-1] + 1
        member = f" of member {wrong[0][0] + 1} of the group" if metrics.loss.ndim > 1 else ""  # type: ignore[attr-defined]
        raise FloatingPointError(f"the loss{member} in epoch {number}, step {place} is {value}; {REMEDY}")
    if not all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):  # spoilt by the last step
        raise FloatingPointError(f"the parameters after epoch {number} are not finite; {REMEDY}")
    return Metrics(*(np.mean(values, axis=-1, dtype=np.float64).tolist() for values in metrics))


def _validate(model: CVAE, key: Array, x: Any, c: Any, proposal: str, params: Params) -> Metrics:
    terms = evaluate(model, params, key, x, c, proposal=proposal)
    return Metrics(float(-terms.value.mean()), float(terms.log_likelihood.mean()), float(terms.kl.mean()))


def best_epoch(history: list[Epoch]) -> int:
    """The number of the first epoch whose validation loss is lowest; 0 where none was validated."""
    losses = [epoch.validation.loss if epoch.validation else math.inf for epoch in history]
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return finite.index(min(finite)) + 1 if history and min(finite) < math.inf else 0


def ended(training: Training, history: list[Epoch]) -> bool:
    """Whether a fit is over: all epochs are done, or none of the last `patience` was better."""
    count, patience = len(history), training.patience
    return count >= training.epochs or (patience is not None and count - best_epoch(history) >= patience)


def notes_on(history: list[Epoch]) -> list[str]:
    """What a user should know of a fit: a loss that ends clearly higher than it was before training."""
    if not history:
        return []
    last, first = history[-1].train.loss, history[0].first_loss
    if last <= first + 1 + 0.1 * abs(first):  # the loss before training is that of one batch
        return []
    return [f"the loss is {last:.6g} after training, where it was {first:.6g} before: {REMEDY}"]


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
        x: training examples, [N, *event], on the host or a device.
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
    run = epochs(model, params, key, x, c, training, **options)
    result, history = (params.result, params.history) if isinstance(params, Progress) else (params, [])
    with Bar("fit", training.epochs, len(history), disable=not progress) as bar:
        try:
            for current in run:
                result, history = current.result, current.history
                bar.epoch(history[-1])
        except KeyboardInterrupt:
            done = f"{len(history)} of {training.epochs} epochs"
            warnings.warn(f"interrupted after {done}; their parameters are returned", stacklevel=2)
    for note in (notes := notes_on(history)):
        warnings.warn(note, stacklevel=2)
    return Fitted(result, history, notes)
