"""Measures of a data set: exact where the answer is known, every example once, for any batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae import evaluation
from cvae.distributions import Ladder, Normal
from tests.conftest import CLASSES, EVENT, build
from tests.oracles import BATCH, CONDITIONS, LATENT, linear_gaussian

every_condition = pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())


def examples(labelled, size: int):
    rng = np.random.default_rng(size)
    x = rng.integers(0, 256, (size, *EVENT), dtype=np.uint8)
    return labelled.model, labelled.params, x, {"label": rng.integers(0, CLASSES, size)}


# Importance sampling


def estimates(oracle, num_samples: int, copies: int, **arguments) -> np.ndarray:
    """Independent estimates of log p(x | c), [copies, B]: an estimate for every copy of an example."""
    x, c = oracle.repeated(copies)
    arguments = {"batch_size": len(x), "num_samples": num_samples} | arguments
    scored = cvae.log_likelihood(oracle.model, oracle.params, jax.random.key(num_samples), x, c, **arguments)
    assert scored.value.shape == scored.effective_samples.shape == (BATCH * copies,)
    return np.asarray(scored.value, np.float64).reshape(BATCH, copies).T


def standard_errors_off(values: np.ndarray, truth: np.ndarray | float) -> np.ndarray:
    """Distance of the mean of draws from the truth, in its own standard errors, [B]."""
    return np.abs(values.mean(axis=0) - truth) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))


@every_condition
@pytest.mark.parametrize(("num_samples", "copies"), [(10, 1000), (120, 200)])
def test_the_estimate_agrees_with_the_exact_log_likelihood(condition, num_samples, copies):
    """exp(estimate) is unbiased for p(x | c), with few samples and a wrong encoder, also where turns are a part."""
    oracle = linear_gaussian(exact=False, condition=condition)
    off = estimates(oracle, num_samples, copies) - oracle.exact_log_prob()
    # An estimate of K samples scatters by about sqrt((chi^2 of q) / K): the test has power to see a wrong weight.
    assert np.all(off.std(axis=0) < 2 / np.sqrt(num_samples))
    assert np.all(standard_errors_off(np.exp(off), 1.0) < 5)


def test_the_effective_sample_size_has_its_limit():
    """K / E_q[(p / q)^2], an integral of Gaussians; what is left of the bias is O(1 / K)."""
    oracle, copies = linear_gaussian(exact=False), 50
    x, c = oracle.repeated(copies)
    scored = cvae.log_likelihood(*oracle[:2], jax.random.key(1), x, c, num_samples=1000)
    several = scored.effective_samples.astype(np.float64).reshape(BATCH, copies)
    assert np.all((several > 1) & (several < 1000))
    q = oracle.model.encode(oracle.params, oracle.x, oracle.c)
    mean, covariance = oracle.exact_posterior()
    shift = mean - np.asarray(q.mean, np.float64)
    of_p, of_q = np.linalg.inv(covariance), np.eye(LATENT) * np.exp(-2 * np.asarray(q.log_std, np.float64))[:, None]
    left = 2 * of_p - of_q
    exponent = np.einsum("bi,bij,bj->b", shift, 2 * of_p @ np.linalg.inv(left) @ of_p - of_p, shift)
    second = np.linalg.det(of_p) / np.sqrt(np.linalg.det(of_q) * np.linalg.det(left)) * np.exp(exponent)
    assert np.all(second > 1.2)
    error = several.std(axis=1, ddof=1) / np.sqrt(copies)
    assert np.all(np.abs(several.mean(axis=1) - 1000 / second) < 5 * error + 5)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_scores_do_not_depend_on_the_batch_size(impl):
    """The noise of an example is its row's own."""
    oracle, key = linear_gaussian(exact=False, condition=CONDITIONS["mixed"]), jax.random.key(2, impl=impl)
    x, c = oracle.repeated(4)

    def score(batch_size):
        bound = cvae.log_likelihood(*oracle[:2], key, x, c, num_samples=6, batch_size=batch_size)
        return (*bound, *cvae.evaluate(*oracle[:2], key, x, c, batch_size=batch_size))

    whole = score(100)
    assert len(np.unique(whole[0])) == len(np.unique(whole[2])) == 12
    for a, b in zip(score(5), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_a_bar_is_drawn_only_with_progress(key, capfd):
    oracle = linear_gaussian(exact=True)
    for progress in (False, True):
        cvae.log_likelihood(*oracle[:2], key, oracle.x, oracle.c, num_samples=10, progress=progress)
        shown = capfd.readouterr()
        assert shown.out == ""
        assert ("log p(x | c)" in shown.err) == progress


# The ELBO of a data set


def test_every_example_is_scored_once_and_in_order(labelled, key):
    """The KL is exact, so it tells which example a row belongs to; uint8 pixels are 255ths."""
    model, params, x, c = examples(labelled, 13)
    floats = x / np.float32(255)
    kl = cvae.kl_divergence(model.encode(params, floats, c), model.prior(params, c))
    assert len(np.unique(kl)) == 13
    for size, batch_size in ((13, 4), (4, 4), (3, 4)):
        terms = cvae.evaluate(model, params, key, x[:size], {"label": c["label"][:size]}, batch_size=batch_size)
        assert all(isinstance(term, np.ndarray) and term.shape == (size,) for term in terms)
        np.testing.assert_allclose(terms.kl, kl[:size], rtol=1e-4)
        np.testing.assert_array_equal(terms.penalty, terms.kl)


def test_any_function_of_an_example_is_applied(labelled, key):
    model, params, x, c = examples(labelled, 5)

    def statistics(model, params, key, x, c, *, scale):
        return {"mean": scale * x.mean(axis=(1, 2, 3)), "label": c["label"]}

    found = cvae.over_examples(statistics, model, params, key, x, c, batch_size=2, scale=3.0)
    np.testing.assert_allclose(found["mean"], 3 * x.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)
    np.testing.assert_array_equal(found["label"], c["label"])


def test_the_mean_over_copies_is_log_p_and_more_samples_shrink_the_spread():
    oracle = linear_gaussian(exact=True)
    x, c = oracle.repeated(1500)

    def draws(num_samples):
        terms = cvae.evaluate(*oracle[:2], jax.random.key(3), x, c, num_samples=num_samples, batch_size=1500)
        return np.asarray(terms.value, np.float64).reshape(BATCH, 1500).T

    one, many = draws(1), draws(16)
    for values in (one, many):
        assert np.all(standard_errors_off(values, oracle.exact_log_prob()) < 5)
    # A log density quadratic in z has a kurtosis of 15 at most, hence the error of a variance.
    assert np.all(np.abs(16 * many.var(axis=0) / one.var(axis=0) - 1) < 5 * np.sqrt(2 * 14 / 1500))


def test_an_estimate_has_the_standard_error_of_its_mean():
    estimate = evaluation.mean(np.array([1.0, 2.0, 6.0], np.float32))
    assert estimate == pytest.approx((3.0, np.sqrt(7 / 3)))
    assert np.isnan(evaluation.mean(np.array([2.0])).standard_error)
    # Sums of float32 would lose these differences.
    values = (1e6 + np.random.default_rng(0).normal(size=1000)).astype(np.float32)
    assert evaluation.mean(values).value == pytest.approx(float(values.astype(np.float64).mean()), rel=1e-12)
    for bad in (np.zeros(0), np.zeros((2, 2))):
        with pytest.raises(ValueError, match=r"values must be real numbers, shape \[N\], N > 0"):
            evaluation.mean(bad)


def test_far_from_the_origin_scores_are_those_at_the_origin(key):
    """With x of mean 1e9 and std 1, and Unix seconds as a condition: float32 holds none of their digits."""
    rng = np.random.default_rng(0)
    y, seconds = rng.normal(size=(6, 3)), rng.normal(size=(6, 1))
    shape = {"event_shape": (3,), "latent_size": 2, "hidden": (5,)}

    def scores(shift, x, values):
        condition = cvae.Continuous(1, (1.7e9 * shift,), (300.0,))
        likelihood = cvae.Normal(location=(1e9 * shift,), scale=(1.0,))
        model, params, _, _ = build(condition, **shape, likelihood=likelihood)
        c = {"continuous": values}
        elbo = cvae.evaluate(model, params, key, x, c)
        return (*elbo, *cvae.log_likelihood(model, params, key, x, c, num_samples=5))

    near, far = scores(0, y, 300 * seconds), scores(1, 1e9 + y, 1.7e9 + 300 * seconds)
    for a, b in zip(near, far, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    assert np.ptp(near[0]) > 0.1


# Active units


def hand_made(encode, prior):
    """A model whose decoder returns z."""
    return cvae.CVAE(lambda key: {}, encode, prior, lambda params, z, c: Normal(z, jnp.zeros(z.shape)))


def test_latents_are_active_if_their_posterior_depends_on_x():
    """Of five latents two depend on x, one too little to count, one on the condition alone, one on nothing."""
    slope = np.array([1.0, 0.05, 0.0, 0.0, 0.3], np.float32)

    def moved(c):
        return jnp.zeros((len(c["label"]), 5)).at[:, 2].set(10.0 * c["label"])

    def encode(params, x, c):
        return Normal(slope * x + moved(c), jnp.full(x.shape, -1.0))

    rng = np.random.default_rng(1)
    x, c = rng.normal(size=(401, 5)).astype(np.float32), {"label": rng.integers(0, 2, 401)}

    def active(prior):
        return cvae.active_units(hand_made(encode, prior), {}, jax.random.key(0), x, c, batch_size=100)

    units = active(lambda params, c: Normal(moved(c), jnp.zeros((len(c["label"]), 5))))
    assert units.active == 2
    variance = slope.astype(np.float64) ** 2 * x.var(axis=0, dtype=np.float64)
    np.testing.assert_allclose(units.variance, variance, rtol=1e-3, atol=1e-10)
    # Of a normal's variance, sigma^2 sqrt(2 / N); known here to 5 sqrt(24 / N) of itself, half of that in the root.
    expected = variance * np.sqrt(2 / len(x))
    np.testing.assert_allclose(units.standard_error, expected, rtol=5 * np.sqrt(24 / len(x)) / 2, atol=1e-9)
    # With a fixed prior the third latent depends on the condition: Burda et al. count it, and so it is.
    assert active(lambda params, c: Normal(jnp.zeros((1, 5)), jnp.zeros((1, 5)))).active == 3


def test_active_units_do_not_depend_on_the_scale_of_z():
    """A learned prior may have any scale; the model with z rescaled by 0.05 is the same model."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 2)).astype(np.float32)

    def units(scale):
        log_std = jnp.full((1, 2), np.log(0.5 * scale), jnp.float32)

        def encode(params, x, c):
            return Normal(scale * x * np.array([0.3, 0.01], np.float32), jnp.full(x.shape, np.log(0.1 * scale)))

        model = hand_made(encode, lambda params, c: Normal(jnp.zeros((1, 2)), log_std))
        return cvae.active_units(model, {}, jax.random.key(0), x, {})

    whole, small = units(1.0), units(0.05)
    assert (whole.active, small.active) == (1, 1)
    np.testing.assert_allclose(small.variance, whole.variance, rtol=1e-4)


def test_variation_that_comes_from_draws_above_is_not_counted():
    """A ladder whose second layer follows the draw of the first, and a third that depends on x."""

    def layer(state, number, above):
        x, slope = state
        mean = [lambda: 0 * x, lambda: above[:, :1], lambda: slope * x][number]()
        return Normal(mean, jnp.full(mean.shape, -0.7 if number else 0.0))

    def prior_layer(state, number, above):
        mean = jnp.zeros((state.shape[0], 1))
        return Normal(mean, jnp.zeros(mean.shape))

    def encode(params, x, c):
        return Ladder((x, 0.5), layer, 3)

    model = hand_made(encode, lambda params, c: Ladder(jnp.zeros((1, 1)), prior_layer, 3))
    x = np.random.default_rng(3).normal(size=(2000, 1)).astype(np.float32)
    units = cvae.active_units(model, {}, jax.random.key(0), x, {})
    assert np.all(np.abs(units.variance - [0, 0, 0.25 * x.var()]) < 5 * units.standard_error + 1e-6)
    assert units.variance[2] > 0.2
    assert units.standard_error[1] > 0.005  # the draws do vary


# Arguments


@pytest.mark.parametrize("function", [cvae.evaluate, cvae.log_likelihood, cvae.active_units], ids=lambda f: f.__name__)
def test_bad_arguments_are_refused(labelled, key, function):
    model, params, x, c = examples(labelled, 4)
    for wrong, message in ((x.astype(np.int32), "x must be floats.* got int32"), (x[:3], "one entry per example of x")):
        with pytest.raises(ValueError, match=message):
            function(model, params, key, wrong, c)
    with pytest.raises(ValueError, match=r"batch_size must be an integer of at least 1, got 2\.5"):
        function(model, params, key, x, c, batch_size=2.5)
