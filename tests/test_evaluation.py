"""Scores of a data set: every example once, whatever the chunks."""

import jax
import numpy as np
import pytest

import cvae
from cvae.evaluation import mean_terms
from tests.conftest import CLASSES, EVENT
from tests.oracles import linear_gaussian


def examples(labelled, size: int):
    rng = np.random.default_rng(size)
    x = rng.integers(0, 256, (size, *EVENT), dtype=np.uint8)
    return labelled.model, labelled.params, x, {"label": rng.integers(0, CLASSES, size)}


@pytest.mark.parametrize(("size", "batch_size"), [(12, 4), (13, 4), (3, 4), (1, 1)])
def test_every_example_is_scored_once_and_in_order(labelled, key, size, batch_size):
    model, params, x, c = examples(labelled, size)
    terms = cvae.evaluate(model, params, key, x, c, batch_size=batch_size)
    assert [term.shape for term in terms] == [(size,)] * 3
    # The KL is exact, so it tells which example a row belongs to.
    floats, _ = cvae.prepare(key, jax.numpy.asarray(x), c)
    kl = cvae.kl_divergence(model.encode(params, floats, c), model.prior(params, c))
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-5)
    np.testing.assert_array_equal(terms.beta, 1)


def test_chunks_draw_different_latents(labelled, key):
    model, params, x, c = examples(labelled, 1)
    x, c = np.repeat(x, 8, axis=0), {"label": np.repeat(c["label"], 8)}
    assert len(np.unique(cvae.evaluate(model, params, key, x, c, batch_size=2).log_likelihood)) == 8


def test_the_mean_over_many_copies_is_log_p():
    oracle = linear_gaussian(exact=True)
    copies = 3000
    x, c = np.repeat(oracle.x, copies, axis=0), {"row": np.repeat(oracle.c["row"], copies, axis=0)}
    terms = cvae.evaluate(oracle.model, oracle.params, jax.random.key(3), x, c, batch_size=1000)
    draws = np.asarray(terms.value, np.float64).reshape(3, copies)
    error = draws.std(axis=1, ddof=1) / np.sqrt(copies)
    assert np.all(np.abs(draws.mean(axis=1) - oracle.exact_log_prob()) < 5 * error)


def test_means(labelled, key):
    model, params, x, c = examples(labelled, 5)
    terms = cvae.evaluate(model, params, key, x, c)
    mean = mean_terms(terms)
    assert mean.loss == pytest.approx(mean.kl - mean.log_likelihood)
    assert mean.loss == pytest.approx(float(-terms.value.mean()))


BAD = {
    "grey levels": (lambda x: x.astype(np.int32), "x must be uint8 or floats in \\[0, 1\\], got int32 values"),
    "range": (lambda x: x.astype(np.float32), "x must be floats in \\[0, 1\\], got values from"),
    "nan": (lambda x: np.full(x.shape, np.nan), "got 24 NaN"),
    "shape": (lambda x: x[..., 0], r"x must have shape \[B, 2, 3, 1\], got \(4, 2, 3\)"),
    "empty": (lambda x: x[:0], "x must hold at least one example"),
    "length": (lambda x: x[:3], "one entry an example of x, 3 of them, got 4"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_bad_examples_are_refused(labelled, key, change, message):
    model, params, x, c = examples(labelled, 4)
    with pytest.raises(ValueError, match=message):
        cvae.evaluate(model, params, key, change(x), c)


@pytest.mark.parametrize("name", ["batch_size", "num_samples"])
def test_sizes_must_be_whole_numbers(labelled, key, name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got 0"):
        cvae.evaluate(*labelled[:2], key, *labelled[2:], **{name: 0})
