"""The loop over epochs: of one model (`fitting`), or of several side by side (`sweeps`).

An epoch is a sequence of compiled calls of `train_steps`. After each, the loop can be left and gone on with: keys are
derived from the one given by the numbers of the epoch and the step, so a fit that is resumed ends at the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cvae.conditions import Conditions
from cvae.config import Training
from cvae.devices import DATA, MEMBER, mesh_for, on, put
from cvae.model import CVAE
from cvae.networks import BODIES, Body, Params
from cvae.streamed import on_disk
from cvae.training import Metrics, TrainState, shuffled

AHEAD, READERS = 3, 2  # calls whose batches are read ahead, and threads that read
CALL_BYTES = 2**24  # of the batches of a call that are read from a disk, of which a few are in memory
REMEDY = "try a lower learning_rate, or a clip_norm such as 10"


class Epoch(NamedTuple):
    """What one epoch of training came to."""

    epoch: int  # counted from 1
    train: Metrics  # means over the epoch's steps, while the parameters changed
    validation: Metrics | None  # after the epoch, where a validation set was given
    first_loss: float  # of the epoch's first step; in the first epoch that is before any training
    seconds: float  # of the training steps; the first epoch's include compilation
    examples_per_second: float


class Part(NamedTuple):
    """How far an epoch has come that is not finished."""

    steps: int  # that were taken
    of: int  # steps of the epoch
    sums: Metrics  # over those steps
    first_loss: float
    seconds: float

    @property
    def means(self) -> Metrics:
        """Means over the steps that were taken."""
        return Metrics(*(np.divide(value, self.steps).tolist() for value in self.sums))


class Progress(NamedTuple):
    """A fit on its way: with the arguments of that fit, all that decides how it goes on."""

    state: TrainState
    best: Params | None  # of the epoch that validates best, where patience decides
    history: list[Epoch]
    training: Training  # the settings of the fit
    part: Part | None = None  # of the next epoch, where that has begun

    @property
    def result(self) -> Params:
        """The parameters to use: the best, if patience decides."""
        return self.state.result if self.best is None else self.best

    @property
    def epochs(self) -> float:
        """How many epochs are done, with the part of the one that is not finished."""
        return len(self.history) + (self.part.steps / self.part.of if self.part else 0)

    @property
    def place(self) -> str:
        """How far the fit has come, in words."""
        return f"epoch {len(self.history)}" + (f" and {self.part.steps:,} steps" if self.part else "")


def check_resumed(start: Progress, training: Training) -> None:
    """Refuse to go on with other settings; more epochs are possible where no schedule depends on them."""
    free = {"patience"} | ({"epochs"} if training.schedule == "constant" else set())
    for name, before in vars(start.training).items():
        if not name.startswith("_") and name not in free and before != (now := getattr(training, name)):
            raise ValueError(f"{name} must be as in the fit that is resumed, {before!r}, got {now!r}")


def steps_per_call(model: CVAE, steps: int, bytes_read: int = 0) -> int:
    """How many of an epoch's steps a compiled call computes.

    Many, because each call costs a millisecond; fewer where a step takes a CPU long, or reads many bytes from a disk.
    Equal parts of an epoch if there are any, so that only one program is compiled.
    """
    on_cpu = jax.default_backend() == "cpu"
    body = BODIES[model.architecture.body] if model.architecture and on_cpu else Body
    most = body.most_steps
    if bytes_read:
        most = min(most, max(1, CALL_BYTES // bytes_read))
    calls = -(-steps // most)
    even = (number for number in range(calls, 2 * calls + 1) if steps % number == 0)
    return -(-steps // next(even, calls))


def iterate(
    run_steps: Callable[..., tuple[TrainState, Metrics]],
    per_call: int,
    start: Progress,
    key: Array,
    x: Any,
    c: Conditions,
    training: Training,
    validate: Callable[[Params], Metrics] | None = None,
) -> Iterator[Progress]:
    """The progress after every compiled call; `fitting.epochs` is the part of it that ends epochs.

    States, keys and metrics of several models have a leading axis.
    """
    is_group = key.ndim > 0
    mesh = mesh_for(training.batch_size, len(key) if is_group else 1)
    state, key = put(mesh, (start.state, key), *[MEMBER] * is_group)
    steps = x.shape[0] // training.batch_size
    run_steps = on(mesh, partial(run_steps, steps=steps))
    if not on_disk(x, c):
        x, c = put(mesh, (x, c))
    best, history, part = start.best, list(start.history), start.part
    shuffle, fold_in = partial(shuffled, size=x.shape[0], batch_size=training.batch_size), jax.random.fold_in
    if is_group:
        shuffle, fold_in = jax.vmap(shuffle), jax.vmap(fold_in, (0, None))
    while not ended(training, history):
        number, began = len(history) + 1, time.perf_counter()
        epoch_key = fold_in(key, number)
        order = np.asarray(shuffle(epoch_key))
        for arguments in _calls(mesh, x, c, order, part.steps if part else 0, per_call):
            state, metrics = run_steps(state, epoch_key, *arguments)
            metrics = jax.block_until_ready(metrics)  # type: ignore[no-untyped-call]
            part = _added(part, metrics, steps, number, time.perf_counter() - began)
            if part.steps < steps:
                yield Progress(state, best, history, training, part)
            began = time.perf_counter()
        assert part is not None
        _require_finite(state.params, number)
        scores = validate(state.result) if validate else None
        rate = x.shape[0] / part.seconds
        history = [*history, Epoch(number, part.means, scores, part.first_loss, part.seconds, rate)]
        part = None
        if training.patience is not None and best_epoch(history) == number:
            best = state.result
        yield Progress(state, best, history, training)


def _calls(
    mesh: Mesh, x: Any, c: Conditions, order: np.ndarray, first: int, per_call: int
) -> Iterator[tuple[Any, ...]]:
    """The arguments (x, c, rows, first) of each call of an epoch, from its step `first` on.

    Shapes: order [..., steps, batch].
    """
    if on_disk(x, c):
        yield from _batches(mesh, x, c, order, first, per_call)
        return
    for number in range(first, order.shape[-2], per_call):
        yield x, c, order[..., number : number + per_call, :], number


def _batches(
    mesh: Mesh, x: Any, c: Conditions, order: np.ndarray, first: int, per_call: int
) -> Iterator[tuple[Any, ...]]:
    """The batches of each call of an epoch, from its step `first` on, on the devices: (x, c, None, first).

    Each process reads what its own devices compute with.

    Shapes: order [steps, batch] -> x [per_call, batch, *event].
    """
    import grain

    sharding = NamedSharding(mesh, PartitionSpec(None, DATA))  # type: ignore[no-untyped-call]

    def read(number: int) -> tuple[Any, ...]:
        rows = order[number : number + per_call]

        def on_devices(values: Any) -> Any:
            if mesh.size == 1:
                return jax.device_put(values[rows])
            shape = (*rows.shape, *values.shape[1:])
            return jax.make_array_from_callback(shape, sharding, lambda index: values[rows[index[:2]]])  # type: ignore[index]

        return on_devices(x), {name: on_devices(values) for name, values in c.items()}, None, number

    ahead = grain.ReadOptions(num_threads=READERS, prefetch_buffer_size=AHEAD)
    yield from grain.MapDataset.range(first, len(order), per_call).map(read).to_iter_dataset(ahead)


def _added(part: Part | None, metrics: Metrics, of: int, epoch: int, seconds: float) -> Part:
    """The part of an epoch with a call's steps; refuses a loss that is not finite."""
    values = Metrics(*(np.asarray(value, np.float64) for value in metrics))  # type: ignore[arg-type]
    loss: Any = values.loss
    if part is None:
        zeros = np.zeros(loss.shape[:-1]).tolist()
        part = Part(0, of, Metrics(zeros, zeros, zeros), loss[..., 0].tolist(), 0.0)
    if len(wrong := np.argwhere(~np.isfinite(loss))) > 0:
        place = part.steps + wrong[0][-1] + 1
        member = f" of member {wrong[0][0] + 1} of the group" if loss.ndim > 1 else ""
        raise FloatingPointError(f"the loss{member} in epoch {epoch}, step {place} is {loss[*wrong[0]]}; {REMEDY}")
    sums = (np.add(before, np.sum(new, axis=-1)).tolist() for before, new in zip(part.sums, values, strict=True))
    return part._replace(steps=part.steps + loss.shape[-1], sums=Metrics(*sums), seconds=part.seconds + seconds)


def _require_finite(params: Params, number: int) -> None:
    if not all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):  # spoilt by the last step
        raise FloatingPointError(f"the parameters after epoch {number} are not finite; {REMEDY}")


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
