"""Training: steps are Optax's; a fit is reproducible to the bit, can be resumed, stops at the best, and learns."""

import time
import warnings
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cvae
from cvae import fitting, loop, networks
from cvae.data.augmentation import augmentation
from cvae.distributions import Bernoulli, Normal, kl_terms
from cvae.evaluation import evaluate
from cvae.fitting import epochs
from cvae.keys import named
from cvae.settings import replace
from cvae.training import TrainState, init_state, shuffled, static_settings, train_steps
from tests.conftest import CLASSES, EVENT, build, weights
from tests.oracles import LEVEL

# A real model

SIZE = 53  # no batch size used here divides it
SETTINGS = cvae.Training(epochs=3, batch_size=10, learning_rate=3e-3)


@pytest.fixture(scope="module")
def data():
    """Images that depend on their label, so that there is something to learn."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, SIZE)
    grey = rng.random((CLASSES, *EVENT))[label]
    return (255 * np.clip(grey + 0.1 * rng.normal(size=grey.shape), 0, 1)).astype(np.uint8), {"label": label}


def fit(labelled, data, training=SETTINGS, *, params=None, key=None, **arguments):
    params = labelled.params if params is None else params
    key = jax.random.key(4) if key is None else key
    return cvae.fit(labelled.model, params, key, *data, training, progress=False, **arguments)


def assert_same(one, two) -> None:
    """Equal to the bit, but for the clock."""
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    assert [epoch[:4] for epoch in one.history] == [epoch[:4] for epoch in two.history]


def test_same_arguments_give_the_same_bits(labelled, data):
    before, whole = jax.tree.map(np.array, labelled.params), fit(labelled, data, validation=data)
    assert_same(whole, fit(labelled, data, validation=data))
    assert_same(whole, fit(labelled, data, key=jax.random.PRNGKey(4), validation=data))  # a key as raw words
    jax.tree.map(np.testing.assert_array_equal, before, labelled.params)
    # A validation set changes nothing that is learned; another key changes everything.
    jax.tree.map(np.testing.assert_array_equal, whole.params, fit(labelled, data).params)
    other = fit(labelled, data, key=jax.random.key(5))
    assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (whole.params, other.params)), strict=True))


def test_it_learns(labelled, data):
    fitted = fit(labelled, data, replace(SETTINGS, epochs=60))
    x, label = data[0] / 255, data[1]["label"]

    def entropy(p):
        p = np.clip(p, 1e-6, 1 - 1e-6)
        return -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=(1, 2, 3)).mean()

    # A model that knew only the mean image would reach its entropy: half way below that proves that the label is used.
    of_label = entropy(np.stack([x[label == k].mean(axis=0) for k in range(CLASSES)])[label])
    first, *_, last = (epoch.train.loss for epoch in fitted.history)
    assert last < (entropy(x.mean(axis=0)) + of_label) / 2 < first
    assert fitted.notes == []


def test_seconds_are_of_steps_that_are_done(labelled, data, monkeypatch):
    """A device computes while Python goes on: the time of a call that has only begun would be none."""
    wait = jax.block_until_ready

    def slowly(tree):
        time.sleep(0.05)
        return wait(tree)

    monkeypatch.setattr(jax, "block_until_ready", slowly)
    assert min(epoch.seconds for epoch in fit(labelled, data).history) >= 0.05


def test_history_has_an_entry_per_epoch(labelled, data):
    key = jax.random.key(4)
    seen = list(epochs(labelled.model, labelled.params, key, *data, SETTINGS, validation=data))
    history = seen[-1].history
    assert [progress.history for progress in seen] == [history[:n] for n in (1, 2, 3)]
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    for epoch in history:
        for terms in (epoch.train, epoch.validation):
            assert terms.loss == pytest.approx(terms.kl - terms.log_likelihood, rel=1e-5)
        assert epoch.examples_per_second == pytest.approx(SIZE / epoch.seconds)
    scored = evaluate(labelled.model, seen[0].result, named(key, "validation"), *data)
    assert history[0].validation.loss == pytest.approx(-scored.value.mean(), rel=1e-6)
    assert fit(labelled, data).history[0].validation is None


def test_settings_that_decide_no_shape_compile_nothing(labelled, data):
    fit(labelled, data)
    compiled = train_steps._cache_size()
    for changed in ({"learning_rate": 0.5e-3}, {"beta": 2.0}, {"epochs": 1}, {"epochs": 2, "patience": 1}):
        fit(labelled, data, replace(SETTINGS, **changed), validation=data)
    assert train_steps._cache_size() == compiled


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"patience": 2, "ema_decay": 0.9, "weight_decay": 0.1, "schedule": "cosine", "binarization": "dynamic"},
    ],
    ids=["default", "everything"],
)
def test_a_resumed_fit_ends_at_the_same_bits(labelled, data, settings):
    """From a copy of its progress, on the host, as from a disk."""
    training = replace(SETTINGS, **settings)
    whole = fit(labelled, data, training, validation=data)
    for progress in epochs(labelled.model, labelled.params, jax.random.key(4), *data, training, validation=data):
        copy = jax.tree.map(lambda leaf: np.array(leaf) if isinstance(leaf, jax.Array) else leaf, progress)
        assert_same(whole, fit(labelled, data, training, params=copy, validation=data))
    more = replace(training, epochs=5)
    if training.schedule == "constant":
        assert_same(*(fit(labelled, data, more, params=start, validation=data) for start in (None, copy)))


@pytest.mark.parametrize(
    "changed", [{"ema_decay": 0.5}, {"clip_norm": 2.0}, {"learning_rate": 1e-3}, {"batch_size": 9}, {"epochs": 4}]
)
def test_a_fit_is_not_resumed_with_other_settings(labelled, data, changed):
    training = replace(SETTINGS, schedule="cosine") if "epochs" in changed else SETTINGS
    progress = next(epochs(labelled.model, labelled.params, jax.random.key(4), *data, training))
    (name, value), *_ = changed.items()
    message = f"{name} must be as in the fit that is resumed, {getattr(training, name)!r}, got {value!r}"
    with pytest.raises(ValueError, match=message):
        fit(labelled, data, replace(training, **changed), params=progress)


def test_an_epoch_has_the_same_bits_in_however_many_calls(labelled, data, monkeypatch):
    whole = fit(labelled, data)
    monkeypatch.setattr(networks.Body, "most_steps", 3)
    parts = fit(labelled, data)
    assert loop.steps_per_call(labelled.model, SIZE // SETTINGS.batch_size) == 3
    jax.tree.map(np.testing.assert_array_equal, parts.params, whole.params)
    assert [epoch[:4] for epoch in parts.history] == [epoch[:4] for epoch in whole.history]


@pytest.mark.parametrize(("steps", "expected"), [(1, 1), (1000, 1000), (1100, 550), (4001, 801), (4000, 1000)])
def test_calls_are_equal_parts_of_an_epoch_where_there_are_any(labelled, steps, expected):
    assert loop.steps_per_call(labelled.model, steps) == expected


def test_calls_of_steps_that_take_a_cpu_long_hold_fewer_of_them(monkeypatch):
    model = build(cvae.Unconditional(), event_shape=(4, 4, 1), body="convolutional", hidden=(2, 3)).model
    assert loop.steps_per_call(model, 1100) == (10 if jax.default_backend() == "cpu" else 550)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert loop.steps_per_call(model, 1100) == 550


@pytest.mark.parametrize("after", [0, 2])
def test_an_interrupted_fit_returns_what_it_has(labelled, data, monkeypatch, after):
    taken = []

    def interrupted(*args, **kwargs):
        if len(taken) == after:
            raise KeyboardInterrupt
        taken.append(train_steps(*args, **kwargs))
        return taken[-1]

    monkeypatch.setattr(fitting, "train_steps", interrupted)
    with pytest.warns(UserWarning, match=f"interrupted after {after} of 3 epochs; their parameters are returned"):
        fitted = fit(labelled, data)
    monkeypatch.undo()
    assert len(fitted.history) == after
    expected = fit(labelled, data, replace(SETTINGS, epochs=after)).params if after else labelled.params
    jax.tree.map(np.testing.assert_array_equal, fitted.params, expected)


def test_a_loss_that_rises_leaves_a_note(labelled, data):
    message = r"the loss is \S+e\+\d+ after training, where it was \d\.\d+ before: try a lower learning_rate, or a clip"
    with pytest.warns(UserWarning, match=message):
        fitted = fit(labelled, data, replace(SETTINGS, learning_rate=1e4))
    assert len(fitted.notes) == 1
    assert loop.notes_on([]) == []


def test_what_is_not_finite_stops_the_fit(labelled, data):
    remedy = "; try a lower learning_rate, or a clip_norm such as 10"
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), labelled.params)
    with pytest.raises(FloatingPointError, match=f"the loss in epoch 1, step 1 is nan{remedy}"):
        fit(labelled, data, params=broken)
    # A step that spoils the parameters shows in the next one's loss; the last step of an epoch has no next one, and no
    # progress with its parameters may be yielded.
    start, training = {"b": jnp.zeros(3)}, cvae.Training(epochs=1, batch_size=1)
    spoil = optax.stateless(lambda updates, params: jax.tree.map(lambda u: u / 0, updates))
    for spoilt, message in ((1, "the loss in epoch 1, step 3 is inf"), (4, "the parameters after epoch 1 are not fin")):
        late = optax.chain(optax.adam(1e-3), optax.conditionally_transform(spoil, lambda step, at=spoilt: step == at))
        run = epochs(LEVEL, start, jax.random.key(0), TARGET, {}, training, optimizer=late)
        with pytest.raises(FloatingPointError, match=f"{message}.*{remedy}"):
            next(run)


BAD_DATA = {
    "too few": (
        lambda x, c: (x[:9], {"label": c["label"][:9]}),
        "batch_size must be at most .* \\(9\\), got 10",
    ),
    "lengths": (lambda x, c: (x[:20], c), r"c\['label'\] must hold one entry per example of x, 20, got 53"),
}


@pytest.mark.parametrize(("change", "message"), BAD_DATA.values(), ids=BAD_DATA.keys())
def test_bad_examples_are_refused_before_anything_is_compiled(labelled, data, change, message):
    with pytest.raises(ValueError, match=message):  # by the call, before the first epoch is taken
        epochs(labelled.model, labelled.params, jax.random.key(4), *change(*data), SETTINGS)
    if "batch_size" not in message:
        with pytest.raises(ValueError, match=message):
            fit(labelled, data, validation=change(*data))


BAD_ARGUMENTS = {
    "pair": ({"validation": np.zeros((3, *EVENT), np.uint8)}, r"validation must be a pair, \(x, c\), got"),
    "training": ({"training": {"epochs": 3}}, "training must be a cvae.Training, got {'epochs': 3}"),
    "params": ({"params": 7}, r"params must be .*model\.init.*, got 7"),
    "own optimizer": (
        {"training": replace(SETTINGS, clip_norm=1.0), "optimizer": optax.sgd(0.1)},
        "must be left out beside an optimizer, which has its own, got",
    ),
    "patience": (
        {"training": replace(SETTINGS, patience=2)},
        "patience must be None without validation examples, got 2",
    ),
    "hide_prob": (
        {"training": replace(SETTINGS, hide_prob=0.2)},
        "hide_prob must be 0 unless the likelihood is a cvae.Missing, got 0.2",
    ),
    "frozen": (
        {"training": replace(SETTINGS, frozen=("body",))},
        r"frozen must name parts of the parameters, \['decoder', 'encoder'\], got \['body'\]",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_bad_arguments_are_refused(labelled, data, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(labelled, data, **arguments)


def test_rows_cannot_be_moved():
    model = cvae.make(cvae.Architecture((5,), cvae.Unconditional(), 2, (6,)))
    training, rows = cvae.Training(batch_size=5, shift=1), np.zeros((20, 5), np.float32)
    with pytest.raises(ValueError, match=r"shift must be 0 where x is no image \(H, W, C\), got 1"):
        epochs(model, weights(model), jax.random.key(0), rows, {}, training)


# The steps, of a model small enough to be trained a second time by hand

ROWS, BATCH, STEPS, RATE = 14, 4, 3, 0.02  # two rows of every order sit the epoch out
X = jnp.asarray(np.random.default_rng(1).normal([1, 0, -2, 3], size=(ROWS, 4)), jnp.float32)
PARAMS = {
    "A": jnp.asarray(np.random.default_rng(2).normal(size=(4, 2)), jnp.float32),
    "a": jnp.array([0.3, -0.5]),
    "W": jnp.asarray(np.random.default_rng(3).normal(size=(2, 4)), jnp.float32),
    "b": jnp.array([0.1, 0.2, -0.3, 0.4]),
}
MATRICES = {"A": True, "a": False, "W": True, "b": False}
SMALL = cvae.CVAE(
    lambda key: PARAMS,
    lambda params, x, c: Normal(x @ params["A"] + params["a"], jnp.full((len(x), 2), -0.3)),
    lambda params, c: Normal(jnp.zeros((1, 2)), jnp.zeros((1, 2))),
    lambda params, z, c: Normal(z @ params["W"] + params["b"], jnp.zeros((len(z), 4))),
)
ADAM = cvae.Training(epochs=2, batch_size=BATCH, learning_rate=RATE, beta=0.5, free_bits=5.0)
EVERYTHING = cvae.Training(
    epochs=2, batch_size=BATCH, learning_rate=RATE, schedule="cosine", weight_decay=0.3, clip_norm=130.0,
    ema_decay=0.25, beta=0.7, beta_warmup=1,
)  # fmt: skip
WARM = cvae.Training(epochs=14, batch_size=BATCH, learning_rate=RATE, schedule="warmup_cosine", num_samples=2)
IWAE = cvae.Training(epochs=2, batch_size=BATCH, learning_rate=RATE, objective="iwae", num_samples=3)
OPTIMIZERS = {
    ADAM: optax.adam(RATE),
    EVERYTHING: optax.chain(
        optax.clip_by_global_norm(130.0),
        optax.adamw(optax.cosine_decay_schedule(RATE, 2 * STEPS), weight_decay=0.3, mask=MATRICES),
    ),
    WARM: optax.adam(optax.warmup_cosine_decay_schedule(0.0, RATE, 2, 14 * STEPS)),  # 42 steps, a twentieth is 2
    IWAE: optax.adam(RATE),
}
# Six steps of `RATE` at most; Adam divides, so a rounding of 1e-7 may grow a thousandfold before it is scaled.
ROUNDING = 6 * RATE * 1e-4


def two_epochs(training, *, state=None, first=0, optimizer=None) -> tuple[TrainState, list]:
    """The state after two epochs, and the mean metrics of each."""
    state, augment, means = state or init_state(PARAMS, training, optimizer), augmentation(cvae.Unconditional()), []
    for number in (first, first + 1):
        key = jax.random.key(number)
        state, metrics = train_steps(
            SMALL, static_settings(training), state, key, X, {}, shuffled(key, len(X), training.batch_size),
            steps=len(X) // training.batch_size, augment=augment, optimizer=optimizer,
        )  # fmt: skip
        means.append(np.mean(metrics, axis=1))
    return state, means


@cache
def by_hand(training) -> tuple[Any, list, list]:
    """The same two epochs by Optax's own optimiser: parameters, metrics and gradients' norms of every step."""
    optimizer, params = OPTIMIZERS[training], PARAMS
    memory = optimizer.init(params)

    @jax.jit
    def step(params, memory, key, x, beta):
        def loss(params):
            several = {"num_samples": training.num_samples}
            if training.objective == "iwae":
                terms = cvae.log_weights(SMALL, params, key, x, {}, **several)
                value = -cvae.iwae(SMALL, params, key, x, {}, **several).mean()
                return value, (value, terms.log_likelihood.mean(), terms.log_ratio.mean())
            terms = cvae.elbo(SMALL, params, key, x, {}, free_bits=training.free_bits, **several)
            value = (beta * terms.penalty - terms.log_likelihood).mean()
            return value, (value, terms.log_likelihood.mean(), terms.kl.mean())

        slope, metrics = jax.grad(loss, has_aux=True)(params)
        updates, memory = optimizer.update(slope, memory, params)
        return optax.apply_updates(params, updates), memory, metrics, optax.tree.norm(slope)

    reported, norms = [], []
    for number in range(2):
        order_key, steps_key = jax.random.split(jax.random.key(number))
        order = np.asarray(jax.random.permutation(order_key, ROWS))[: STEPS * BATCH].reshape(STEPS, BATCH)
        for place, rows in enumerate(order):
            warmed = (number * STEPS + place) / (training.beta_warmup * STEPS) if training.beta_warmup else 1
            key = jax.random.split(jax.random.fold_in(steps_key, place))[1]  # the other is for `augment`
            params, memory, metrics, norm = step(params, memory, key, X[rows], training.beta * min(1, warmed))
            reported.append(np.array(metrics))
            norms.append(float(norm))
    return params, reported, norms


@pytest.mark.parametrize("training", OPTIMIZERS, ids=["adam", "everything", "warm-up", "iwae"])
def test_steps_are_those_of_optax(training):
    """The mean loss, so that a step does not depend on the batch size; keys spent once; decay on matrices only."""
    state, means = two_epochs(training)
    params, reported, _ = by_hand(training)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING), state.params, params)
    np.testing.assert_allclose(means, np.reshape(reported, (2, STEPS, 3)).mean(axis=1), rtol=1e-4)
    assert int(state.step) == 2 * STEPS
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, PARAMS)
    assert min(moved.values()) > RATE, "the tolerance is small beside what is learned"


def test_the_cases_above_use_their_settings():
    """Some gradients are clipped and some are not, and free bits are above some KL."""
    norms = by_hand(EVERYTHING)[2]
    assert min(norms) < EVERYTHING.clip_norm < max(norms)
    kl = kl_terms(SMALL.encode(PARAMS, X, {}), SMALL.prior(PARAMS, {})).mean(axis=0)
    assert min(kl) < ADAM.free_bits < max(kl)


def test_an_optimizer_of_the_users_own_replaces_adam():
    """Optax's own Adam is the default one; its learning rate applies and that of the settings does not."""
    own, other = OPTIMIZERS[ADAM], replace(ADAM, learning_rate=9.0)
    state, _ = two_epochs(other, optimizer=own)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING), state.params, by_hand(ADAM)[0])
    usual = replace(ADAM, learning_rate=1e-3)
    fitted = cvae.fit(SMALL, PARAMS, jax.random.key(0), X, {}, usual, optimizer=own, progress=False)
    assert len(fitted.history) == 2


def test_the_schedule_ends_at_0():
    """Once the steps that were announced are taken, nothing moves: not by gradient, not by decay."""
    state, _ = two_epochs(EVERYTHING)
    after, _ = two_epochs(EVERYTHING, state=state, first=2)
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


@pytest.mark.parametrize("schedule", ["cosine", "warmup_cosine"])
def test_a_schedule_of_a_single_step_can_be_started(schedule):
    training = cvae.Training(epochs=1, batch_size=ROWS, schedule=schedule)
    step = partial(train_steps, SMALL, static_settings(training), steps=1, augment=augmentation(cvae.Unconditional()))
    state, _ = jax.eval_shape(step, init_state(PARAMS, training), jax.random.key(0), X[None], {}, None)
    assert state.params.keys() == PARAMS.keys()


def test_beta_rises_to_its_value():
    """With a posterior that does not depend on x the KL is one number, so what the loss holds of it is beta's mean."""
    deaf = replace(EVERYTHING, learning_rate=1e-30)
    _, means = two_epochs(deaf, state=init_state(PARAMS | {"A": jnp.zeros((4, 2))}, deaf))
    for (loss, log_likelihood, kl), share in zip(means, (np.mean([0, 1 / 3, 2 / 3]), 1.0), strict=True):
        assert (loss + log_likelihood) / kl == pytest.approx(0.7 * share, rel=1e-4)


# Stopping and drawing, of models whose decoder ignores z, so that they have no noise

TARGET = np.full((5, 3), 5.0, np.float32)


def follow(validation=None, **settings):
    """Fit a level to the target, from 0 towards 5 by about 0.3 an epoch, a step each."""
    training = cvae.Training(**{"epochs": 10, "batch_size": 5, "learning_rate": 0.3} | settings)
    pair = None if validation is None else (np.full((2, 3), validation, np.float32), {})
    start, key = {"b": jnp.zeros(3)}, jax.random.key(0)
    return cvae.fit(LEVEL, start, key, TARGET, {}, training, validation=pair, progress=False)


@cache
def levels() -> list[np.ndarray]:
    """The level after every epoch of a fit."""
    run = epochs(LEVEL, {"b": jnp.zeros(3)}, jax.random.key(0), TARGET, {}, cvae.Training(10, 5, 0.3))
    return [np.asarray(progress.result["b"]) for progress in run]


def test_patience_stops_and_returns_the_best_epoch():
    """The validation set lies at 1: its loss falls until the level passes there, and rises ever after."""
    everything = follow(validation=1.0)
    losses = [epoch.validation.loss for epoch in everything.history]
    best = int(np.argmin(losses)) + 1
    assert 2 < best < 6
    assert len(losses) == 10  # without patience the validation set decides nothing
    np.testing.assert_array_equal(everything.params["b"], levels()[-1])
    for patience in (1, 3):
        stopped = follow(validation=1.0, patience=patience)
        assert [epoch.validation.loss for epoch in stopped.history] == losses[: best + patience]
        np.testing.assert_array_equal(stopped.params["b"], levels()[best - 1])


@pytest.mark.parametrize(
    ("validation", "rate", "count", "best"),
    [(-3.0, 0.3, 3, 1), (5.0, 0.3, 10, 10), (1.0, 1e-30, 3, None)],
    ids=["only worse", "only better", "constant"],
)
def test_patience_counts_epochs_that_are_not_better(validation, rate, count, best):
    stopped = follow(validation=validation, patience=2, learning_rate=rate)
    assert len(stopped.history) == count
    if best:
        np.testing.assert_array_equal(stopped.params["b"], levels()[best - 1])
    else:
        assert len({epoch.validation.loss for epoch in stopped.history}) == 1


def test_what_is_returned_and_validated_is_the_average():
    fitted, average = follow(validation=1.0, ema_decay=0.3, epochs=6), np.zeros(3)
    for step, (level, epoch) in enumerate(zip(levels(), fitted.history, strict=False)):
        decay = min(0.3, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * level
        loss = (0.5 * (1 - average) ** 2 + 0.5 * np.log(2 * np.pi)).sum()
        assert epoch.validation.loss == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose(fitted.params["b"], average, rtol=1e-5)
    assert np.all(np.abs(average - levels()[5]) > 0.05)


def test_an_epoch_uses_every_example_at_most_once():
    marks, seen = np.arange(SIZE, dtype=np.float32)[:, None] * np.ones(3, np.float32), []

    def spy(key, x, c):
        jax.debug.callback(lambda rows: seen.append(np.asarray(rows).astype(int)), x[:, 0], ordered=True)
        return x, c

    training = cvae.Training(epochs=2, batch_size=10)
    list(epochs(LEVEL, {"b": jnp.zeros(3)}, jax.random.key(0), marks, {}, training, augment=spy))
    jax.effects_barrier()
    first, second = np.concatenate(seen[:5]), np.concatenate(seen[5:])
    assert len(set(first)) == len(set(second)) == 50
    assert list(first) != list(second)


# A model whose log-likelihood tells the sum of all pixels: sum x log 2 - 40 log 3.
SUM = LEVEL._replace(decode=lambda params, z, c: Bernoulli(params["b"] + jnp.zeros((len(z), 40))))
GREY = np.random.default_rng(6).random((6, 40)).astype(np.float32)


@pytest.mark.parametrize("binarization", ["none", "dynamic", "static"])
def test_pixels_are_drawn_as_often_as_the_settings_say(binarization):
    """Static ones once, dynamic ones each time they are used, and those of validation once with either."""
    training = cvae.Training(epochs=3, batch_size=6, learning_rate=1e-30, binarization=binarization)
    level = {"b": jnp.log(2.0) * jnp.ones(1)}
    fitted = cvae.fit(SUM, level, jax.random.key(6), GREY, {}, training, validation=(GREY, {}), progress=False)
    scores = np.array([[epoch.train.log_likelihood, epoch.validation.log_likelihood] for epoch in fitted.history])
    train, validation = (6 * (scores + 40 * np.log(3)) / np.log(2)).T  # sums of six images, in each of three epochs
    slack = 6 * 40 * 1e-5
    assert np.ptp(validation) < slack
    assert (np.ptp(train) > 0.9) if binarization == "dynamic" else (np.ptp(train) < slack)
    if binarization == "none":
        np.testing.assert_allclose([train[0], validation[0]], GREY.sum(), atol=slack)
        return
    counts = np.array([*train, *validation])
    assert np.all(np.abs(counts - np.rint(counts)) < slack), "black and white only"
    assert np.all(np.abs(counts - GREY.sum()) < 5 * np.sqrt((GREY * (1 - GREY)).sum()))
    assert abs(train[0] - validation[0]) > 0.9, "drawn apart from each other"


def test_an_image_that_is_part_of_x_is_drawn_with_it():
    """Validation is conditioned as training is: on the pixels that are scored."""
    seen = []

    def prior(params, c):
        jax.debug.callback(lambda image: seen.append(np.asarray(image)), c["image"])
        return model.prior(params, c)

    model = cvae.make(cvae.Architecture((4, 4, 1), cvae.Image((4, 4, 1), "quadrants_1"), 2, (6,)))
    training = cvae.Training(epochs=1, batch_size=40, binarization="dynamic")
    pair = IMAGES / np.float32(255), {"image": IMAGES / np.float32(255)}
    spied = model._replace(prior=prior)
    cvae.fit(spied, weights(model), jax.random.key(0), *pair, training, validation=pair, progress=False)
    jax.effects_barrier()
    assert len(seen) > 1
    assert all(set(np.unique(image)) <= {0, 1} for image in seen)


def test_pixels_must_be_grey_levels_to_be_drawn():
    with pytest.raises(ValueError, match=r"x must be floats, .* in \[0, 1\], got 5 at row 0"):
        follow(binarization="static")


# Parts of the parameters, and what is scored

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)


def complete(training, **fields):
    """Fit a model that completes images from a quadrant: the parameters that it started with, and the fit."""
    condition = cvae.Image((4, 4, 1), "quadrants_1")
    model = cvae.make(cvae.Architecture((4, 4, 1), condition, 4, (6,), prior="learned", **fields))
    params, pair = weights(model), (IMAGES, {"image": IMAGES})
    return params, cvae.fit(model, params, jax.random.key(0), *pair, training, validation=pair, progress=False)


def unchanged(before: dict, after: dict) -> set[str]:
    """Which parts of the parameters are as they were."""
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), before, after)
    return {name for name, part in same.items() if all(jax.tree.leaves(part))}


@pytest.mark.filterwarnings("ignore:the loss is")  # after one epoch it may be
def test_frozen_parts_stay():
    training = cvae.Training(epochs=1, batch_size=10, weight_decay=0.5, frozen=("guess",))
    params, fitted = complete(training, guess=True)
    assert unchanged(params, fitted.params) == {"guess"}


def test_a_gsnn_ignores_the_encoder_and_is_validated_under_the_prior():
    params, fitted = complete(cvae.Training(epochs=2, batch_size=10, hybrid_weight=0.0), guess=True)
    assert unchanged(params, fitted.params) == {"encoder"}
    for epoch in fitted.history:
        assert epoch.train.kl == epoch.validation.kl == 0
        assert epoch.validation.loss == -epoch.validation.log_likelihood


def test_what_is_scored_is_not_augmented():
    still = cvae.Training(epochs=1, batch_size=10, learning_rate=1e-12)
    noisy = replace(still, shift=2, drop_block_prob=1.0)
    plain, augmented = (complete(training)[1].history[0] for training in (still, noisy))
    assert plain.validation.loss == pytest.approx(augmented.validation.loss, rel=1e-5)
    assert abs(plain.train.loss - augmented.train.loss) > 1e-3


# A Normal likelihood with the default settings


def test_normal_models_start_and_end_well():
    """Independent normal columns, in units that are far from standard and shift the nats by log std."""
    location, scale = 5e4, 2e4
    x = location + scale * np.random.default_rng(0).normal(size=(1000, 3))
    model = cvae.make(cvae.Architecture((3,), cvae.Unconditional(), likelihood=cvae.Normal.fitted(x)))
    params, key = jax.jit(model.init)(jax.random.key(0)), jax.random.key(1)
    fitted = cvae.fit(model, params, key, x, {}, cvae.Training(epochs=60), progress=False)
    shift = 3 * np.log(scale)
    assert fitted.history[0].first_loss - shift < 20
    assert fitted.history[-1].train.loss - shift < 4.4
    assert fitted.notes == []
    draws = jax.jit(lambda params, key: cvae.sample(model, params, key, {}, num_samples=4000))(fitted.params, key)
    draws = (np.asarray(draws, np.float64)[:, 0] - location) / scale
    np.testing.assert_array_less(np.abs(draws.std(axis=0) - 1), 0.05)


UNFITTED = {
    "not fitted": (cvae.Normal(), "mean 5e+04 and standard deviation 2e+04"),
    "narrow": (cvae.Normal(scale=(1e-12,)), "mean 5e+16 and standard deviation 2e+16"),
    "wide": (cvae.Missing(cvae.Normal(location=(5e4,), scale=(1e9,))), "mean 0 and standard deviation 2e-05"),
    "columns": (cvae.Columns((cvae.Normal(),), ((0, 1, 2),)), "mean 5e+04 and standard deviation 2e+04"),
}


@pytest.mark.parametrize(("likelihood", "found"), UNFITTED.values(), ids=UNFITTED.keys())
def test_a_normal_that_is_not_fitted_to_x_warns(likelihood, found):
    x, key = np.full((200, 3), 5e4) + np.resize([2e4, -2e4], (200, 1)), jax.random.key(0)
    architecture = cvae.Architecture((3,), cvae.Unconditional(), 1, (2,), likelihood=likelihood)
    params = weights(cvae.make(architecture))
    with pytest.warns(UserWarning, match=r"Normal\.fitted") as caught:
        epochs(cvae.make(architecture), params, key, x, {})
    message = f"x has {found} in units of its likelihood, where 0 and 1 are best, as Normal.fitted(x) has them"
    assert [str(warning.message) for warning in caught] == [message]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epochs(cvae.make(replace(architecture, likelihood=cvae.Normal.fitted(x))), params, key, x, {})
