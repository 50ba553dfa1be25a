"""Training: an Optax loop whose epoch is one compiled scan over a data set that lives on the device.

The host wakes up between epochs to log and to draw the bar. Every key comes from the one given, by the number of
the epoch and of the step, so a fit is a pure function of its arguments.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from tqdm.auto import tqdm

from cvae import checks
from cvae.conditions import Conditions
from cvae.config import Training
from cvae.evaluation import Terms, evaluate, mean_terms
from cvae.model import CVAE, check_examples, default_preparation
from cvae.networks import Params
from cvae.objectives import hybrid, log_weights
from cvae.preparation import Prepare, binarise

UNROLLED_FROM = 20  # steps an epoch
REMEDY = "try a lower learning_rate, or a clip_norm such as 10"  # of what is not finite


class Epoch(NamedTuple):
    """What one epoch came to."""

    epoch: int  # counted from 1
    train: Terms  # running means over the epoch's steps, while the parameters moved
    validation: Terms | None  # after the epoch, where a validation set was given
    seconds: float  # of the training steps; the first epoch's include compilation
    examples_per_second: float


class Fitted(NamedTuple):
    """The result of a fit."""

    params: Params
    history: list[Epoch]


class Knobs(NamedTuple):
    """What is turned without compiling anything again, and what a sweep varies."""

    learning_rate: Array | float
    beta: Array | float


class State(NamedTuple):
    """What a step changes."""

    step: Array  # steps taken
    params: Params
    optimiser: Any
    average: Params | None  # moving average of the parameters, if there is one

    @property
    def result(self) -> Params:
        """The parameters to use: the average, if there is one."""
        return self.params if self.average is None else self.average


class Progress(NamedTuple):
    """A fit after an epoch: with the arguments of that fit, all that decides how it goes on."""

    state: State
    best: Params | None  # of the epoch that validated best, where patience is to decide
    history: list[Epoch]

    @property
    def result(self) -> Params:
        """The parameters to use: the best, if there are some."""
        return self.state.result if self.best is None else self.best


def recipe(training: Training) -> Training:
    """What of the settings decides the compiled program; the rest is set to what changes nothing."""
    scheduled = training.schedule != "constant"
    return replace(training, learning_rate=1.0, beta=1.0, patience=None, epochs=training.epochs if scheduled else 1)


def _optimiser(recipe: Training, steps: int) -> optax.GradientTransformation:
    """From the gradient to the update for a learning rate of 1, which is `_step`'s to multiply by."""
    total = max(2, recipe.epochs * steps)  # a step to rise and a step to fall: Optax refuses less
    schedules = {
        "constant": lambda: optax.constant_schedule(1.0),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, total),
        "warmup_cosine": lambda: optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, total // 20), total),
    }
    parts = [optax.scale_by_adam(), optax.scale_by_schedule(schedules[recipe.schedule]())]
    if recipe.weight_decay > 0:
        decay = optax.add_decayed_weights(recipe.weight_decay, mask=lambda tree: jax.tree.map(_is_matrix, tree))
        parts.insert(1, decay)
    if recipe.clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(recipe.clip_norm))
    return optax.chain(*parts)


def _is_matrix(leaf: Array) -> bool:
    return leaf.ndim > 1


def start(params: Params, training: Training) -> State:
    """The state before the first step. Copies the parameters: the epochs consume the buffers of their state."""
    params = jax.tree.map(jnp.array, params)
    average = jax.tree.map(jnp.array, params) if training.average > 0 else None
    # How many steps there will be changes no state.
    return State(jnp.zeros((), int), params, _optimiser(recipe(training), 1).init(params), average)


def one_epoch(
    model: CVAE,
    state: State,
    key: Array,
    x: Array,
    c: Conditions,
    knobs: Knobs,
    *,
    recipe: Training,
    prepare: Prepare,
) -> tuple[State, Array]:
    """One pass over the examples in a fresh random order, as one scan of optimiser steps; see `epoch`."""
    order_key, steps_key = jax.random.split(key)
    steps = x.shape[0] // recipe.batch_size
    order = jax.random.permutation(order_key, x.shape[0])[: steps * recipe.batch_size].reshape(steps, -1)
    optimiser = _optimiser(recipe, steps)

    def loss(params: Params, key: Array, rows: Array, beta: Array) -> tuple[Array, Array]:
        params = {name: lax.stop_gradient(part) if name in recipe.frozen else part for name, part in params.items()}
        prepare_key, key = jax.random.split(key)
        batch = prepare(prepare_key, x[rows], {name: value[rows] for name, value in c.items()})
        samples = recipe.num_samples
        if recipe.objective == "iwae":
            weights = log_weights(model, params, key, *batch, num_samples=samples)
            value, log_likelihood, kl = weights.bound, weights.log_likelihood, weights.log_ratio
        else:
            alpha, free_bits = recipe.alpha, recipe.free_bits
            terms = hybrid(model, params, key, *batch, alpha=alpha, num_samples=samples, beta=beta, free_bits=free_bits)
            value, log_likelihood, kl = terms.value, terms.log_likelihood, terms.kl
        loss = -value.mean()
        return loss, jnp.stack([loss, log_likelihood.mean(), kl.mean()])

    def step(state: State, inputs: tuple[Array, Array]) -> tuple[State, Array]:
        number, rows = inputs
        beta = jnp.asarray(knobs.beta)
        if recipe.beta_warmup > 0:
            beta = beta * jnp.minimum(1.0, state.step / (recipe.beta_warmup * steps))
        key = jax.random.fold_in(steps_key, number)
        gradient, terms = jax.grad(loss, has_aux=True)(state.params, key, rows, beta)
        updates, memory = optimiser.update(gradient, state.optimiser, state.params)
        updates = jax.tree.map(lambda update: -knobs.learning_rate * update, updates)
        # Weight decay would move what has no gradient.
        updates |= {name: jax.tree.map(jnp.zeros_like, updates[name]) for name in recipe.frozen}
        params = optax.apply_updates(state.params, updates)
        average = None
        if state.average is not None:
            # The first steps count for more, so that the random start is soon forgotten.
            decay = jnp.minimum(recipe.average, (1 + state.step) / (10 + state.step))
            average = optax.incremental_update(params, state.average, 1 - decay)
        return State(state.step + 1, params, memory, average), terms

    # Two steps a turn: XLA then updates the weights where they lie instead of copying them first. It compiles twice as
    # much for that, which a short epoch does not earn back.
    return lax.scan(step, state, (jnp.arange(steps), order), unroll=2 if steps >= UNROLLED_FROM else 1)


@partial(jax.jit, static_argnames=("model", "recipe", "prepare"), donate_argnames="state")
def epoch(
    model: CVAE,
    state: State,
    key: Array,
    x: Array,
    c: Conditions,
    knobs: Knobs,
    *,
    recipe: Training,
    prepare: Prepare,
) -> tuple[State, Array]:
    """One pass over the examples in a fresh random order, as one compiled scan of optimiser steps.

    Where the batch size does not divide the number of examples, the last few of the order sit this epoch out.
    `recipe` comes from the function of that name: only what decides the program.

    Shapes: x [N, *event] as stored, c of length N -> the new state, and the fields of `Terms` at every step, [S, 3].
    The buffers of `state` are donated: use what is returned.
    """
    return one_epoch(model, state, key, x, c, knobs, recipe=recipe, prepare=prepare)


def check_fit(model: CVAE, x: Any, c: Any, training: Training) -> None:
    """The door of `fit`: refuse examples that do not suit the model or the targets, or fewer of them than a batch.

    Raises: ValueError.
    """
    checks.require(isinstance(training, Training), "training", "be a Training", checks.shown(training))
    check_examples(model, x, c)
    size, batch = x.shape[0], training.batch_size
    checks.require(size >= batch, "x", f"hold at least one batch, {batch} examples", f"{size} examples")
    if training.targets != "grey" and x.dtype != "uint8":
        checks.unit_interval("x", x)
    checks.require(training.shift == 0 or x.ndim == 4, "shift", "be 0 where x is no picture (H, W, C)", training.shift)


def noisy_preparation(model: CVAE, training: Training) -> Prepare:
    """The preparation of training examples: what the model's condition asks for, with the noise of the settings."""
    noise = {name: getattr(training, name) for name in ("shift", "moved", "omission")}
    return default_preparation(model, training.targets, **noise)


def means(terms: Any, number: int, whose: str = "") -> Terms:
    """The means over an epoch's steps of the terms of its loss.

    Shapes: terms [S, 3].

    Raises:
        FloatingPointError: the loss of a step is not finite; names epoch and step, and what to change.
    """
    terms = np.asarray(terms, np.float64)
    wrong = np.flatnonzero(~np.isfinite(terms[:, 0]))
    if len(wrong) > 0:
        raise FloatingPointError(
            f"the loss{whose} in epoch {number}, step {wrong[0] + 1} is {terms[wrong[0], 0]}; {REMEDY}"
        )
    return Terms(*terms.mean(axis=0).tolist())


def check_finite(params: Params, number: int, whose: str = "") -> None:
    """Refuse parameters that an epoch's last step, of which no loss is known yet, has spoilt.

    Raises:
        FloatingPointError: one is not finite; names the epoch, and what to change.
    """
    finite = all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(params))
    if not finite:
        raise FloatingPointError(f"the parameters{whose} after epoch {number} are not finite; {REMEDY}")


def best_epoch(history: list[Epoch]) -> int:
    """The number of the first of the epochs whose validation loss is lowest; 0 where none was validated."""
    losses = [epoch.validation.loss if epoch.validation else math.inf for epoch in history]
    finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return finite.index(min(finite)) + 1 if history and min(finite) < math.inf else 0


def ended(training: Training, history: list[Epoch]) -> bool:
    """Whether a fit is over after these epochs: they are all, or for `patience` of them none was better."""
    count, patience = len(history), training.patience
    return count >= training.epochs or (patience is not None and count - best_epoch(history) >= patience)


def fit(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    training: Training = Training(),
    *,
    validation: tuple[Any, Any] | None = None,
    prepare: Prepare | None = None,
    on_epoch: Callable[[Progress], None] | None = None,
    resume: Progress | None = None,
    progress: bool = True,
    name: str = "fit",
) -> Fitted:
    """Fit a model by Adam on its objective; the same arguments give the same parameters, bit for bit.

    So does a fit that was stopped after some epoch and called again with the progress it had made.

    Args:
        model: the functions to fit.
        params: where to start; left as they are.
        key: the source of all randomness.
        x: training examples as stored, on the host or the device, [N, *event]: uint8, or floats in the
            likelihood's support.
        c: their raw conditions, arrays of length N.
        training: the settings; see `Training`.
        validation: (x, c) scored by its ELBO after every epoch, by that under the prior if `training.alpha` is 0. With
            `training.patience` it decides when to stop and which epoch's parameters are returned; otherwise it decides
            nothing.
        prepare: from stored to (x, c), run inside the step and on the validation set; what the model's condition and
            the training's targets, shift and omission ask for if left out, the latter two not on the validation set.
        on_epoch: called with the `Progress` after each epoch, to log its last one or to save it. Its arrays are those
            of the fit, which the next epoch consumes: copy what is to be kept. What it raises ends the fit.
        resume: go on from here, the progress of a fit with the same arguments, instead of from `params`.
        progress: draw a bar with the loss and examples per second; False is silent.
        name: what the bar is called.

    Raises:
        ValueError: examples that do not suit the model, or fewer of them than a batch; what is no key; patience
            without validation.
        FloatingPointError: the loss of a step, or a parameter after an epoch, is not finite.
    """
    check_fit(model, x, c, training)
    checks.key("key", key)
    if model.architecture is not None:
        checks.require(isinstance(params, dict), "params", "be those of model.init", f"a {type(params).__name__}")
    if validation is not None:
        is_pair = isinstance(validation, tuple | list) and len(validation) == 2
        checks.require(is_pair, "validation", "be a pair, (x, c)", f"a {type(validation).__name__}")
        check_examples(model, *validation)
    patience = training.patience
    checks.require(patience is None or validation is not None, "validation", "be given with patience", "None")
    x, validation = drawn_once(key, x, validation, training.targets)
    scored = prepare or default_preparation(model, training.targets)
    prepare = prepare or noisy_preparation(model, training)
    proposal = "prior" if training.alpha == 0 else "posterior"
    missing = set(training.frozen) - params.keys()
    checks.require(not missing, "frozen", f"name parts of the parameters, {list(params)}", sorted(missing))
    size, program = x.shape[0], recipe(training)
    knobs = Knobs(training.learning_rate, training.beta)
    x, c = jax.device_put((x, dict(c)))
    state = start(params, training) if resume is None else jax.tree.map(jnp.array, resume.state)
    best = None if resume is None else resume.best
    history: list[Epoch] = [] if resume is None else list(resume.history)
    # Every epoch is scored with the same draws, so that two epochs differ by their parameters alone.
    validation_key = jax.random.split(jax.random.fold_in(key, 0))[1]
    bar = tqdm(
        total=training.epochs * size,
        initial=len(history) * size,
        desc=name,
        unit="ex",
        unit_scale=True,
        disable=not progress,
    )
    with bar:
        while not ended(training, history):
            number = len(history) + 1
            train_key, _ = jax.random.split(jax.random.fold_in(key, number))
            began = time.perf_counter()
            state, steps = epoch(model, state, train_key, x, c, knobs, recipe=program, prepare=prepare)
            steps = np.asarray(steps)  # waits for the device, so the clock is read after the work
            seconds = time.perf_counter() - began
            train = means(steps, number)
            check_finite(state.params, number)
            valid = None
            if validation is not None:
                terms = evaluate(model, state.result, validation_key, *validation, proposal=proposal, prepare=scored)
                valid = mean_terms(terms)
            history.append(Epoch(number, train, valid, seconds, size / seconds))
            if patience is not None and best_epoch(history) == number:
                best = jax.tree.map(jnp.array, state.result)
            if on_epoch is not None:
                on_epoch(Progress(state, best, list(history)))
            bar.set_postfix_str(f"loss {train.loss:.2f}" + (f", validation {valid.loss:.2f}" if valid else ""))
            bar.update(size)
    return Fitted(Progress(state, best, history).result, history)


def drawn_once(key: Array, x: Any, validation: Any, targets: str) -> tuple[Any, Any]:
    """Draw black and white pixels where they are to be drawn only once: for training if static, always for validation.

    Shapes: x and validation as in `fit` -> the same, uint8 of 0 and 255 where they were drawn.
    """
    if targets == "grey":
        return x, validation
    pixel_key = jax.random.split(jax.random.fold_in(key, 0))[0]
    train_seed, validation_seed = (int(bits) for bits in jax.random.bits(pixel_key, (2,)))
    if targets == "static":
        x = binarise(train_seed, x)
    return x, validation and (binarise(validation_seed, validation[0]), validation[1])
