"""Training: an Optax loop whose epoch is one compiled scan over a data set that lives on the device.

The host wakes up between epochs to log and to draw the bar. Every key comes from the one given, by the number of
the epoch and of the step, so a fit is a pure function of its arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from tqdm.auto import tqdm

from cvae import checks
from cvae.conditions import Conditions
from cvae.config import Training
from cvae.evaluation import Terms, evaluate, mean_terms
from cvae.model import CVAE, check_examples
from cvae.networks import Params
from cvae.objectives import elbo
from cvae.preparation import Prepare, prepare


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


class State(NamedTuple):
    """What a step changes."""

    params: Params
    optimiser: Any


def _adam(learning_rate: Array | float) -> optax.GradientTransformation:
    # The learning rate lives in the optimiser's state as an array, so a change of it compiles nothing again.
    return optax.inject_hyperparams(optax.adam)(learning_rate=learning_rate)


def start(params: Params, learning_rate: Array | float) -> State:
    """The state before the first step. Copies the parameters: the epochs consume the buffers of their state."""
    params = jax.tree.map(jnp.array, params)
    return State(params, _adam(learning_rate).init(params))


@partial(jax.jit, static_argnames=("model", "batch_size", "num_samples", "prepare"), donate_argnames="state")
def epoch(
    model: CVAE,
    state: State,
    key: Array,
    x: Array,
    c: Conditions,
    beta: Array | float,
    *,
    batch_size: int,
    num_samples: int = 1,
    prepare: Prepare = prepare,
) -> tuple[State, Array]:
    """One pass over the examples in a fresh random order, as one compiled scan of Adam steps.

    Where `batch_size` does not divide the number of examples, the last few of the order sit this epoch out.

    Shapes: x [N, *event] as stored, c of length N -> the new state, and the means of the fields of `Terms`, [3].
    The buffers of `state` are donated: use what is returned.
    """
    order_key, steps_key = jax.random.split(key)
    steps = x.shape[0] // batch_size
    order = jax.random.permutation(order_key, x.shape[0])[: steps * batch_size].reshape(steps, batch_size)

    def loss(params: Params, key: Array, rows: Array) -> tuple[Array, Array]:
        prepare_key, elbo_key = jax.random.split(key)
        batch = prepare(prepare_key, x[rows], {name: value[rows] for name, value in c.items()})
        terms = elbo(model, params, elbo_key, *batch, num_samples=num_samples, beta=beta)
        loss = -terms.value.mean()
        return loss, jnp.stack([loss, terms.log_likelihood.mean(), terms.kl.mean()])

    def step(state: State, inputs: tuple[Array, Array]) -> tuple[State, Array]:
        number, rows = inputs
        key = jax.random.fold_in(steps_key, number)
        gradient, terms = jax.grad(loss, has_aux=True)(state.params, key, rows)
        # Only the update of an optimiser built with any rate: the rate itself is read from its state.
        updates, optimiser = _adam(0.0).update(gradient, state.optimiser, state.params)
        return State(optax.apply_updates(state.params, updates), optimiser), terms

    # Two steps a turn: XLA then updates the weights where they lie instead of copying them first.
    state, terms = lax.scan(step, state, (jnp.arange(steps), order), unroll=2)
    return state, terms.mean(axis=0)


def check_fit(model: CVAE, x: Any, c: Any, training: Training) -> None:
    """The door of `fit`: refuse examples that do not suit the model, or fewer of them than a batch.

    Raises: ValueError.
    """
    check_examples(model, x, c)
    size, batch = x.shape[0], training.batch_size
    checks.require(size >= batch, "x", f"hold at least one batch, {batch} examples", f"{size} examples")


def fit(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    training: Training = Training(),
    *,
    validation: tuple[Any, Any] | None = None,
    prepare: Prepare = prepare,
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: bool = True,
    name: str = "fit",
) -> Fitted:
    """Fit a model by Adam on the negative ELBO; the same arguments give the same parameters, bit for bit.

    Args:
        model: the functions to fit.
        params: where to start; left as they are.
        key: the source of all randomness.
        x: training examples as stored, on the host or the device, [N, *event] uint8 or floats in [0, 1].
        c: their raw conditions, arrays of length N.
        training: epochs, batch size, learning rate, beta, Monte Carlo samples.
        validation: (x, c) scored after every epoch; it decides nothing here.
        prepare: from stored to (x, c), run inside the step and on the validation set.
        on_epoch: called with each finished `Epoch`, to log it.
        progress: draw a bar with the loss and examples per second; False is silent.
        name: what the bar is called.

    Raises:
        ValueError: examples that do not suit the model, or fewer of them than a batch.
        FloatingPointError: the loss of an epoch is not finite.
    """
    check_fit(model, x, c, training)
    size = x.shape[0]
    if validation is not None:
        check_examples(model, *validation)
    x, c = jax.device_put((x, c))
    state = start(params, training.learning_rate)
    history = []
    with tqdm(total=training.epochs * size, desc=name, unit="ex", unit_scale=True, disable=not progress) as bar:
        for number in range(1, training.epochs + 1):
            train_key, validation_key = jax.random.split(jax.random.fold_in(key, number))
            began = time.perf_counter()
            state, terms = epoch(
                model,
                state,
                train_key,
                x,
                c,
                training.beta,
                batch_size=training.batch_size,
                num_samples=training.num_samples,
                prepare=prepare,
            )
            train = Terms(*map(float, terms))  # waits for the device, so the clock is read after the work
            seconds = time.perf_counter() - began
            if not jnp.isfinite(train.loss):
                raise FloatingPointError(f"the loss of epoch {number} is {train.loss}; try a lower learning_rate")
            valid = None
            if validation is not None:
                valid = mean_terms(evaluate(model, state.params, validation_key, *validation, prepare=prepare))
            history.append(Epoch(number, train, valid, seconds, size / seconds))
            if on_epoch is not None:
                on_epoch(history[-1])
            bar.set_postfix_str(f"loss {train.loss:.2f}" + (f", validation {valid.loss:.2f}" if valid else ""))
            bar.update(size)
    return Fitted(state.params, history)
