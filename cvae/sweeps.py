"""Sweeps: many members of one architecture, trained by one compiled program.

What members vary are arrays: the latent size as a mask over the widest latent, the seed as a key, beta and the
learning rate as numbers. What decides the program - condition, widths, batch size - they share.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm.auto import tqdm

from cvae import checks, networks
from cvae.conditions import Conditions
from cvae.config import Sweep, Training
from cvae.evaluation import Terms
from cvae.model import CVAE, masked
from cvae.networks import Params
from cvae.preparation import Prepare
from cvae.training import (
    Knobs,
    State,
    check_finite,
    check_fit,
    drawn_once,
    means,
    noisy_preparation,
    one_epoch,
    recipe,
    start,
)


class Member(NamedTuple):
    """One point of a sweep."""

    latent_size: int
    seed: int
    beta: float
    learning_rate: float

    @property
    def name(self) -> str:
        """Tells it from every other member: `z08_seed0_beta1_lr0.001`."""
        return f"z{self.latent_size:02d}_seed{self.seed}_beta{self.beta:.12g}_lr{self.learning_rate:.12g}"


class Trained(NamedTuple):
    """What became of one member."""

    member: Member
    params: Params  # of `masked(model)`
    history: list[Terms]  # an epoch each
    seconds: float  # its share of the time of those trained with it, compilation included


class Progress(NamedTuple):
    """Members that are trained side by side, after an epoch: all that decides how they go on."""

    states: State  # every array with a leading axis of members
    history: list[list[Terms]]  # an epoch each, a member each
    seconds: float  # so far


def members(sweep: Sweep) -> list[Member]:
    """Every combination of a sweep's axes."""
    axes = (sweep.latent_sizes, sweep.seeds, sweep.betas, sweep.learning_rates)
    return [Member(*values) for values in itertools.product(*axes)]


def side_by_side() -> int:
    """How many members to run at once where nothing is said: 1 on a CPU, all of them on an accelerator.

    A CPU is kept busy by one member's matrix products, and its caches suffer from more; an accelerator is not.
    """
    return 1 if jax.default_backend() == "cpu" else sys.maxsize


@partial(jax.jit, static_argnames=("model", "training"))
def begin(model: CVAE, masks: Array, seeds: Array, training: Training) -> State:
    """The states of members before their first step, [M, ...]: own seeds, and 0 for every weight of a masked latent.

    Shapes: masks [M, Z] of 0 and 1, seeds [M] -> a State whose arrays have a leading axis M.
    """

    def one(mask: Array, seed: Array) -> State:
        params = model.init(jax.random.fold_in(jax.random.key(seed), 0))
        return start({"mask": mask, "model": networks.prune(params["model"], mask)}, training)

    return jax.vmap(one)(masks, seeds)


@partial(jax.jit, static_argnames=("model", "recipe", "prepare"), donate_argnames="states")
def epochs(
    model: CVAE,
    states: State,
    keys: Array,
    x: Array,
    c: Conditions,
    knobs: Knobs,
    *,
    recipe: Training,
    prepare: Prepare,
) -> tuple[State, Array]:
    """One epoch of M members side by side; see `training.epoch`.

    Shapes: states and knobs with a leading axis M, keys [M] -> the new states, and `Terms` at every step, [M, S, 3].
    """

    def one(state: State, key: Array, knobs: Knobs) -> tuple[State, Array]:
        return one_epoch(model, state, key, x, c, knobs, recipe=recipe, prepare=prepare)

    # A lone member goes without an axis of length 1: a batch of one matrix product costs a CPU twice the time of the
    # product. Several batches in one call (`lax.map`) would be a loop around the loop over steps, and cost as much.
    if len(keys) == 1:
        state, terms = one(*jax.tree.map(lambda leaf: leaf[0], (states, keys, knobs)))
        return jax.tree.map(lambda leaf: leaf[None], (state, terms))  # type: ignore[no-any-return]
    return jax.vmap(one)(states, keys, knobs)


def fit_members(
    model: CVAE,
    chosen: list[Member],
    x: Any,
    c: Any,
    training: Training = Training(),
    *,
    at_once: int | None = None,
    prepare: Prepare | None = None,
    on_trained: Callable[[Trained], None] | None = None,
    on_epoch: Callable[[list[Member], Progress], None] | None = None,
    resume: Callable[[list[Member]], Progress | None] = lambda group: None,
    progress: bool | tqdm = True,
    name: str = "sweep",
) -> list[Trained]:
    """Train members of one architecture, all by the same compiled program.

    Members are trained in groups of `at_once`, a group to its end before the next one starts, so what is finished
    can be kept. A last group that is too small is filled up with a member that is then dropped.

    Args:
        model: the widest of them, from `make`; each member uses its first latents only.
        chosen: the members; their betas and learning rates replace those of `training`.
        x: training examples as stored, [N, *event].
        c: their raw conditions.
        training: what they share.
        at_once: how many run side by side; 1 on a CPU and all on an accelerator if left out.
        prepare: as in `fit`.
        on_trained: called with each finished member, to keep it.
        on_epoch: called with those trained side by side and their `Progress` after each epoch, to save it. What it
            raises ends the training.
        resume: says of those to be trained side by side from where they go on; None is from the start.
        progress: draw a bar with the time left, or advance the one given by one an epoch of a member.
        name: what the bar is called.

    Raises:
        ValueError: there is no member, one is wider than the model or out of a sweep's range, examples do not suit the
            model, or the settings ask for early stopping, which members in lockstep cannot have, or for frozen parts.
        FloatingPointError: the loss or a parameter of a member is not finite; names it.
    """
    check_fit(model, x, c, training)
    checks.require(len(chosen) > 0, "chosen", "name at least one member", "none")
    checks.require(training.patience is None, "patience", "be None in a sweep", training.patience)
    checks.require(not training.frozen, "frozen", "be empty in a sweep", training.frozen)
    at_once = side_by_side() if at_once is None else at_once
    checks.whole_number("at_once", at_once)
    at_once, inert = min(at_once, len(chosen)), masked(model)
    assert model.architecture is not None
    widest = model.architecture.latent_size
    for member in chosen:
        checks.whole_number("latent_size", member.latent_size)
        fits = member.latent_size <= widest
        checks.require(fits, "latent_size", f"be in [1, {widest}], as wide as the model", member.latent_size)
        checks.seed("seed", member.seed)
        checks.positive_number("beta", member.beta)
        checks.positive_number("learning_rate", member.learning_rate)
    x, _ = drawn_once(jax.random.key(0), x, None, training.targets)
    x, c = jax.device_put((x, dict(c)))
    prepare = prepare or noisy_preparation(model, training)
    bar = (
        progress
        if isinstance(progress, tqdm)
        else tqdm(total=len(chosen) * training.epochs, desc=name, unit="epoch", disable=not progress)
    )
    trained = []
    for first in range(0, len(chosen), at_once):
        group = chosen[first : first + at_once]
        filled = group + [group[-1]] * (at_once - len(group))
        for one in _fit_group(inert, filled, x, c, training, prepare, bar, resume(filled), on_epoch)[: len(group)]:
            trained.append(one)
            if on_trained is not None:
                on_trained(one)
    if bar is not progress:
        bar.close()
    return trained


def _fit_group(
    model: CVAE,
    group: list[Member],
    x: Array,
    c: Conditions,
    training: Training,
    prepare: Prepare,
    bar: tqdm,
    resume: Progress | None,
    on_epoch: Callable[[list[Member], Progress], None] | None,
) -> list[Trained]:
    assert model.architecture is not None
    masks = np.arange(model.architecture.latent_size) < np.array([[member.latent_size] for member in group])
    seeds = np.array([member.seed for member in group], np.uint32)
    knobs = Knobs(*(jnp.array([getattr(member, knob) for member in group]) for knob in Knobs._fields))
    program, began = recipe(training), time.perf_counter()
    if resume is None:
        states, history, before = begin(model, masks.astype(np.float32), seeds, program), [], 0.0
    else:
        states, history, before = jax.tree.map(jnp.array, resume.states), list(resume.history), resume.seconds
    bar.update(len(history) * len(set(group)))
    for number in range(len(history) + 1, training.epochs + 1):
        states, terms = epochs(model, states, _keys(seeds, number), x, c, knobs, recipe=program, prepare=prepare)
        terms = np.asarray(terms)  # waits for the device
        history.append([means(row, number, f" of {member.name}") for member, row in zip(group, terms, strict=True)])
        params = jax.tree.map(np.asarray, states.params)
        for i, member in enumerate(group):
            check_finite(jax.tree.map(lambda leaf, i=i: leaf[i], params), number, f" of {member.name}")
        if on_epoch is not None:
            on_epoch(group, Progress(states, list(history), before + time.perf_counter() - began))
        bar.update(len(set(group)))
    seconds = (before + time.perf_counter() - began) / len(set(group))
    return [
        Trained(
            member,
            jax.tree.map(lambda leaf, i=i: leaf[i], states.result),
            [of_epoch[i] for of_epoch in history],
            seconds,
        )
        for i, member in enumerate(group)
    ]


@jax.jit
def _keys(seeds: Array, number: Array | int) -> Array:
    """The keys of an epoch, [M]: from a member's own seed, so that its result does not depend on its company."""
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), number))(seeds)
