"""Fitting: reproducible to the bit, silent when asked, its steps are Optax's, it stops at the best, and it learns."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cvae
from cvae.preparation import prepare
from cvae.training import Knobs, epoch, means, recipe, start
from tests.conftest import CLASSES, EVENT, weights
from tests.oracles import quickly_compiled


@pytest.fixture(autouse=True, scope="module")
def _quickly_compiled():
    with quickly_compiled():
        yield


# A real model

SIZE = 53  # leaves a rest with every batch size used here
SETTINGS = cvae.Training(epochs=3, batch_size=10, learning_rate=3e-3)


@pytest.fixture(scope="module")
def data():
    """Pictures that depend on their label, so that there is something to learn."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, SIZE)
    ink = rng.random((CLASSES, *EVENT))[label]
    return (255 * np.clip(ink + 0.1 * rng.normal(size=ink.shape), 0, 1)).astype(np.uint8), {"label": label}


def fit(labelled, data, **arguments):
    arguments = {"training": SETTINGS, "progress": False} | arguments
    return cvae.fit(labelled.model, labelled.params, jax.random.key(4), *data, **arguments)


def test_the_same_arguments_give_the_same_bits(labelled, data):
    one, two = fit(labelled, data, validation=data), fit(labelled, data, validation=data)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    for a, b in zip(one.history, two.history, strict=True):
        assert a[:3] == b[:3]


def test_watching_changes_nothing(labelled, data):
    """Neither a validation set nor a callback has a say in what is learned."""
    one, two = fit(labelled, data), fit(labelled, data, validation=data, on_epoch=lambda e: None)
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def test_another_key_gives_others(labelled, data):
    one = fit(labelled, data)
    two = cvae.fit(labelled.model, labelled.params, jax.random.key(5), *data, SETTINGS, progress=False)
    assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (one.params, two.params)), strict=True))


def test_it_learns(labelled, data):
    fitted = fit(labelled, data, training=cvae.Training(epochs=60, batch_size=10, learning_rate=3e-3))
    losses = [e.train.loss for e in fitted.history]
    # What a model that knew only the mean picture would reach: half way there proves that the label was used.
    x, label = data[0] / 255, data[1]["label"]
    mean = x.mean(axis=0)
    of_label = np.stack([x[label == k].mean(axis=0) for k in range(CLASSES)])[label]

    def entropy(p):
        p = np.clip(p, 1e-6, 1 - 1e-6)
        return -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=(1, 2, 3)).mean()

    assert losses[-1] < (entropy(mean) + entropy(of_label)) / 2 < losses[0]


def test_history_holds_an_epoch_each(labelled, data):
    seen = []
    fitted = fit(labelled, data, validation=data, on_epoch=lambda progress: seen.append(progress.history))
    assert seen == [fitted.history[:n] for n in (1, 2, 3)]
    assert [e.epoch for e in fitted.history] == [1, 2, 3]
    for e in fitted.history:
        for terms in (e.train, e.validation):
            assert terms.loss == pytest.approx(terms.kl - terms.log_likelihood, rel=1e-5)
        assert e.examples_per_second == pytest.approx(SIZE / e.seconds)
    assert fit(labelled, data).history[0].validation is None


def test_parameters_given_are_left_alone(labelled, data):
    before = jax.tree.map(np.array, labelled.params)
    fitted = fit(labelled, data)
    jax.tree.map(np.testing.assert_array_equal, before, labelled.params)
    assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before, fitted.params)), strict=True))


def test_silent_when_asked_and_a_bar_otherwise(labelled, data, capfd):
    fit(labelled, data)
    assert capfd.readouterr() == ("", "")
    fit(labelled, data, progress=True, name="a name")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "a name: 100%" in shown.err
    assert "loss" in shown.err
    assert "ex/s" in shown.err


def test_what_is_no_shape_compiles_nothing_again(labelled, data):
    fit(labelled, data)
    compiled = epoch._cache_size()
    for changed in ({"learning_rate": 0.5e-3}, {"beta": 2.0}, {"epochs": 1}, {"epochs": 2, "patience": 1}):
        fit(labelled, data, training=cvae.Training(**{"epochs": 1, "batch_size": 10} | changed), validation=data)
    assert epoch._cache_size() == compiled


def test_a_loss_that_is_not_finite_stops_the_fit(labelled, data):
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), labelled.params)
    message = r"the loss in epoch 1, step 1 is nan; try a lower learning_rate, or a clip_norm such as 10"
    with pytest.raises(FloatingPointError, match=message):
        cvae.fit(labelled.model, broken, jax.random.key(0), *data, SETTINGS, progress=False)


def test_a_last_step_that_spoils_the_parameters_is_no_success(labelled, data):
    """Its own loss is that of before the step."""
    training, seen = cvae.Training(epochs=1, batch_size=SIZE, learning_rate=1e38, weight_decay=10.0), []
    message = "the parameters after epoch 1 are not finite; try a lower learning_rate, or a clip_norm such as 10"
    with pytest.raises(FloatingPointError, match=message):
        fit(labelled, data, training=training, on_epoch=seen.append)
    assert seen == []  # nothing of it is saved


def test_a_loss_that_is_not_finite_is_named_by_its_step():
    terms = np.ones((7, 3))
    assert means(terms * [1, 2, 3], 1) == (1, 2, 3)
    terms[4:, 0] = [np.inf, np.nan, 1]
    with pytest.raises(FloatingPointError, match="the loss of z2 in epoch 3, step 5 is inf"):
        means(terms, 3, " of z2")


@pytest.mark.parametrize("settings", [{}, {"patience": 2, "average": 0.9, "weight_decay": 0.1, "schedule": "cosine"}])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_fit_that_was_stopped_goes_on_to_the_same_bits(labelled, data, settings, after):
    """From a copy of its progress, on the host, as from a disk."""
    arguments = {"training": replace(SETTINGS, **settings), "validation": data}
    kept = []

    def keep(progress):
        kept.append(jax.tree.map(np.array, progress))
        if len(kept) == after:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(labelled, data, on_epoch=keep, **arguments)
    resumed = fit(labelled, data, resume=kept[-1], **arguments)
    whole = fit(labelled, data, **arguments)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert [e[:3] for e in resumed.history] == [e[:3] for e in whole.history]


BAD = {
    "too few": (lambda x, c: (x[:9], {"label": c["label"][:9]}), "x must hold at least one batch, 10 examples, got 9"),
    "lengths": (lambda x, c: (x[:20], c), r"c\['label'\] must hold one entry an example of x, 20 of them, got 53"),
    "floats": (lambda x, c: (x.astype(np.float32), c), r"x must be floats in \[0, 1\], got values from"),
    "labels": (lambda x, c: (x, {"label": c["label"] + 1}), r"c\['label'\] must be integers in \[0, 5\)"),
    "missing": (lambda x, c: (x, {}), r"\['label'\] missing"),
    "empty": (lambda x, c: (x[:0], c), "x must hold at least one example"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_bad_examples_are_refused(labelled, data, change, message):
    with pytest.raises(ValueError, match=message):
        fit(labelled, change(*data))
    if "batch" not in message:
        with pytest.raises(ValueError, match=message):
            fit(labelled, data, validation=change(*data))


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
    lambda params, x, c: cvae.Normal(x @ params["A"] + params["a"], jnp.full((len(x), 2), -0.3)),
    lambda params, c: cvae.Normal(jnp.zeros((1, 2)), jnp.zeros((1, 2))),
    lambda params, z, c: cvae.Normal(z @ params["W"] + params["b"], jnp.zeros((len(z), 4))),
)
ADAM = cvae.Training(epochs=2, batch_size=BATCH, learning_rate=RATE, beta=0.5, free_bits=5.0)
EVERYTHING = cvae.Training(
    epochs=2, batch_size=BATCH, learning_rate=RATE, schedule="cosine", weight_decay=0.3, clip_norm=130.0, average=0.25,
    beta=0.7, beta_warmup=1,
)  # fmt: skip
WARM = cvae.Training(epochs=14, batch_size=BATCH, learning_rate=RATE, schedule="warmup_cosine", num_samples=2)
IWAE = cvae.Training(epochs=2, batch_size=BATCH, learning_rate=RATE, objective="iwae", num_samples=3)
OPTIMISERS = {
    ADAM: optax.adam(RATE),
    EVERYTHING: optax.chain(
        optax.clip_by_global_norm(130.0),
        optax.adamw(optax.cosine_decay_schedule(RATE, 2 * STEPS), weight_decay=0.3, mask=MATRICES),
    ),
    WARM: optax.adam(optax.warmup_cosine_decay_schedule(0.0, RATE, 2, 14 * STEPS)),  # 42 steps, a twentieth is 2
    IWAE: optax.adam(RATE),
}
every_setting = pytest.mark.parametrize("training", OPTIMISERS, ids=["adam", "everything", "warm-up", "iwae"])


def epochs_of(training, *, state=None, rate=None, first=0):
    """The state after two epochs, and the terms of each."""
    state = start(PARAMS, training) if state is None else state
    knobs = Knobs(training.learning_rate if rate is None else rate, training.beta)
    terms = []
    for number in (first, first + 1):
        key = jax.random.key(number)
        state, row = epoch(SMALL, state, key, X, {}, knobs, recipe=recipe(training), prepare=prepare)
        terms.append(np.asarray(row).mean(axis=0))
    return state, terms


@cache
def by_hand(training) -> tuple[Any, list, list, list]:
    """The same two epochs by Optax's own optimiser: the parameters after every step, the terms, gradients' norms."""
    optimiser, params = OPTIMISERS[training], PARAMS
    memory = optimiser.init(params)

    @jax.jit
    def gradient(params, key, x, beta):
        def loss(params):
            several = {"num_samples": training.num_samples}
            if training.objective == "iwae":
                terms = cvae.log_weights(SMALL, params, key, x, {}, **several)
                value = -cvae.iwae(SMALL, params, key, x, {}, **several).mean()
                return value, (value, terms.log_likelihood.mean(), terms.log_ratio.mean())
            terms = cvae.elbo(SMALL, params, key, x, {}, free_bits=training.free_bits, **several)
            value = (beta * terms.penalty - terms.log_likelihood).mean()
            return value, (value, terms.log_likelihood.mean(), terms.kl.mean())

        return jax.grad(loss, has_aux=True)(params)

    after, reported, norms = [], [], []
    for number in range(2):
        order_key, steps_key = jax.random.split(jax.random.key(number))
        order = np.asarray(jax.random.permutation(order_key, ROWS))[: STEPS * BATCH].reshape(STEPS, BATCH)
        for step, rows in enumerate(order):
            warmed = (number * STEPS + step) / (training.beta_warmup * STEPS) if training.beta_warmup else 1
            key = jax.random.split(jax.random.fold_in(steps_key, step))[1]  # the other is for `prepare`
            slope, terms = gradient(params, key, X[rows], training.beta * min(1, warmed))
            updates, memory = optimiser.update(slope, memory, params)
            params = optax.apply_updates(params, updates)
            after.append(params)
            reported.append([float(term) for term in terms])
            norms.append(float(np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(slope)))))
    return params, after, reported, norms


@every_setting
def test_the_steps_are_those_of_optax(training):
    """The mean loss, so that a step does not depend on the batch size; keys spent once; decay on matrices only."""
    state, terms = epochs_of(training)
    params, _, reported, _ = by_hand(training)
    # Six steps of `RATE` at most; Adam divides, so a rounding of 1e-7 may grow a thousandfold before it is scaled.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=6 * RATE * 1e-4), state.params, params)
    np.testing.assert_allclose(terms, np.reshape(reported, (2, STEPS, 3)).mean(axis=1), rtol=1e-4)
    assert int(state.step) == 2 * STEPS
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, PARAMS)
    assert min(moved.values()) > RATE, "the tolerance is small beside what is learned"


def test_the_settings_bite():
    """What the test above relies on: some gradients are cut and some are not, and free bits are above some KL."""
    norms = by_hand(EVERYTHING)[3]
    assert min(norms) < EVERYTHING.clip_norm < max(norms)
    kl = cvae.distributions.kl_terms(SMALL.encode(PARAMS, X, {}), SMALL.prior(PARAMS, {})).mean(axis=0)
    assert min(kl) < ADAM.free_bits < max(kl)


def test_the_average_is_a_recursion():
    """A_t = d_t A_(t-1) + (1 - d_t) params_t, where d_t is `average`, and less during the first steps."""
    state, _ = epochs_of(EVERYTHING)
    average = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), PARAMS)
    for step, params in enumerate(by_hand(EVERYTHING)[1]):
        decay = min(0.25, (1 + step) / (10 + step))
        average = jax.tree.map(
            lambda old, new, decay=decay: decay * old + (1 - decay) * np.asarray(new), average, params
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=6 * RATE * 1e-4), state.average, average)
    assert state.result is state.average
    assert np.abs(state.average["W"] - state.params["W"]).max() > 10 * 6 * RATE * 1e-4


def test_the_schedule_ends_at_nought():
    """Once the steps that were announced are taken, nothing moves: not by gradient, not by decay."""
    state, _ = epochs_of(EVERYTHING)
    before = jax.tree.map(np.array, state.params)
    after, _ = epochs_of(EVERYTHING, state=state, first=2)
    jax.tree.map(np.testing.assert_array_equal, after.params, before)


@pytest.mark.parametrize("schedule", ["cosine", "warmup_cosine"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_schedule_of_very_few_steps_can_be_started(schedule, epochs):
    training = cvae.Training(epochs=epochs, batch_size=ROWS, schedule=schedule)
    state = jax.eval_shape(
        lambda: cvae.training.one_epoch(
            SMALL, start(PARAMS, training), jax.random.key(0), X, {}, Knobs(RATE, 1.0), recipe=recipe(training),
            prepare=prepare,
        )[0]
    )  # fmt: skip
    assert state.params.keys() == PARAMS.keys()


def test_beta_rises_to_its_value():
    """Of a posterior that hears no x, so that the KL is one number: what the loss holds of it is beta's mean."""
    deaf = PARAMS | {"A": jnp.zeros((4, 2))}
    _, terms = epochs_of(EVERYTHING, state=start(deaf, EVERYTHING), rate=0.0)
    for row, share in zip(terms, (np.mean([0, 1 / 3, 2 / 3]), 1.0), strict=True):
        loss, log_likelihood, kl = row
        assert (loss + log_likelihood) / kl == pytest.approx(0.7 * share, rel=1e-4)


# Stopping and drawing, of models that hear no z and so have no noise

TARGET = np.full((5, 3), 5.0, np.float32)
LEVEL = cvae.CVAE(
    lambda key: {"b": jnp.zeros(3)},
    lambda params, x, c: cvae.Normal(jnp.zeros((len(x), 2)), jnp.zeros((len(x), 2))),
    lambda params, c: cvae.Normal(jnp.zeros((1, 2)), jnp.zeros((1, 2))),
    lambda params, z, c: cvae.Normal(jnp.broadcast_to(params["b"], (len(z), 3)), jnp.zeros((len(z), 3))),
)


def follow(validation=None, **settings):
    """Fit a level to the target, from 0 towards 5 by about 0.3 an epoch, a step each."""
    training = cvae.Training(**{"epochs": 10, "batch_size": 5, "learning_rate": 0.3} | settings)
    held_out = None if validation is None else (np.full((2, 3), validation, np.float32), {})
    return cvae.fit(LEVEL, {"b": jnp.zeros(3)}, jax.random.key(0), TARGET, {}, training, validation=held_out,
                    progress=False)  # fmt: skip


def test_early_stopping_returns_the_best_and_stops_after_its_patience():
    """The validation set lies at 1: it gains until the level passes there, and loses ever after."""
    everything = follow(validation=1.0)
    losses = [e.validation.loss for e in everything.history]
    best = int(np.argmin(losses)) + 1
    assert 2 < best < 6
    for patience in (1, 3):
        stopped = follow(validation=1.0, patience=patience)
        assert [e.validation.loss for e in stopped.history] == losses[: best + patience]
        np.testing.assert_array_equal(stopped.params["b"], follow(epochs=best).params["b"])
    # Without patience the validation set has no say.
    assert len(losses) == 10
    np.testing.assert_array_equal(everything.params["b"], follow().params["b"])


def test_a_validation_set_that_only_gets_worse_leaves_the_first_epoch():
    stopped = follow(validation=-3.0, patience=2)
    assert len(stopped.history) == 3
    np.testing.assert_array_equal(stopped.params["b"], follow(epochs=1).params["b"])


def test_patience_that_is_not_tried_runs_to_the_end():
    fitted = follow(validation=5.0, patience=2)
    assert len(fitted.history) == 10
    np.testing.assert_array_equal(fitted.params["b"], follow().params["b"])


def test_a_loss_that_stays_is_no_improvement():
    stopped = follow(validation=1.0, patience=2, learning_rate=1e-30)
    assert len({e.validation.loss for e in stopped.history}) == 1
    assert len(stopped.history) == 3


def test_patience_needs_a_validation_set():
    with pytest.raises(ValueError, match="validation must be given with patience, got None"):
        follow(patience=2)


def test_what_is_returned_and_validated_is_the_average():
    fitted = follow(validation=1.0, average=0.3, epochs=6)
    levels = [np.zeros(3)] + [np.asarray(follow(epochs=n).params["b"], np.float64) for n in range(1, 7)]
    average = levels[0]
    for step, (level, held) in enumerate(zip(levels[1:], fitted.history, strict=True)):
        decay = min(0.3, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * level
        loss = (0.5 * (1 - average) ** 2 + 0.5 * np.log(2 * np.pi)).sum()
        assert held.validation.loss == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose(fitted.params["b"], average, rtol=1e-5)
    assert np.all(np.abs(average - levels[-1]) > 0.05)


def test_an_epoch_meets_every_example_at_most_once():
    """Seen through `prepare`, which is handed the pictures of each step."""
    marks = np.arange(SIZE, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    seen = []

    def spy(key, x, c):
        jax.debug.callback(lambda rows: seen.append(np.asarray(rows).astype(int)), x[:, 0])
        return x, c

    training = cvae.Training(batch_size=10)
    state = start({"b": jnp.zeros(3)}, training)
    for number in range(2):
        key = jax.random.key(number)
        state, _ = epoch(LEVEL, state, key, marks, {}, Knobs(1e-3, 1.0), recipe=recipe(training), prepare=spy)
    jax.effects_barrier()
    first, second = np.concatenate(seen[:5]), np.concatenate(seen[5:])
    assert len(set(first)) == len(set(second)) == 50
    assert list(first) != list(second)


# A model whose log-likelihood tells how much ink there is: sum x log 2 - 40 log 3.
INK = LEVEL._replace(decode=lambda params, z, c: cvae.Bernoulli(params["b"] + jnp.zeros((len(z), 40))))
GREY = np.random.default_rng(5).random((6, 40)).astype(np.float32)


@pytest.fixture(scope="module", params=["grey", "dynamic", "static"])
def ink(request):
    """The kind of targets, and the ink of six pictures as training and validation met it, in each of three epochs."""
    training = cvae.Training(epochs=3, batch_size=6, learning_rate=1e-30, targets=request.param)
    level = {"b": jnp.log(2.0) * jnp.ones(1)}
    fitted = cvae.fit(INK, level, jax.random.key(6), GREY, {}, training, validation=(GREY, {}), progress=False)
    scores = np.array([[e.train.log_likelihood, e.validation.log_likelihood] for e in fitted.history])
    return request.param, (6 * (scores + 40 * np.log(3)) / np.log(2)).T


def test_targets_are_drawn_as_often_as_they_say(ink):
    """Static ones once and for all, dynamic ones at every sight; the validation set once, whichever it is."""
    targets, (train, validation) = ink
    slack = 6 * 40 * 1e-5
    assert np.ptp(validation) < slack
    assert (np.ptp(train) > 0.9) if targets == "dynamic" else (np.ptp(train) < slack)
    if targets == "grey":
        np.testing.assert_allclose([train[0], validation[0]], GREY.sum(), atol=slack)
        return
    counts = np.array([*train, *validation])
    assert np.all(np.abs(counts - np.rint(counts)) < slack), "black and white only"
    scatter = np.sqrt((GREY * (1 - GREY)).sum())
    assert np.all(np.abs(counts - GREY.sum()) < 5 * scatter)
    assert abs(train[0] - validation[0]) > 0.9, "drawn apart from each other"


def test_targets_must_be_grey_levels_to_be_drawn():
    training = cvae.Training(epochs=1, batch_size=5, targets="static")
    with pytest.raises(ValueError, match=r"x must be floats in \[0, 1\], got values from 5 to 5"):
        cvae.fit(LEVEL, {"b": jnp.zeros(3)}, jax.random.key(0), TARGET, {}, training, progress=False)


def pictures() -> tuple[np.ndarray, dict]:
    """A data set of pictures to complete."""
    return np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8), {}


def completing(**fields) -> tuple[cvae.CVAE, dict]:
    """A model that completes them."""
    condition = cvae.Image((4, 4, 1), "quadrants_1")
    model = cvae.make(cvae.Architecture((4, 4, 1), condition, 4, (6,), prior="learned", **fields))
    return model, weights(model)


def unchanged(before: dict, after: dict) -> dict:
    """Which parts of the parameters are as they were."""
    return {
        name: all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (part, after[name])), strict=True))
        for name, part in before.items()
    }


def test_what_is_frozen_stays_whatever_decays():
    model, params = completing(guess=True)
    training = cvae.Training(epochs=1, batch_size=10, weight_decay=0.5, frozen=("guess",))
    fitted = cvae.fit(model, params, jax.random.key(0), *pictures(), training, progress=False)
    assert unchanged(params, fitted.params) == {"decoder": False, "encoder": False, "guess": True, "prior": False}
    joint = cvae.fit(model, params, jax.random.key(0), *pictures(), replace(training, frozen=()), progress=False)
    assert not any(unchanged(params, joint.params).values())
    with pytest.raises(ValueError, match=r"frozen must name parts of the parameters, .*, got \['body'\]"):
        cvae.fit(model, params, jax.random.key(0), *pictures(), replace(training, frozen=("body",)), progress=False)


def test_a_gsnn_has_no_use_for_the_encoder_and_is_validated_under_the_prior():
    model, params = completing()
    training = cvae.Training(epochs=2, batch_size=10, alpha=0.0)
    fitted = cvae.fit(model, params, jax.random.key(0), *pictures(), training, validation=pictures(), progress=False)
    assert unchanged(params, fitted.params) == {"decoder": False, "encoder": True, "prior": False}
    for epoch_ in fitted.history:
        assert epoch_.train.kl == epoch_.validation.kl == 0
        assert epoch_.validation.loss == -epoch_.validation.log_likelihood


def test_noise_of_training_is_not_scored():
    """Pictures are moved and blocks omitted for training; the validation set is scored as it is."""
    model, params = completing()
    training = cvae.Training(epochs=1, batch_size=10, learning_rate=1e-12)
    x, c = pictures()
    losses = [
        cvae.fit(model, params, jax.random.key(0), x, c, setting, validation=(x, c), progress=False).history[0]
        for setting in (training, replace(training, shift=2), replace(training, omission=1.0))
    ]
    plain, moved, omitted = losses
    assert plain.validation.loss == pytest.approx(moved.validation.loss, rel=1e-5)
    assert plain.validation.loss == pytest.approx(omitted.validation.loss, rel=1e-5)
    assert len({round(loss.train.loss, 3) for loss in losses}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": np.zeros((3, *EVENT), np.uint8)}, r"validation must be a pair, \(x, c\), got a ndarray"),
        ({"training": {"epochs": 3}}, "training must be a Training, got {'epochs': 3}"),
    ],
)
def test_arguments_of_another_kind_are_refused(labelled, data, change, message):
    with pytest.raises(ValueError, match=message):
        fit(labelled, data, **change)


def test_parameters_that_are_none_are_refused(labelled, data):
    with pytest.raises(ValueError, match=r"params must be those of model\.init, got a NoneType"):
        cvae.fit(labelled.model, None, jax.random.key(0), *data, SETTINGS)


def test_rows_cannot_be_moved(labelled):
    model = cvae.make(cvae.Architecture((5,), cvae.Nothing(), 2, (6,)))
    rows = np.zeros((20, 5), np.uint8)
    with pytest.raises(ValueError, match=r"shift must be 0 where x is no picture \(H, W, C\), got 1"):
        cvae.fit(model, weights(model), jax.random.key(0), rows, {}, cvae.Training(batch_size=5, shift=1))
