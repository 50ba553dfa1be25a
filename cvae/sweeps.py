"""Sweeps: many models of one architecture, trained by one compiled program.

What they vary are arrays: the latent size as a mask over the widest latent, the seed as a key, beta and the learning
rate as hyperparameters. What decides the program - condition, widths, batch size - they share. One by one they are
plain fits of `masked(model)`; side by side, the `vmap` of the same training step.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae import checks
from cvae.config import Sweep, Training
from cvae.devices import MEMBER
from cvae.fitting import Fitted, epochs, prepare
from cvae.keys import named
from cvae.loop import Progress, check_resumed, iterate, notes_on, steps_per_call
from cvae.model import CVAE, masked
from cvae.networks import Params
from cvae.settings import replace
from cvae.streamed import on_disk
from cvae.training import Metrics, init_state, static_settings, train_steps


class Member(NamedTuple):
    """One model of a sweep."""

    latent_size: int
    seed: int
    beta: float
    learning_rate: float

    @property
    def name(self) -> str:
        """Its name among the others: `z08_seed0_beta1_lr0.001`."""
        return f"z{self.latent_size:02d}_seed{self.seed}_beta{self.beta:.12g}_lr{self.learning_rate:.12g}"

    def training(self, shared: Training) -> Training:
        """The settings that all share, with its own beta and learning rate."""
        return replace(shared, beta=self.beta, learning_rate=self.learning_rate)

    def init(self, model: CVAE) -> tuple[Params, Array]:
        """Parameters of `masked(model)`, and the key of its fit."""
        key = jax.random.key(self.seed)
        return _init(model, self.latent_size, key), key


def members(sweep: Sweep) -> list[Member]:
    """Every combination of a sweep's axes."""
    axes = (sweep.latent_sizes, sweep.seeds, sweep.betas, sweep.learning_rates)
    return [Member(*values) for values in itertools.product(*axes)]


@partial(jax.jit, static_argnums=0)
def _init(model: CVAE, latent_size: Array | int, key: Array) -> Params:
    assert model.architecture is not None
    params = model.init(named(key, "init"))
    mask = jnp.arange(model.architecture.latent_size) < latent_size
    return {"mask": mask.astype(jax.tree.leaves(params)[0].dtype), "model": params}


def parallel_members() -> int:
    """How many to train side by side by default: 1 on a CPU, all of them on an accelerator.

    A CPU is busy with one model's matrix products, and its caches suffer from more; an accelerator is not.
    """
    return 1 if jax.default_backend() == "cpu" else sys.maxsize


def group_epochs(
    model: CVAE,
    group: list[Member],
    x: Any,
    c: Any,
    training: Training = Training(),
    start: Progress | None = None,
    *,
    within: bool = False,
) -> Iterator[Progress]:
    """Train members of a sweep side by side, epoch by epoch, as `fitting.epochs` does for one model.

    A lone member is a plain fit: a batched matrix product of one costs a CPU twice the time of the product.

    Args:
        model: the widest of them, from `make`; each member uses its first latents.
        group: the members; their betas and learning rates replace those of `training`.
        x: training examples, [N, *event].
        c: their conditions.
        training: the settings that they share.
        start: the progress of the same group, to go on with.
        within: as in `fitting.epochs`.

    Yields:
        The progress after every epoch; of several members, with a leading axis in every array, and lists in `history`.

    Raises:
        ValueError: a member is wider than the model, or the settings call for early stopping or frozen parts.
    """
    _check(masked(model), group, training)
    if len(group) == 1:
        params, key = group[0].init(model)
        return epochs(masked(model), start or params, key, x, c, group[0].training(training), within=within)
    in_memory = not on_disk(x, c)
    checks.require(in_memory, "x and c", "be in memory for members side by side (parallel=1)", "arrays on disk")
    inits = [member.init(model) for member in group]
    states = [init_state(params, member.training(training)) for (params, _), member in zip(inits, group, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    keys = jnp.stack([named(key, "training") for _, key in inits])
    prepared = prepare(masked(model), inits[0][0], inits[0][1], x, c, training, None, None)
    run_steps = _side_by_side(prepared.model, static_settings(training), prepared.augment)
    start = start or Progress(stacked, None, [], training)
    check_resumed(start, training)
    per_call = steps_per_call(model, prepared.x.shape[0] // training.batch_size)
    calls = iterate(run_steps, per_call, start, keys, prepared.x, prepared.c, training)
    return calls if within else (progress for progress in calls if progress.part is None)


@cache
def _side_by_side(model: CVAE, training: Training, augment: Any) -> Any:
    """The training step of a group, compiled once for all groups of a size."""

    def run_steps(*arguments: Any, steps: int) -> Any:
        step = partial(train_steps, model, training, steps=steps, augment=augment)
        return jax.vmap(step, (0, 0, None, None, 0, None), spmd_axis_name=MEMBER)(*arguments)

    return jax.jit(run_steps, static_argnames="steps")


def _check(model: CVAE, group: list[Member], training: Training) -> None:
    checks.require(len(group) > 0, "group", "have at least one member", "none")
    checks.require(training.patience is None, "patience", "be None in a sweep", training.patience)
    checks.require(not training.frozen, "frozen", "be empty in a sweep", training.frozen)
    widest = model.architecture.latent_size if model.architecture else 0
    for member in group:
        rule = f"be in [1, {widest}], the width of the model"
        checks.require(1 <= member.latent_size <= widest, "latent_size", rule, member.latent_size)


def split(progress: Progress, group: list[Member]) -> list[Progress]:
    """The progress of each member of a group."""
    if len(group) == 1:
        return [progress]

    def metrics(values: Metrics, i: int) -> Metrics:
        return Metrics(*(value[i] for value in values))  # type: ignore[index]

    return [
        progress._replace(
            state=jax.tree.map(lambda leaf, i=i: leaf[i], progress.state),
            history=[
                epoch._replace(train=metrics(epoch.train, i), first_loss=np.asarray(epoch.first_loss)[i].item())
                for epoch in progress.history
            ],
        )
        for i in range(len(group))
    ]


def fit_members(
    model: CVAE, chosen: list[Member], x: Any, c: Any, training: Training = Training(), parallel: int | None = None
) -> list[Fitted]:
    """Train members of a sweep to their end, `parallel` of them side by side; see `group_epochs`.

    A member's result does not depend on the others up to rounding. A last group that is too small is filled up.
    """
    _check(masked(model), chosen, training)
    parallel = parallel_members() if parallel is None else checks.integer("parallel", parallel)
    parallel = min(parallel, len(chosen))
    fitted = []
    for first in range(0, len(chosen), parallel):
        group = chosen[first : first + parallel]
        filled = group + [group[-1]] * (parallel - len(group))
        for progress in group_epochs(model, filled, x, c, training):
            last = progress
        for one in split(last, filled)[: len(group)]:
            fitted.append(Fitted(one.result, one.history, notes_on(one.history)))
    return fitted
