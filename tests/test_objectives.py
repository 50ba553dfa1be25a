"""The objectives against exact answers: linear-Gaussian models for every condition, integrals, and their laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvae
from cvae.distributions import Normal
from cvae.objectives import hybrid, importance_estimate
from tests.conftest import build
from tests.oracles import (
    BATCH,
    CONDITIONS,
    EVENT,
    LATENT,
    NOISE,
    integrated_log_prob,
    linear_gaussian,
    linear_ladder,
)

SAMPLES, FEW, MANY = 4000, 5, 24
every_condition = pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())


def draws(oracle, score, seed: int, samples: int = SAMPLES) -> np.ndarray:
    """`score(model, params, key, x, c)` for many keys, [samples, B] in double precision."""
    keys, params = jax.random.split(jax.random.key(seed), samples), getattr(oracle, "params", {})
    drawn = jax.jit(jax.vmap(lambda key: score(oracle.model, params, key, oracle.x, oracle.c)))(keys)
    return np.asarray(drawn, np.float64)


def iwae_of(num_samples: int):
    """A score: the bound of so many samples."""
    return partial(cvae.iwae, num_samples=num_samples)


def error(values) -> np.ndarray:
    """Standard error of the mean of draws."""
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


def gap(oracle) -> np.ndarray:
    """KL(q(z | x, c) || p(z | x, c)), [B], from the exact posterior: log p(x | c) less the ELBO."""
    q = oracle.model.encode(oracle.params, oracle.x, oracle.c)
    mean, covariance = oracle.exact_posterior()
    variance = np.exp(2 * np.asarray(q.log_std, np.float64))
    precision, shift = np.linalg.inv(covariance), np.asarray(q.mean, np.float64) - mean
    trace = np.einsum("bi,bii->b", variance, precision)
    distance = np.einsum("bi,bij,bj->b", shift, precision, shift)
    return 0.5 * (trace + distance - LATENT + np.linalg.slogdet(covariance)[1] - np.log(variance).sum(axis=1))


@every_condition
def test_with_the_exact_posterior_every_weight_is_log_p(condition):
    """No variance at all: log p(x | z, c) p(z | c) / p(z | x, c) is log p(x | c) for every z."""
    oracle = linear_gaussian(exact=True, condition=condition)
    score = jax.jit(partial(cvae.log_weights, oracle.model, num_samples=7))
    weights = score(oracle.params, jax.random.key(1), oracle.x, oracle.c)
    assert weights.log_likelihood.shape == weights.log_ratio.shape == weights.value.shape == (7, BATCH)
    assert np.all(np.ptp(weights.log_likelihood, axis=0) > 0.1)
    np.testing.assert_allclose(weights.value, np.tile(oracle.exact_log_prob(), (7, 1)), rtol=1e-5)


@every_condition
def test_the_order_of_the_bounds(condition):
    """ELBO = log p - KL(q || posterior) = IWAE-1 < IWAE-5 <= log p, in expectation."""
    oracle = linear_gaussian(exact=False, condition=condition)
    exact, lost = oracle.exact_log_prob(), gap(oracle)
    both = draws(oracle, lambda *a: jnp.stack([cvae.elbo(*a).value, iwae_of(1)(*a), iwae_of(FEW)(*a)]), 5)
    elbo, one, few = both[:, 0], both[:, 1], both[:, 2]
    assert np.all(lost > 10 * error(elbo)), "the encoder must be wrong by more than the noise"
    assert np.all(np.abs(elbo.mean(axis=0) - (exact - lost)) < 5 * error(elbo))
    assert np.all(np.abs(one.mean(axis=0) - (exact - lost)) < 5 * error(one))
    assert np.all(few.mean(axis=0) - one.mean(axis=0) > 5 * np.hypot(error(one), error(few)))
    assert np.all(few.mean(axis=0) < exact + 5 * error(few))


def test_more_samples_tighten_the_bound():
    oracle = linear_gaussian(exact=False)
    few, many = draws(oracle, iwae_of(FEW), 7), draws(oracle, iwae_of(MANY), 8)
    assert np.all(many.mean(axis=0) - few.mean(axis=0) > 5 * np.hypot(error(few), error(many)))
    assert np.all(many.mean(axis=0) < oracle.exact_log_prob() + 5 * error(many))


# The terms of the ELBO. A model whose posterior and prior are its parameters, so every KL is known; x ignores z.
POSTERIORS = {
    "mean": jnp.array([[0.1, 2.0, 0.0], [0.2, -1.0, 0.1], [0.0, 1.5, 0.4], [-0.1, 0.5, 0.8]]),
    "log_std": jnp.array([[-0.1, -1.0, 0.0], [0.0, -0.5, 0.1], [0.1, -2.0, -0.2], [0.0, -0.7, 0.0]]),
    "prior": jnp.array([[0.1, 0.3, -0.2]]),
    "level": jnp.array(0.5),
}
STATED = cvae.CVAE(
    lambda key: POSTERIORS,
    lambda params, x, c: Normal(params["mean"], params["log_std"]),
    lambda params, c: Normal(params["prior"], jnp.zeros((1, 3))),
    lambda params, z, c: Normal(jnp.full((len(z), 2), params["level"]), jnp.zeros((len(z), 2))),
)
X = jnp.array([[0.1, 0.2], [1.0, -1.0], [0.3, 0.0], [2.0, 0.4]])


def stated_kl() -> np.ndarray:
    """KL of the posteriors to the prior, [4, 3], the prior's standard deviation being 1."""
    mean, log_std, prior = (np.asarray(POSTERIORS[name], np.float64) for name in ("mean", "log_std", "prior"))
    return 0.5 * (np.exp(2 * log_std) + (mean - prior) ** 2 - 1) - log_std


def test_missing_elements_are_integrated_out():
    """Every weight of the exact posterior given the others is log p of the others; the ELBO is below by the KL."""
    oracle = linear_gaussian(exact=True, missing=True)
    score = jax.jit(partial(cvae.log_weights, oracle.model, num_samples=7))
    weights = score(oracle.params, jax.random.key(1), oracle.x, oracle.c)
    np.testing.assert_allclose(weights.value, np.tile(oracle.exact_log_prob(), (7, 1)), rtol=1e-5)
    wrong = linear_gaussian(exact=False, missing=True)
    elbo = draws(wrong, lambda *a: cvae.elbo(*a).value, 5)
    assert np.all(np.abs(elbo.mean(axis=0) - (wrong.exact_log_prob() - gap(wrong))) < 5 * error(elbo))


def test_free_bits_apply_to_the_mean_over_the_batch(key):
    """sum_d max(free_bits, mean_b KL_bd); a prior of one row serves the whole batch."""
    kl, free = stated_kl(), 0.3
    assert (kl.mean(axis=0) < free).tolist() == [True, False, True]
    assert np.any(kl[:, 2] > free), "the maximum is of the mean, not of each example"
    terms = cvae.elbo(STATED, POSTERIORS, key, X, {}, free_bits=free, beta=2.0)
    assert float(terms.penalty.mean()) == pytest.approx(2 * np.maximum(free, kl.mean(axis=0)).sum(), rel=1e-5)
    np.testing.assert_allclose(terms.kl, kl.sum(axis=1), rtol=1e-5)  # what is reported stays the KL
    np.testing.assert_allclose(terms.value, terms.log_likelihood - terms.penalty, rtol=1e-6)


def test_below_free_bits_there_is_no_gradient(key):
    def loss(params, free_bits):
        return -cvae.elbo(STATED, params, key, X, {}, free_bits=free_bits).value.mean()

    slope = jax.jit(jax.grad(loss), static_argnums=1)
    usual, free = slope(POSTERIORS, 0.0), slope(POSTERIORS, 0.3)
    for name in ("mean", "log_std", "prior"):
        assert np.all(np.any(np.asarray(usual[name]) != 0, axis=0))
        np.testing.assert_array_equal(free[name][:, [0, 2]], 0)
        np.testing.assert_array_equal(free[name][:, 1], usual[name][:, 1])
    np.testing.assert_array_equal(free["level"], usual["level"])


def test_beta_scales_the_penalty_and_vmap_runs_over_it(key):
    oracle = linear_gaussian(exact=False)
    betas = jnp.array([0.0, 1.0, 4.0])

    def value(beta):
        return cvae.elbo(oracle.model, oracle.params, key, oracle.x, oracle.c, beta=beta)

    swept, each, alone = jax.jit(jax.vmap(value))(betas), value(betas), value(0.25)
    assert alone._fields == ("log_likelihood", "kl", "penalty")
    assert [term.shape for term in (*alone, alone.value)] == [(BATCH,)] * 4
    assert swept.value.shape == (3, BATCH)
    np.testing.assert_array_equal(alone.penalty, 0.25 * alone.kl)
    np.testing.assert_allclose(swept.penalty, betas[:, None] * alone.kl, rtol=1e-5)
    np.testing.assert_allclose(swept.log_likelihood, np.tile(alone.log_likelihood, (3, 1)), rtol=1e-5)
    np.testing.assert_allclose(each.penalty, betas * alone.kl, rtol=1e-5)  # one beta per example


# Ladders


def test_with_a_ladders_exact_posterior_every_weight_is_log_p():
    oracle = linear_ladder(exact=True)
    weights = cvae.log_weights(oracle.model, {}, jax.random.key(1), oracle.x, oracle.c, num_samples=50).value
    np.testing.assert_allclose(weights, np.tile(oracle.exact_log_prob(), (50, 1)), atol=2e-4)


def test_the_terms_of_a_ladder():
    """The KL is that of both layers together, and the ELBO is below log p by the KL to the exact posterior."""
    oracle, truth = linear_ladder(exact=False), linear_ladder(exact=True)
    to_posterior = oracle._replace(prior_mean=truth.posterior_mean, prior_covariance=truth.posterior_covariance)
    both = draws(oracle, lambda *a: jnp.stack([(terms := cvae.elbo(*a)).kl, terms.value]), 3)
    for values, expected in ((both[:, 0], oracle.exact_kl()), (both[:, 1], None)):
        expected = oracle.exact_log_prob() - to_posterior.exact_kl() if expected is None else expected  # noqa: PLW2901
        assert np.all(values.std(axis=0) > 1e-3)  # an estimate: the second layer's KL depends on the first's draw
        assert np.all(np.abs(values.mean(axis=0) - expected) < 5 * error(values))
    assert np.all(to_posterior.exact_kl() > 0.1)


# Proposals


@pytest.mark.parametrize("proposal", ["posterior", "prior", "mixture"])
@pytest.mark.parametrize("name", ["unconditional", "mixed", "ladder"])
def test_the_mean_weight_is_p_for_every_proposal(name, proposal):
    """Of three draws: an odd number cannot be divided in halves, yet the mixture is unbiased."""
    ladder = name == "ladder"
    oracle = linear_ladder(exact=False) if ladder else linear_gaussian(exact=False, condition=CONDITIONS[name])
    values = draws(oracle, lambda *a: cvae.log_weights(*a, num_samples=3, proposal=proposal).value, 2)
    ratio = np.exp(values - oracle.exact_log_prob()).mean(axis=1)
    assert np.all(np.abs(ratio.mean(axis=0) - 1) < 5 * error(ratio))


def test_a_mixture_draws_half_from_each_and_its_weights_are_bounded():
    oracle = linear_gaussian(exact=False)
    score = partial(
        cvae.log_weights, oracle.model, oracle.params, jax.random.key(1), oracle.x, oracle.c, num_samples=99
    )
    ratio = jax.jit(lambda: score(proposal="mixture").log_ratio)()
    # log (q + p) / 2 p is at least -log 2, and far above it for draws that q has made and p would not.
    assert np.all(ratio > -np.log(2) - 1e-5)
    assert np.all(ratio.max(axis=0) > 0.5)


def tame(params: dict) -> dict:
    """Smaller weights, so that posterior and prior overlap and an error bar can be trusted."""
    return jax.tree_util.tree_map_with_path(lambda p, leaf: leaf * (0.4 if p[-1].key == "kernel" else 1.0), params)


def gsnn_of(oracle) -> np.ndarray:
    """E_{p(z | c)} log p(x | z, c), [B]: that at the mean, less what the spread of z costs."""
    p, x, f, _ = oracle.double()
    mean = (p["m0"] + f @ p["M"].T) @ p["W"].T + f @ p["V"].T
    spread = np.trace(p["W"] @ np.diag(np.exp(2 * p["log_s0"])) @ p["W"].T)
    constant = EVENT * np.log(NOISE * np.sqrt(2 * np.pi))
    return -(((x - mean) ** 2).sum(axis=1) + spread) / (2 * NOISE**2) - constant


def test_the_hybrid_is_the_cvae_at_weight_1_and_the_gsnn_at_0():
    oracle = linear_gaussian(exact=False)
    arguments = oracle.model, oracle.params, jax.random.key(6), oracle.x, oracle.c
    for weight, expected in ((1, cvae.elbo(*arguments, beta=0.5)), (0, cvae.elbo(*arguments, proposal="prior"))):
        jax.tree.map(np.testing.assert_array_equal, hybrid(*arguments, weight=weight, beta=0.5), expected)
    mixed = draws(oracle, lambda *a: hybrid(*a, weight=0.3).value, 7)
    expected = 0.3 * (oracle.exact_log_prob() - gap(oracle)) + 0.7 * gsnn_of(oracle)
    assert np.all(np.abs(mixed.mean(axis=0) - expected) < 5 * error(mixed))


# Importance sampling in bounded memory


def equal_weights(pixels: int, std: float) -> cvae.CVAE:
    """A hand-made model in which all importance weights are equal: x ignores z, whose posterior is its prior."""
    standard = Normal(jnp.zeros((1, 2)), jnp.zeros((1, 2)))

    def decode(params, z, c):
        return Normal(jnp.zeros((len(z), pixels)), jnp.full((len(z), pixels), np.log(std)))

    return cvae.CVAE(lambda key: {}, lambda params, x, c: standard, lambda params, c: standard, decode)


@pytest.mark.parametrize("num_samples", [1, 7, 120, 5000])
def test_equal_weights_are_summed_exactly(num_samples):
    """Tens of thousands of nats of 64x64x3 elements: the value does not drift, and all samples are effective."""
    model, pixels = equal_weights(64 * 64 * 3, 0.1), 64 * 64 * 3
    x = 0.3 * np.random.default_rng(0).normal(size=(1, pixels)).astype(np.float32)
    exact = jax.jit(lambda: model.decode({}, jnp.zeros((1, 2)), {}).log_prob(x))()
    score = jax.jit(lambda key: importance_estimate(model, {}, key, x, {}, num_samples=num_samples))
    estimate = score(jax.random.key(0))
    assert abs(float(exact[0])) > 10_000
    np.testing.assert_allclose(estimate.value, exact, atol=0.02)  # ten roundings of float32 at this size
    assert 1 <= float(estimate.effective_samples[0]) <= num_samples
    np.testing.assert_allclose(estimate.effective_samples, num_samples, rtol=1e-3)


def test_memory_does_not_grow_with_the_number_of_samples():
    """Values and gradients of 20,000 samples: seen in the memory that the compiled programs ask for."""
    model, params, x, c = linear_gaussian(exact=False)

    def needed(num_samples):
        def loss(params, key):
            return -cvae.iwae(model, params, key, x, c, num_samples=num_samples).mean()

        compiled = jax.jit(jax.value_and_grad(loss)).lower(params, jax.random.key(0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = needed(200), needed(20_000)
    # What is carried from turn to turn may be stacked for the backward pass: a few numbers per 50 samples.
    assert many - few < 20_000 * 8
    assert few < 2**22


def test_turns_count_every_sample_once_and_their_gradient_is_that_of_one_turn(key):
    """100 samples are 50 and 50: weights relative to a running maximum are those of all together."""
    model, params, x, c = linear_gaussian(exact=False)

    def together(params):
        keys = [jax.random.fold_in(key, number) for number in range(2)]
        drawn = [cvae.log_weights(model, params, each, x, c, num_samples=50).value for each in keys]
        first, second = (jax.nn.logsumexp(power * jnp.concatenate(drawn), axis=0) for power in (1, 2))
        return first.mean() - np.log(100), jnp.exp(2 * first - second)

    def by_turns(params):
        estimate = importance_estimate(model, params, key, x, c, num_samples=100)
        return estimate.value.mean(), estimate.effective_samples

    one, other = (jax.jit(jax.value_and_grad(f, has_aux=True))(params) for f in (together, by_turns))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), one, other)


# The audit: several architectures, likelihoods, ladders and priors against numerical integration

AUDIT = {
    "mlp, Bernoulli": (cvae.Label(5), {"latent_size": 2}),
    "residual film, learned prior, continuous Bernoulli": (
        cvae.Continuous(2),
        {"latent_size": 1, "body": "residual", "conditioning": "film", "prior": "learned",
         "likelihood": cvae.ContinuousBernoulli()},
    ),
    "convolutional, Normal": (
        cvae.Image((2, 3, 1), "left_half"),
        {"latent_size": 1, "body": "convolutional",
         "likelihood": cvae.Normal(location=(0.4,), scale=(0.3,), bounds=(0.5, 2.0))},
    ),
    "ladder, learned prior": (
        cvae.Label(5), {"latent_size": 2, "latent_layers": 2, "body": "residual", "prior": "learned"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("condition", "fields"), AUDIT.values(), ids=AUDIT.keys())
def test_importance_sampling_is_the_integral(condition, fields):
    """The weights of a mixture, which are bounded, average to p(x | c)."""
    model, params, x, c = build(condition, **fields)
    params = tame(params)
    exact = integrated_log_prob(model, params, x, c)
    score = jax.jit(lambda key: cvae.log_weights(model, params, key, x, c, num_samples=6000, proposal="mixture").value)
    ratio = np.exp(np.asarray(score(jax.random.key(1)), np.float64) - exact)
    assert np.all(error(ratio) < 0.1), "the test has power"
    assert np.all(np.abs(ratio.mean(axis=0) - 1) < 5 * error(ratio))


# Arguments


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        (cvae.elbo, {"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
        (cvae.iwae, {"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
        (cvae.log_weights, {"proposal": "encoder"}, "proposal must be one of posterior, prior.*, got 'encoder'"),
        (cvae.elbo, {"free_bits": -0.1}, "free_bits must be a finite number of at least 0, got -0.1"),
        (cvae.elbo, {"beta": jnp.ones(3)}, "beta must be a number, or an array of numbers of shape"),
        (hybrid, {"weight": 1.5}, r"weight must be a finite number in \[0, 1\], got 1.5"),
    ],
)
def test_bad_arguments_are_refused(key, function, change, message):
    with pytest.raises(ValueError, match=message):
        function(STATED, POSTERIORS, key, X, {}, **change)


@pytest.mark.parametrize("proposal", ["posterior", "prior"])
@pytest.mark.parametrize("score", [cvae.elbo, cvae.log_weights], ids=lambda f: f.__name__)
def test_x_is_checked_for_every_proposal(score, proposal):
    """Also where the likelihood is `Masked`, and with a prior that never reads x."""
    model, params, x, c = build(cvae.Image((2, 3, 1), "left_half"), latent_size=2, latent_layers=2)
    for wrong in (x + 1, x * np.nan, x.tolist(), x[:1], x[..., 0]):
        with pytest.raises(ValueError, match=r"(^| )x(,| must )"):
            score(model, params, jax.random.key(0), wrong, c, proposal=proposal)
