"""The training step: compiled optimiser steps, an epoch or a part of one at a time.

`loop` calls it epoch by epoch; a sweep is the `vmap` of this step. Every key is derived from the epoch's, by the
number of the step, so an epoch is a pure function of its arguments, in however many calls it is computed.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from cvae.conditions import Conditions
from cvae.config import Training
from cvae.data.augmentation import Augment
from cvae.devices import spread
from cvae.model import CVAE
from cvae.networks import Params
from cvae.objectives import hybrid, log_weights
from cvae.settings import replace

UNROLLED_FROM = 20  # steps per call


class Hyperparams(NamedTuple):
    """Traced hyperparameters; changing them does not recompile, and a sweep varies them."""

    learning_rate: Array
    beta: Array


class TrainState(NamedTuple):
    """What a training step changes, and the traced hyperparameters, which it does not."""

    step: Array  # steps taken
    params: Params
    opt_state: Any
    ema: Params | None  # exponential moving average of the parameters, if there is one
    hyperparams: Hyperparams

    @property
    def result(self) -> Params:
        """The parameters to use: the moving average, if there is one."""
        return self.params if self.ema is None else self.ema


class Metrics(NamedTuple):
    """Means over examples, in nats per example."""

    loss: float  # -value of the objective; down is good
    log_likelihood: float
    kl: float


def default_optimizer(training: Training, steps: int) -> optax.GradientTransformation:
    """Adam or AdamW for a learning rate of 1, which `train_steps` multiplies by; `steps` are those of an epoch."""
    total = max(2, training.epochs * steps)  # a step to rise and a step to fall: Optax refuses less
    schedules = {
        "constant": lambda: optax.constant_schedule(1.0),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, total),
        "warmup_cosine": lambda: optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, total // 20), total),
    }
    parts = [optax.scale_by_adam()]
    if training.clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(training.clip_norm))
    if training.weight_decay > 0:
        parts.append(optax.add_decayed_weights(training.weight_decay, mask=partial(jax.tree.map, lambda p: p.ndim > 1)))
    return optax.chain(*parts, optax.scale_by_schedule(schedules[training.schedule]()))


def init_state(params: Params, training: Training, optimizer: optax.GradientTransformation | None = None) -> TrainState:
    """The state before the first step, with the hyperparameters of `training`."""
    dtype = jax.tree.leaves(params)[0].dtype
    optimizer = optimizer or default_optimizer(training, 1)  # the number of steps changes no state
    ema = jax.tree.map(jnp.array, params) if training.ema_decay > 0 else None
    traced = Hyperparams(jnp.asarray(training.learning_rate, dtype), jnp.asarray(training.beta, dtype))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema, traced)


@partial(jax.jit, static_argnames=("size", "batch_size"))
def shuffled(key: Array, size: int, batch_size: int) -> Array:
    """Which examples each step of an epoch takes, in random order, [steps, batch]; `key` is the epoch's.

    Where the batch size does not divide the number of examples, the last few of the order are left out.
    """
    steps = size // batch_size
    return jax.random.permutation(jax.random.split(key)[0], size)[: steps * batch_size].reshape(steps, batch_size)


@partial(jax.jit, static_argnames=("model", "training", "steps", "augment", "optimizer"))
def train_steps(
    model: CVAE,
    training: Training,
    state: TrainState,
    key: Array,
    x: Array,
    c: Conditions,
    rows: Array | None,
    first: Array | int = 0,
    *,
    steps: int,
    augment: Augment,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[TrainState, Metrics]:
    """Steps of an epoch, all or a part of them, as one compiled scan; a sweep is its `vmap` over states and keys.

    Args:
        model: the model.
        training: the settings; `static_settings` of them decide the compiled program.
        state: where to start.
        key: of this epoch.
        x: examples [N, *event], already checked; or batches of them, [count, batch, *event].
        c: their conditions.
        rows: which examples each of the steps takes, int [count, batch], all or a part of `shuffled(key, ...)`; None
            where x and c are batches.
        first: the number of the first of these steps in the epoch.
        steps: of the whole epoch.
        augment: called on every batch.
        optimizer: an Optax optimiser of the user's own, in place of the default one and its learning rate.

    Returns:
        The new state, and the metrics of every step, each [count].
    """
    transform, steps_key = optimizer or default_optimizer(training, steps), jax.random.split(key)[1]
    batches = (x, dict(c)) if rows is None else rows
    numbers = first + jnp.arange(jax.tree.leaves(batches)[0].shape[0])
    # In the loop they would be several small kernels of every step.
    keys = jax.vmap(lambda number: jax.random.split(jax.random.fold_in(steps_key, number)))(numbers)

    def step(state: TrainState, inputs: tuple[Array, Any]) -> tuple[TrainState, Metrics]:
        (augment_key, key), batch = inputs[0], spread(inputs[1])
        if rows is not None:
            batch = spread(jax.tree.map(lambda values: values[batch], (x, dict(c))))
        beta = state.hyperparams.beta
        if training.beta_warmup > 0:
            beta = beta * jnp.minimum(1.0, state.step.astype(beta.dtype) / (training.beta_warmup * steps))
        augmented = augment(augment_key, *batch)
        gradient, metrics = jax.grad(_loss, has_aux=True)(state.params, model, training, key, *augmented, beta)
        rate = state.hyperparams.learning_rate if optimizer is None else None
        return _updated(state, gradient, transform, rate, training), metrics

    # Two steps per iteration: XLA then updates the weights in place instead of copying them first. It compiles twice as
    # much for that, which few steps do not earn back.
    return lax.scan(step, state, (keys, batches), unroll=2 if len(numbers) >= UNROLLED_FROM else 1)


def _updated(
    state: TrainState,
    gradient: Params,
    transform: optax.GradientTransformation,
    learning_rate: Array | None,
    training: Training,
) -> TrainState:
    """The state after a step; the learning rate is None where the optimiser has its own."""
    with jax.numpy_dtype_promotion("standard"):  # Optax raises floats to the power of integer counts
        updates, opt_state = transform.update(gradient, state.opt_state, state.params)
    if learning_rate is not None:
        updates = jax.tree.map(lambda update: -learning_rate * update, updates)
    # Weight decay would change what has no gradient.
    updates = dict(updates) | {name: jax.tree.map(jnp.zeros_like, updates[name]) for name in training.frozen}
    params = optax.apply_updates(state.params, updates)
    ema = None if state.ema is None else _moving_average(state.ema, params, state.step, training.ema_decay)
    return TrainState(state.step + 1, params, opt_state, ema, state.hyperparams)


def _loss(
    params: Params, model: CVAE, training: Training, key: Array, x: Array, c: Conditions, beta: Array
) -> tuple[Array, Metrics]:
    """The loss of a batch, and its metrics."""
    params = {name: lax.stop_gradient(part) if name in training.frozen else part for name, part in params.items()}
    if training.objective == "iwae":
        weights = log_weights(model, params, key, x, c, num_samples=training.num_samples)
        value = jax.nn.logsumexp(weights.value, axis=0) - math.log(training.num_samples)
        log_likelihood, kl = weights.log_likelihood, weights.log_ratio
    else:
        terms = hybrid(
            model, params, key, x, c, weight=training.hybrid_weight, num_samples=training.num_samples, beta=beta,
            free_bits=training.free_bits,
        )  # fmt: skip
        value, log_likelihood, kl = terms.value, terms.log_likelihood, terms.kl
    loss = -value.mean()
    return loss, Metrics(loss, log_likelihood.mean(), kl.mean())  # type: ignore[arg-type]


def _moving_average(ema: Params, params: Params, step: Array, decay: float) -> Params:
    """The average after a step; the first steps count for more, so that the random start is soon forgotten."""
    count = step.astype(jax.tree.leaves(params)[0].dtype)
    decay_now = jnp.minimum(decay, (1 + count) / (10 + count))
    return optax.incremental_update(params, ema, 1 - decay_now)  # type: ignore[no-any-return]


def static_settings(training: Training) -> Training:
    """The settings that decide the compiled program; the others are set to values that do not matter."""
    scheduled = training.schedule != "constant"
    return replace(training, learning_rate=1.0, beta=1.0, patience=None, epochs=training.epochs if scheduled else 1)
