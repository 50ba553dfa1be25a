"""Fitting: reproducible to the bit, silent when asked, an Adam step is an Adam step, and it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cvae
from cvae.training import epoch, start
from tests.conftest import CLASSES, EVENT

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


def test_another_key_gives_others(labelled, data):
    one = fit(labelled, data)
    two = cvae.fit(labelled.model, labelled.params, jax.random.key(5), *data, SETTINGS, progress=False)
    assert np.any(one.params["decoder"]["logits"]["kernel"] != two.params["decoder"]["logits"]["kernel"])


def test_it_learns(labelled, data):
    fitted = fit(labelled, data, training=cvae.Training(epochs=60, batch_size=10, learning_rate=3e-3), validation=data)
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
    fitted = fit(labelled, data, validation=data, on_epoch=seen.append)
    assert fitted.history == seen
    assert [e.epoch for e in seen] == [1, 2, 3]
    for e in seen:
        for terms in (e.train, e.validation):
            assert terms.loss == pytest.approx(terms.kl - terms.log_likelihood, rel=1e-5)
        assert e.examples_per_second == pytest.approx(SIZE / e.seconds)
    assert fit(labelled, data).history[0].validation is None


def test_parameters_given_are_left_alone(labelled, data):
    before = jax.tree.map(np.array, labelled.params)
    fitted = fit(labelled, data)
    jax.tree.map(np.testing.assert_array_equal, before, labelled.params)
    assert np.any(fitted.params["encoder"]["posterior"]["kernel"] != before["encoder"]["posterior"]["kernel"])


def test_silent_when_asked_and_a_bar_otherwise(labelled, data, capfd):
    fit(labelled, data)
    assert capfd.readouterr() == ("", "")
    fit(labelled, data, progress=True, name="a name")
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "a name: 100%" in shown.err
    assert "loss" in shown.err
    assert "ex/s" in shown.err


def test_an_epoch_of_one_step_is_one_step_of_adam(labelled, data):
    """The mean loss, so that the step does not depend on the batch size; Adam as Optax has it; keys spent once."""
    x, c = jnp.asarray(data[0]), {"label": jnp.asarray(data[1]["label"])}
    key = jax.random.key(8)
    model, rate = labelled.model, 1e-2
    after, _ = epoch(model, start(labelled.params, rate), key, x, c, 0.5, batch_size=SIZE)

    order_key, steps_key = jax.random.split(key)
    rows = jax.random.permutation(order_key, SIZE)
    elbo_key = jax.random.split(jax.random.fold_in(steps_key, 0))[1]

    def loss(params):
        terms = cvae.elbo(model, params, elbo_key, x[rows] / 255, {"label": c["label"][rows]})
        return (0.5 * terms.kl - terms.log_likelihood).mean()

    adam = optax.adam(rate)
    updates, _ = adam.update(jax.grad(loss)(labelled.params), adam.init(labelled.params))
    expected = optax.apply_updates(labelled.params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.params, expected)


def test_an_epoch_meets_every_example_at_most_once(labelled, data):
    """Seen through `prepare`, which is handed the pictures of each step."""
    marks = jnp.arange(SIZE, dtype=jnp.float32)
    x = (marks / 1000).reshape(SIZE, 1, 1, 1) * jnp.ones((SIZE, *EVENT))
    seen = []

    def spy(key, x, c):
        jax.debug.callback(lambda rows: seen.append(np.rint(1000 * rows).astype(int)), x[:, 0, 0, 0])
        return x, c

    state = start(labelled.params, 1e-3)
    for number in range(2):
        key = jax.random.key(number)
        state, _ = epoch(labelled.model, state, key, x, data[1], 1.0, batch_size=10, prepare=spy)
    jax.effects_barrier()
    first, second = np.concatenate(seen[:5]), np.concatenate(seen[5:])
    assert len(set(first)) == len(set(second)) == 50
    assert list(first) != list(second)


def test_a_learning_rate_or_beta_compiles_nothing_again(labelled, data):
    fit(labelled, data)
    compiled = epoch._cache_size()
    fit(labelled, data, training=cvae.Training(epochs=1, batch_size=10, learning_rate=0.5e-3, beta=2.0))
    assert epoch._cache_size() == compiled


def test_several_latents_a_step(labelled, data):
    fitted = fit(labelled, data, training=cvae.Training(epochs=1, batch_size=10, num_samples=3))
    assert np.isfinite(fitted.history[0].train.loss)


def test_a_loss_that_is_not_finite_stops_the_fit(labelled, data):
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), labelled.params)
    with pytest.raises(FloatingPointError, match="the loss of epoch 1 is nan; try a lower learning_rate"):
        cvae.fit(labelled.model, broken, jax.random.key(0), *data, SETTINGS, progress=False)


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
