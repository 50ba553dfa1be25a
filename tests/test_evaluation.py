"""Scores of a data set: exact where the answer is known, every example once, whatever the chunks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae import evaluation
from tests.conftest import CLASSES, EVENT
from tests.oracles import BATCH, CONDITIONS, LATENT, linear_gaussian, quickly_compiled
from tests.oracles import EVENT as ELEMENTS

every_condition = pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())


@pytest.fixture(autouse=True, scope="module")
def _quickly_compiled():
    with quickly_compiled():
        yield


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
    """How far the mean of draws is from the truth, in its own standard errors, [B]."""
    return np.abs(values.mean(axis=0) - truth) / (values.std(axis=0, ddof=1) / np.sqrt(len(values)))


@every_condition
@pytest.mark.parametrize(("num_samples", "copies"), [(1, 4000), (10, 1000), (100, 300), (1000, 100)])
def test_the_estimate_agrees_with_the_exact_log_likelihood(condition, num_samples, copies):
    """Exp(estimate) is unbiased for p(x | c), with however few samples and however wrong an encoder."""
    oracle = linear_gaussian(exact=False, condition=condition)
    off = estimates(oracle, num_samples, copies) - oracle.exact_log_prob()
    # An estimate of K samples scatters by about sqrt((chi^2 of q) / K): the test has power to see a wrong weight.
    assert np.all(off.std(axis=0) < 2 / np.sqrt(num_samples))
    assert np.all(standard_errors_off(np.exp(off), 1.0) < 5)


def wrong_models():
    """The oracle with a density that is not the one z is drawn from, or that x was asked about."""
    model = linear_gaussian(exact=False).model

    def halved(normal):
        return normal._replace(log_std=normal.log_std - math.log(2))

    class Shouting(cvae.Normal):  # draws as the posterior, and says another density of it
        def log_prob(self, z):
            return jnp.zeros(len(z))

    return {
        "no log q": model._replace(encode=lambda *given: Shouting(*model.encode(*given))),
        "no prior": model._replace(prior=lambda *given: Shouting(*model.prior(*given))),
        "narrow prior": model._replace(prior=lambda *given: halved(model.prior(*given))),
        "narrow decoder": model._replace(decode=lambda *given: halved(model.decode(*given))),
    }


@pytest.mark.parametrize("wrong", ["no log q", "no prior", "narrow prior", "narrow decoder"])
def test_a_wrong_density_does_not_agree(wrong):
    """What the test above relies on."""
    oracle = linear_gaussian(exact=False)
    exact, oracle = oracle.exact_log_prob(), oracle._replace(model=wrong_models()[wrong])
    assert np.all(standard_errors_off(np.exp(estimates(oracle, 10, 1000) - exact), 1.0) > 5)


def test_it_is_the_importance_weighted_bound():
    """The same mean as `iwae` with as many samples, which lies below log p(x | c) and tells K."""
    oracle = linear_gaussian(exact=False, condition=CONDITIONS["mixed"])
    keys = jax.random.split(jax.random.key(8), 2000)

    def bound(num_samples):
        score = lambda key: cvae.iwae(*oracle[:2], key, oracle.x, oracle.c, num_samples=num_samples)  # noqa: E731
        return np.asarray(jax.jit(jax.vmap(score))(keys), np.float64)

    four, two, scored = bound(4), bound(2), estimates(oracle, 4, 2000)

    def apart(a, b):
        return np.abs(a.mean(axis=0) - b.mean(axis=0)) / np.sqrt((a.var(axis=0) + b.var(axis=0)) / 2000)

    assert np.all(apart(four, scored) < 5)
    assert np.all(apart(two, scored) > 5), "or another number of samples could not be told"


@pytest.mark.parametrize("side_by_side", [1, 4, 7, 50])
def test_turns_that_do_not_divide_the_samples_count_each_once(side_by_side):
    """Ten samples by turns of 4 are 4, 4 and 2: with the exact posterior each is worth the same, exactly."""
    oracle = linear_gaussian(exact=True)
    x, c = oracle.repeated(1)
    scored = cvae.log_likelihood(*oracle[:2], jax.random.key(1), x, c, num_samples=10, side_by_side=side_by_side)
    np.testing.assert_allclose(scored.value, oracle.exact_log_prob(), rtol=1e-5)
    np.testing.assert_allclose(scored.effective_samples, 10, rtol=1e-3)


def test_turns_that_do_not_divide_the_samples_are_unbiased():
    oracle = linear_gaussian(exact=False)
    off = estimates(oracle, 10, 1000, side_by_side=4) - oracle.exact_log_prob()
    assert np.all(standard_errors_off(np.exp(off), 1.0) < 5)


def test_the_effective_sample_size_is_between_one_and_all():
    oracle = linear_gaussian(exact=False)
    x, c = oracle.repeated(50)

    def effective(num_samples):
        scored = cvae.log_likelihood(*oracle[:2], jax.random.key(1), x, c, num_samples=num_samples)
        return scored.effective_samples.reshape(BATCH, 50)

    np.testing.assert_allclose(effective(1), 1, rtol=1e-4)
    several = effective(1000)
    assert np.all(several > 1)
    assert np.all(several < 1000)
    # The limit is K / E_q[(p / q)^2], an integral of Gaussians; what is left of the bias is O(1 / K).
    q = oracle.model.encode(oracle.params, oracle.x, oracle.c)
    mean, covariance = oracle.exact_posterior()
    shift = mean - np.asarray(q.mean, np.float64)
    of_p, of_q = np.linalg.inv(covariance), np.eye(LATENT) * np.exp(-2 * np.asarray(q.log_std, np.float64))[:, None]
    left = 2 * of_p - of_q
    exponent = np.einsum("bi,bij,bj->b", shift, 2 * of_p @ np.linalg.inv(left) @ of_p - of_p, shift)
    second = np.linalg.det(of_p) / np.sqrt(np.linalg.det(of_q) * np.linalg.det(left)) * np.exp(exponent)
    assert np.all(second > 1.2)
    error = several.std(axis=1, ddof=1) / np.sqrt(50)
    assert np.all(np.abs(several.mean(axis=1) - 1000 / second) < 5 * error + 5)


def test_a_score_does_not_depend_on_the_chunks():
    """The noise of an example is its row's own, and so is what `prepare` draws for it."""
    oracle = linear_gaussian(exact=False, condition=CONDITIONS["mixed"])
    x, c = oracle.repeated(4)

    def noisy(key, x, c):
        x, c = cvae.preparation.preparation(CONDITIONS["mixed"])(key, x, c)
        return x + jax.random.normal(key, x.shape), c

    def score(batch_size):
        shared = {"batch_size": batch_size, "prepare": noisy}
        bound = cvae.log_likelihood(*oracle[:2], jax.random.key(2), x, c, num_samples=6, side_by_side=4, **shared)
        return (*bound, *cvae.evaluate(*oracle[:2], jax.random.key(2), x, c, **shared))

    whole = score(100)
    assert len(np.unique(whole[0])) == len(np.unique(whole[2])) == 12
    for a, b in zip(score(5), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def widest(jaxpr) -> int:
    """Elements of the largest array that a program computes, those inside its loops included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [math.prod(out.aval.shape) for out in equation.outvars]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)  # noqa: PLW2901
            sizes += [widest(inner)] if hasattr(inner, "eqns") else []
    return max(sizes)


@pytest.mark.parametrize(("batch_size", "num_samples", "side_by_side"), [(2, 5000, 7), (3, 5, 50), (11, 30, 1)])
def test_memory_is_bounded_by_the_pictures_decoded_side_by_side(batch_size, num_samples, side_by_side):
    """Seen in the program itself, of a model whose pictures are much larger than its latents."""
    pixels = 1001

    def decode(params, z, c):
        return cvae.Bernoulli(z.sum(axis=1, keepdims=True) + jnp.zeros((len(z), pixels)))

    nought = cvae.Normal(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    model = cvae.CVAE(lambda key: {}, lambda params, x, c: nought, lambda params, c: nought, decode)
    program = jax.make_jaxpr(
        lambda key, x: evaluation._log_likelihood_of(
            model,
            {},
            key,
            x,
            {},
            num_samples=num_samples,
            side_by_side=min(side_by_side, num_samples),
            proposal="posterior",
            prepare=cvae.prepare,
        )
    )(jax.random.split(jax.random.key(0), batch_size), jnp.zeros((batch_size, pixels)))
    assert widest(program.jaxpr) == batch_size * min(side_by_side, num_samples) * pixels


@pytest.mark.parametrize("name", ["batch_size", "num_samples", "side_by_side"])
def test_sizes_of_the_estimate_must_be_whole_numbers(labelled, key, name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got 0"):
        cvae.log_likelihood(*labelled[:2], key, *labelled[2:], **{name: 0})


def test_a_bar_is_drawn_only_when_asked_for(key, capfd):
    oracle = linear_gaussian(exact=True)
    cvae.log_likelihood(*oracle[:2], key, *oracle.repeated(1), num_samples=10, side_by_side=4)
    assert capfd.readouterr() == ("", "")
    cvae.log_likelihood(*oracle[:2], key, *oracle.repeated(1), num_samples=10, side_by_side=4, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "log p(x | c)" in shown.err


# The ELBO of a set


def test_every_example_is_scored_once_and_in_order(labelled, key):
    """The KL is exact, so it tells which example a row belongs to."""
    model, params, x, c = examples(labelled, 13)
    floats, _ = cvae.prepare(key, jnp.asarray(x), c)
    kl = cvae.kl_divergence(model.encode(params, floats, c), model.prior(params, c))
    assert len(np.unique(kl)) == 13
    for size, batch_size in ((12, 4), (13, 4), (4, 4), (3, 4), (1, 1)):
        terms = cvae.evaluate(model, params, key, x[:size], {"label": c["label"][:size]}, batch_size=batch_size)
        assert [term.shape for term in terms] == [(size,)] * 3
        np.testing.assert_allclose(terms.kl, kl[:size], rtol=1e-4)
        np.testing.assert_array_equal(terms.penalty, terms.kl)


def test_copies_of_an_example_draw_different_latents(labelled, key):
    model, params, x, c = examples(labelled, 1)
    x, c = np.repeat(x, 8, axis=0), {"label": np.repeat(c["label"], 8)}
    assert len(np.unique(cvae.evaluate(model, params, key, x, c, batch_size=4).log_likelihood)) == 8


def test_the_mean_over_many_copies_is_log_p_and_more_samples_shrink_the_spread():
    oracle = linear_gaussian(exact=True)
    x, c = oracle.repeated(1500)

    def draws(num_samples):
        terms = cvae.evaluate(*oracle[:2], jax.random.key(3), x, c, num_samples=num_samples, batch_size=1500)
        return np.asarray(terms.value, np.float64).reshape(BATCH, 1500).T

    one, many = draws(1), draws(16)
    for values in (one, many):
        assert np.all(standard_errors_off(values, oracle.exact_log_prob()) < 5)
    # A log density quadratic in z has a kurtosis of 15 at most, which says how well a variance is known.
    assert np.all(np.abs(16 * many.var(axis=0) / one.var(axis=0) - 1) < 5 * np.sqrt(2 * 14 / 1500))


def test_means(labelled, key):
    model, params, x, c = examples(labelled, 13)
    terms = cvae.evaluate(model, params, key, x, c, batch_size=4)
    means = evaluation.mean_terms(terms)
    assert means.loss == pytest.approx(means.kl - means.log_likelihood)
    assert means.loss == pytest.approx(float(-terms.value.mean()))


def test_an_estimate_has_the_standard_error_of_its_mean():
    estimate = evaluation.mean(np.array([1.0, 2.0, 6.0], np.float32))
    assert estimate == pytest.approx((3.0, np.sqrt(7 / 3)))
    assert np.isnan(evaluation.mean(np.array([2.0])).standard_error)
    # Sums of float32 would lose these differences.
    values = (1e6 + np.random.default_rng(0).normal(size=1000)).astype(np.float32)
    assert evaluation.mean(values).value == pytest.approx(float(values.astype(np.float64).mean()), rel=1e-12)
    draws = [evaluation.mean(np.random.default_rng(seed).normal(2.0, 3.0, 100)) for seed in range(1000)]
    within = np.mean([abs(draw.value - 2) < draw.standard_error for draw in draws])
    assert abs(within - 0.68) < 5 * np.sqrt(0.68 * 0.32 / 1000)


# Active units


def test_latents_are_active_if_their_posterior_depends_on_x():
    """Of five latents two hear x loudly, one too faintly to count, one hears the condition alone, one nothing."""
    loudness = jnp.array([1.0, 0.05, 0.0, 0.0, 0.3])

    def moved(c):
        return jnp.zeros((len(c["label"]), 5)).at[:, 2].set(10.0 * c["label"])

    def encode(params, x, c):
        return cvae.Normal(loudness * x + moved(c), jnp.full(x.shape, -1.0))

    def decode(params, z, c):
        return cvae.Normal(z, jnp.zeros(z.shape))

    learned = lambda params, c: cvae.Normal(moved(c), jnp.zeros((len(c["label"]), 5)))  # noqa: E731
    fixed = lambda params, c: cvae.Normal(jnp.zeros((1, 5)), jnp.zeros((1, 5)))  # noqa: E731
    rng = np.random.default_rng(1)
    x, c = rng.normal(size=(401, 5)).astype(np.float32), {"label": rng.integers(0, 2, 401)}

    def active(prior):
        model = cvae.CVAE(lambda key: {}, encode, prior, decode)
        return cvae.evaluation.active_units(model, {}, jax.random.key(0), x, c, batch_size=100)

    units = active(learned)
    assert units.active == 2
    variance = np.asarray(loudness, np.float64) ** 2 * x.var(axis=0, dtype=np.float64)
    np.testing.assert_allclose(units.variance, variance, rtol=1e-3, atol=1e-10)
    # Of a normal's variance, sigma^2 sqrt(2 / N); known here to 5 sqrt(24 / N) of itself, half of that in the root.
    expected = variance * np.sqrt(2 / len(x))
    np.testing.assert_allclose(units.standard_error, expected, rtol=5 * np.sqrt(24 / len(x)) / 2, atol=1e-9)
    # Under a fixed prior the third latent tells of the condition: Burda et al. would count it, and so it is.
    assert active(fixed).active == 3


@pytest.mark.parametrize("function", [cvae.evaluate, cvae.log_likelihood, cvae.evaluation.active_units])
def test_a_size_of_chunks_must_be_a_whole_number(labelled, key, function):
    with pytest.raises(ValueError, match=r"batch_size must be a whole number of at least 1, got 2\.5"):
        function(*labelled[:2], key, *labelled[2:], batch_size=2.5)


BAD = {
    "grey levels": (lambda x: x.astype(np.int32), "x must be uint8 or floats in \\[0, 1\\], got int32 values"),
    "range": (lambda x: x.astype(np.float32), "x must be floats in \\[0, 1\\], got values from"),
    "nan": (lambda x: np.full(x.shape, np.nan), "got 24 NaN"),
    "shape": (lambda x: x[..., 0], r"x must have shape \[B, 2, 3, 1\], got \(4, 2, 3\)"),
    "empty": (lambda x: x[:0], "x must hold at least one example"),
    "length": (lambda x: x[:3], "one entry an example of x, 3 of them, got 4"),
}


@pytest.mark.parametrize("function", [cvae.evaluate, cvae.log_likelihood, cvae.evaluation.active_units])
@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_bad_examples_are_refused(labelled, key, function, change, message):
    model, params, x, c = examples(labelled, 4)
    with pytest.raises(ValueError, match=message):
        function(model, params, key, change(x), c)


def test_stored_conditions_are_completed(key):
    """A data set stores no picture: scoring cuts it from x, by the model's own preparation."""
    oracle = linear_gaussian(exact=False, condition=CONDITIONS["image"])
    x, c = oracle.repeated(1)
    assert c.keys() == {"observed"}
    kl = cvae.evaluate(*oracle[:2], key, x, c).kl
    model, params = oracle[:2]
    expected = cvae.kl_divergence(model.encode(params, oracle.x, oracle.c), model.prior(params, oracle.c))
    np.testing.assert_allclose(kl, expected, rtol=1e-5)
    assert x.shape == (BATCH, ELEMENTS)


def test_sizes_must_be_whole_numbers(labelled, key):
    with pytest.raises(ValueError, match="num_samples must be a whole number of at least 1, got 0"):
        cvae.evaluate(*labelled[:2], key, *labelled[2:], num_samples=0)
